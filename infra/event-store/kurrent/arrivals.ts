/** As much of a readable stream of objects as is used here. */
export interface ObjectStream {
  read(): unknown;
  resume(): unknown;
  on(event: "readable" | "end", listener: () => void): unknown;
  on(event: "error", listener: (error: Error) => void): unknown;
  removeListener(event: "readable", listener: () => void): unknown;
}

/**
 * What arrives in a stream of objects, in batches of what is there, at most `eventsMax`; the stream buffers, and asks
 * its sender to wait, by its own high-water mark. Ends with the stream; throws its error once everything that came
 * before it is given out, and the signal's reason as soon as that aborts. Listens from the call on.
 */
export function arrivalsIn<T>(
  stream: ObjectStream,
  eventsMax: number,
  signal: AbortSignal,
): AsyncIterable<T[]> {
  let failure: Error | undefined;
  let ended = false;
  let wake: () => void = () => undefined;
  const look = () => wake();
  stream.on("readable", look);
  stream.on("end", () => {
    ended = true;
    wake();
  });
  // Stays for the stream's whole life: an error that nobody listens for would end the process.
  stream.on("error", (error) => {
    failure ??= error;
    wake();
  });

  function nextBatch(): T[] {
    const batch: T[] = [];
    while (batch.length < eventsMax) {
      const next = stream.read() as T | null;
      if (next === null) break;
      batch.push(next);
    }
    return batch;
  }

  async function* batches(): AsyncGenerator<T[]> {
    signal.addEventListener("abort", look);
    try {
      for (;;) {
        signal.throwIfAborted();
        const batch = nextBatch();
        if (batch.length > 0) {
          yield batch;
        } else if (failure) {
          throw failure;
        } else if (ended) {
          return;
        } else {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
    } finally {
      signal.removeEventListener("abort", look);
      // What was not read runs off, so that the stream comes to its end: one that is left standing is never let go.
      stream.removeListener("readable", look);
      stream.resume();
    }
  }
  return batches();
}
