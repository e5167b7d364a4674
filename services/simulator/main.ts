import { parseArgs } from "node:util";
import { systemClock } from "#infra/clock.ts";
import { systemRandom } from "#infra/random.ts";
import { createSimulator } from "./server.ts";
import type { Simulator } from "./server.ts";

export interface RunSimulatorOptions {
  /** 0 takes a free port. */
  readonly port: number;
  readonly address?: string;
  readonly bookPath?: string;
  readonly warn?: (message: string) => void;
}

/** Starts a simulated upstream on the machine's own clock. Rejects when the port is taken or the book is damaged. */
export async function runSimulator(
  options: RunSimulatorOptions,
): Promise<Pick<Simulator, "close" | "book" | "release"> & { readonly url: string }> {
  const { port, address, ...rest } = options;
  const simulator = createSimulator({ clock: systemClock(), random: systemRandom(), ...rest });
  try {
    const url = await simulator.listen(port, address);
    return { url, close: simulator.close, book: simulator.book, release: simulator.release };
  } catch (error) {
    await simulator.close();
    throw error;
  }
}

const USAGE = "usage: node services/simulator/main.ts [--port 8099] [--book FILE] [--json]";

/** The simulator as a process of its own: says where it is, and runs until it is told to stop. */
async function main(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      port: { type: "string", default: "8099" },
      book: { type: "string" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(`${USAGE}\n`);
    return;
  }
  const port = Number(values.port);
  if (!/^\d{1,5}$/.test(values.port) || port > 65_535)
    throw new Error(`'${values.port}' is no port`);
  const simulator = await runSimulator({
    port,
    ...(values.book !== undefined && { bookPath: values.book }),
    warn: (message) => process.stderr.write(`relai simulator: ${message}\n`),
  });
  const ready = values.json
    ? JSON.stringify({ ready: true, url: simulator.url })
    : `The simulated upstream listens on ${simulator.url}/openai/v1`;
  process.stdout.write(`${ready}\n`);
  let stopping = false;
  const stop = (): void => {
    if (stopping) return;
    stopping = true;
    void simulator.close();
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
}

if (import.meta.main) {
  try {
    await main(process.argv.slice(2));
  } catch (error) {
    process.stderr.write(
      `relai simulator: ${error instanceof Error ? error.message : String(error)}\n${USAGE}\n`,
    );
    process.exitCode = 2;
  }
}
