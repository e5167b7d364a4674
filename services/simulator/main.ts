import { systemClock } from "#infra/clock.ts";
import { systemRandom } from "#infra/random.ts";
import { createSimulator } from "./server.ts";
import type { Simulator } from "./server.ts";

export interface RunSimulatorOptions {
  /** 0 takes a free port. */
  readonly port: number;
  readonly bookPath?: string;
  readonly warn?: (message: string) => void;
}

/** Starts a simulated upstream on the machine's own clock. Rejects when the port is taken or the book is damaged. */
export async function runSimulator(
  options: RunSimulatorOptions,
): Promise<Pick<Simulator, "close" | "book" | "release"> & { readonly url: string }> {
  const { port, ...rest } = options;
  const simulator = createSimulator({ clock: systemClock(), random: systemRandom(), ...rest });
  try {
    const url = await simulator.listen(port);
    return { url, close: simulator.close, book: simulator.book, release: simulator.release };
  } catch (error) {
    await simulator.close();
    throw error;
  }
}
