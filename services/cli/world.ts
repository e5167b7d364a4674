import type { SettingView } from "#services/control/views.ts";
import type { Clock } from "#services/ports.ts";

/** What the command line needs of the settings. */
export interface CliConfig {
  readonly dataDir: string;
  readonly regions: readonly string[];
  readonly controlUrl: string | undefined;
  readonly adminToken: string | undefined;
  readonly controlPort: number;
  readonly simulatorPort: number;
}

/** Where a command line writes; `columns` is undefined when it is no terminal. */
export interface Output {
  write(text: string): void;
  readonly isTerminal: boolean;
}

/** The world of the command line: what main.ts gives it, and what a test could give it instead. */
export interface CliWorld {
  readonly out: Output;
  readonly err: Output;
  readonly clock: Clock;
  /** Reads the settings. Throws an error whose message is one sentence when one of them is wrong. */
  readonly config: (file: string | undefined) => CliConfig;
  readonly settings: (file: string | undefined) => readonly SettingView[];
  /** The text of the file by which a running process is found; undefined when there is none. */
  readonly controlFile: (dataDir: string) => string | undefined;
  /** Runs until it is told to stop. */
  readonly start: (options: { file: string | undefined; json: boolean }) => Promise<void>;
  readonly simulator: (options: {
    port: number;
    bookPath: string;
    warn: (message: string) => void;
  }) => Promise<{ readonly url: string; close(): Promise<void> }>;
  /** Copies the events of a region's folder into a new file. Throws an error of one sentence when it cannot. */
  readonly backUp: (options: {
    dataDir: string;
    region: string;
    to: string;
  }) => Promise<StoreCopied>;
  /** Puts a backup in their place; says where the old ones are kept. Throws as `backUp` does. */
  readonly restore: (options: {
    dataDir: string;
    region: string;
    from: string;
  }) => Promise<StoreCopied & { readonly aside: string | undefined }>;
  /** Calls back at SIGTERM and SIGINT. */
  readonly onStop: (callback: () => void) => void;
}

/** What a copy of a region's events holds. */
export interface StoreCopied {
  readonly events: number;
  readonly position: number;
  readonly bytes: number;
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
