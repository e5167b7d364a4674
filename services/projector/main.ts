import { parentPort, workerData } from "node:worker_threads";
import { systemClock } from "#infra/clock.ts";
import { openSqliteEventReader } from "#infra/event-store/sqlite-reader.ts";
import { openSqliteReadModels } from "#infra/read-models/sqlite.ts";
import type {
  ProjectorAsk,
  ProjectorSaid,
  ProjectorThreadData,
} from "#infra/read-models/worker-projector.ts";
import { startProjector } from "./projector.ts";

/** The projector's thread: it reads the event store's file beside its writer, and alone writes the read models' files. */
if (!parentPort) throw new Error("the projector runs as a thread of another relai process");
const port = parentPort;
// Whoever starts the thread gives it this, and nobody else can.
const { eventStorePath, folder, pollMs, batchMs } = workerData as ProjectorThreadData;

function say(said: ProjectorSaid): void {
  port.postMessage(said);
}

const clock = systemClock();
const onAlarm = (what: string, facts: Readonly<Record<string, string | number | boolean>>) =>
  say({ said: "alarm", what, facts });
const store = openSqliteEventReader({ path: eventStorePath, clock, pollMs });
const readModels = openSqliteReadModels({
  folder,
  onDropped: (projection, reason) => onAlarm("read_model_dropped", { projection, reason }),
});
const projector = await startProjector({
  store,
  readModels,
  clock,
  batchMs,
  signal: new AbortController().signal,
  onAlarm,
});

function rowsOf({ projection, atLeast, tables }: Extract<ProjectorAsk, { ask: "rows" }>) {
  const rows = projector.rows(projection, atLeast, tables);
  // Whoever asks has mostly just recorded what they want to see.
  store.lookNow();
  return rows;
}

async function answer(asked: ProjectorAsk): Promise<ProjectorSaid> {
  const { id } = asked;
  switch (asked.ask) {
    case "rows":
      return { said: "rows", id, ...(await rowsOf(asked)) };
    case "rebuild": {
      const progress = await projector.rebuild(asked.projection, (now) =>
        say({ said: "progress", id, progress: now }),
      );
      return { said: "rebuilt", id, progress };
    }
    case "close":
      await projector.close();
      await readModels.close();
      await store.close();
      return { said: "closed", id };
  }
}

port.on("message", (asked: ProjectorAsk) => {
  answer(asked).then(
    (said) => {
      say(said);
      if (said.said === "closed") port.close();
    },
    (error: unknown) => {
      const message = error instanceof Error ? error.message : "the projector failed";
      say({ said: "failed", id: asked.id, message });
    },
  );
});
