import { join } from "node:path";
import { freePort, startProgram, type StartedProgram } from "./program.ts";

/** An EventStoreDB or KurrentDB of our own on 127.0.0.1: one node, which asks nobody who he is. */
export interface StartedEventStore extends StartedProgram {
  /** It says `tls=false`. */
  readonly url: string;
}

/** An idle node takes one to three seconds, on a machine that has nothing else to do. */
const READY_MS_MAX = 60_000;
const ANSWER_MS_MAX = 1_000;

/**
 * Starts a server, 23.10 or later: what it is told by are names that this version brought. Its events are in `folder`, or
 * without one in its memory. Rejects with what it printed where it does not become ready.
 */
export async function startEventStore(options: {
  readonly program: string;
  readonly folder?: string | undefined;
  readonly readyMsMax?: number;
}): Promise<StartedEventStore> {
  const { program, folder, readyMsMax = READY_MS_MAX } = options;
  const [port, replicationPort] = await Promise.all([freePort(), freePort()]);
  const started = await startProgram({
    program,
    folder,
    args: (at) =>
      [
        ["--insecure", "--node-ip", "127.0.0.1", "--node-port", String(port)],
        ["--replication-ip", "127.0.0.1", "--replication-port", String(replicationPort)],
        folder === undefined ? ["--mem-db"] : ["--db", join(at, "db")],
        ["--log", join(at, "log")],
      ].flat(),
    // A .NET program unpacks itself into its user's folder.
    env: (at) => ({
      HOME: at,
      EVENTSTORE_TELEMETRY_OPTOUT: "true",
      KURRENTDB_TELEMETRY_OPTOUT: "true",
    }),
    isReady: () => isLive(port),
    readyMsMax,
  });
  return { ...started, url: `esdb://127.0.0.1:${port}?tls=false` };
}

/** What its image's own health check asks. */
async function isLive(port: number): Promise<boolean> {
  const signal = AbortSignal.timeout(ANSWER_MS_MAX);
  try {
    return (await fetch(`http://127.0.0.1:${port}/health/live`, { signal })).ok;
  } catch {
    return false;
  }
}
