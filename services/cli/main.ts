import { systemClock } from "#infra/clock.ts";
import { systemRandom } from "#infra/random.ts";
import { runCli } from "./program.ts";
import type { Output } from "./world.ts";

/** The command line, wired to this machine. It runs when it is loaded: bin/relai.mjs only loads it. */

function outputTo(stream: NodeJS.WriteStream): Output {
  // A reader that has seen enough, such as `head`, is no failure.
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit();
    throw error;
  });
  return { write: (text) => void stream.write(text), isTerminal: stream.isTTY ?? false };
}

process.exitCode = await runCli(
  {
    out: outputTo(process.stdout),
    err: outputTo(process.stderr),
    clock: systemClock(),
    // Each is loaded by its own command only: the others answer sooner.
    async start(options, name) {
      const { runStart, runProcess } = await import("#services/start/main.ts");
      await (name === undefined ? runStart(options) : runProcess(options, name));
    },
    async simulator(options) {
      const { startSimulator } = await import("#services/simulator/server.ts");
      return startSimulator({ clock: systemClock(), random: systemRandom(), ...options });
    },
  },
  process.argv.slice(2),
);
