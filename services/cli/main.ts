import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { systemClock } from "#infra/clock.ts";
import { describeConfig, readConfig, type Config } from "#infra/config.ts";
import { backUpEventStore, restoreEventStore } from "#infra/event-store/backup.ts";
import { readSecretFile } from "#infra/files.ts";
import { lockFolder } from "#infra/folder-lock.ts";
import { CONTROL_FILE_NAME } from "#services/control/control-file.ts";
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

function configFrom(file: string | undefined): Config {
  return readConfig(file === undefined ? { env: process.env } : { env: process.env, file });
}

const clock = systemClock();
const eventsIn = (dataDir: string, region: string) => join(dataDir, region, "events.sqlite");

process.exitCode = await runCli(
  {
    out: outputTo(process.stdout),
    err: outputTo(process.stderr),
    clock,
    config: configFrom,
    settings: (file) => describeConfig(configFrom(file)),
    controlFile: (dataDir) => readSecretFile(join(dataDir, CONTROL_FILE_NAME)),
    async start({ file, json }) {
      const { runStart } = await import("#services/start/main.ts");
      await runStart({ config: configFrom(file), json });
    },
    async simulator(options) {
      mkdirSync(dirname(options.bookPath), { recursive: true, mode: 0o700 });
      const { runSimulator } = await import("#services/simulator/main.ts");
      return runSimulator(options);
    },
    backUp: ({ dataDir, region, to }) => backUpEventStore(eventsIn(dataDir, region), to),
    async restore({ dataDir, region, from }) {
      // The lock says that no relai runs on the folder, and keeps one from starting meanwhile.
      const lock = lockFolder(dataDir);
      try {
        mkdirSync(join(dataDir, region), { recursive: true, mode: 0o700 });
        const suffix = `.before-restore-${new Date(clock.now()).toISOString().replaceAll(/[:.]/g, "-")}`;
        return await restoreEventStore(from, eventsIn(dataDir, region), suffix);
      } finally {
        lock.release();
      }
    },
    onStop(callback) {
      process.on("SIGTERM", callback);
      process.on("SIGINT", callback);
    },
  },
  process.argv.slice(2),
);
