import { newEvent } from "#domain/events/events.ts";
import type { Journal } from "./journal.ts";
import type { Clock } from "./ports.ts";
import { metadataOf, type Author } from "./writers.ts";

/** Every writer writes at least this often while it lives, where writers are separate processes. */
const ALIVE_EVERY_MS = 10_000;

/** Writes a sign of life into a journal every {@link ALIVE_EVERY_MS}, until stopped or sealed. */
export function keepAlive(journal: Journal, clock: Clock, author: Author): () => void {
  let cancel = () => {};
  let stopped = false;
  let count = 0;
  function arm(): void {
    if (stopped) return;
    cancel = clock.timer(ALIVE_EVERY_MS, () => {
      if (journal.isSealed()) return;
      const metadata = metadataOf(clock, author, journal.stream);
      const event = newEvent(journal.stream, `alive:${count++}`, "WriterAlive.v1", {}, metadata);
      void journal.record({ events: [event] }).then(arm);
    });
  }
  arm();
  return () => {
    stopped = true;
    cancel();
  };
}
