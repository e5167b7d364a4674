import { parentPort, workerData } from "node:worker_threads";
import { openSqliteCore } from "./sqlite-core.ts";
import type { AppendRequest } from "./append-request.ts";
import type { Pragma } from "./sqlite-file.ts";

/**
 * The writer thread of the embedded event store: the only writer of its file, so that waiting for the disk stops
 * nobody. One message in is one transaction, and one message out; the store gathers what comes in the meantime.
 * It dies of an error whose outcome is not certain: the store then calls the outcome unknown and starts another.
 */

export type WriterOrder =
  | {
      readonly order: "append";
      readonly requests: readonly AppendRequest[];
      readonly nowMs: number;
    }
  | { readonly order: "pragma"; readonly name: Pragma; readonly value: number | undefined }
  | { readonly order: "close" };

if (!parentPort) throw new Error("the event store's writer runs as a worker thread only");
const port = parentPort;
// The store's path, from whoever starts the thread.
const core = openSqliteCore(workerData as string);
port.on("message", (message: WriterOrder) => {
  if (message.order === "append") {
    port.postMessage(core.appendAll(message.requests, message.nowMs));
  } else if (message.order === "pragma") {
    port.postMessage(core.pragma(message.name, message.value));
  } else {
    core.close();
    port.close();
  }
});
