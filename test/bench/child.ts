/**
 * What the harness and the programs that it starts say to each other. Every program of the bench runs in a process
 * of its own, so that its CPU can be counted apart and it can be bound to a core.
 */

/** A server that listens. `key` is the credential that callers of it need, if it looks at one. */
export interface Ready {
  readonly url: string;
  readonly key?: string;
}

export type Announcement = { readonly ready: Ready } | { readonly failed: string };

/** Starts a server in this child process, tells the harness where it listens, and ends when the harness is gone. */
export async function announce(start: () => Promise<Ready>): Promise<void> {
  endWithHarness();
  try {
    tell({ ready: await start() } satisfies Announcement);
  } catch (error) {
    const failed = error instanceof Error ? error.message : String(error);
    tell({ failed } satisfies Announcement);
  }
}

/** Sends a message to the harness. Throws when this process was not started by it. */
export function tell(message: object): void {
  if (process.send === undefined) throw new Error("this program is started by test/bench/main.ts");
  process.send(message);
}

/** The harness may be killed; nobody else would end this process then. */
export function endWithHarness(): void {
  process.once("disconnect", () => process.exit());
}
