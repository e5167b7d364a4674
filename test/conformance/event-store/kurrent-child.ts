import { EventStoreDBClient, jsonEvent } from "@eventstore/db-client";

/**
 * Appends to two stores over the client's usual path, the batch append, and tells on standard output how far it is:
 * `sent` when the append to the second store is under way, then what becomes of that. argv[2] and argv[3] are the
 * stores' URLs. It shows what the death of one store does to the other, so it may end in an error that nobody catches.
 */
const [, , firstUrl = "", secondUrl = ""] = process.argv;
const first = EventStoreDBClient.connectionString(firstUrl);
const second = EventStoreDBClient.connectionString(secondUrl);
const event = (type: string) => jsonEvent({ type, data: {} });

await first.appendToStream("journal-first", event("Opened"));
await second.appendToStream("journal-second", event("Opened"));
const waiting = second.appendToStream("journal-second", event("Waiting"), { expectedRevision: 0n });
process.stdout.write("sent\n");
await waiting.then(
  () => process.stdout.write("appended\n"),
  (error: Error) => process.stdout.write(`rejected ${error.message}\n`),
);
await new Promise((resolve) => setTimeout(resolve, 10_000));
process.stdout.write("still here\n");
