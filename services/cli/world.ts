import { readConfig, type Config } from "#infra/config.ts";
import type { Clock } from "#services/ports.ts";

/** The options that every command takes. */
export interface Common {
  readonly json?: boolean;
  /** A file with settings. */
  readonly config?: string;
}

/** The settings that a command runs with. Throws an error of one sentence when one of them is wrong. */
export function configOf({ config: file }: Common): Config {
  return readConfig({ env: process.env, file });
}

/** Where a command line writes. */
export interface Output {
  write(text: string): void;
  readonly isTerminal: boolean;
}

/** What main.ts gives the command line: where it writes, the time, and the processes that it can become. */
export interface CliWorld {
  readonly out: Output;
  readonly err: Output;
  readonly clock: Clock;
  /** Runs all of relai, with `servers` on servers that it finds, or one process of a region, until it is told to stop. */
  readonly start: (
    options: { config: Config; json: boolean; servers?: boolean },
    process?: "gateway" | "ledger" | "control",
  ) => Promise<void>;
  readonly simulator: (options: {
    port: number;
    bookPath: string;
    warn: (message: string) => void;
  }) => Promise<{ readonly url: string; close(): Promise<void> }>;
}

/** A command cannot do its work. 1: the server refused. 2: wrong usage or settings, or nothing is running. */
export class CliError extends Error {
  override readonly name = "CliError";
  readonly exitCode: 1 | 2;
  constructor(exitCode: 1 | 2, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}
