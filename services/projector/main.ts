import { parentPort, workerData } from "node:worker_threads";
import { systemClock } from "#infra/clock.ts";
import { openSqliteEventReader } from "#infra/event-store/sqlite-reader.ts";
import { systemRandom } from "#infra/random.ts";
import { openSqliteReadModels } from "#infra/read-models/sqlite.ts";
import type {
  ProjectorAsk,
  ProjectorSaid,
  ProjectorThreadData,
} from "#infra/read-models/worker-projector.ts";
import type { Telemetry } from "#services/ports.ts";
import { startProjector } from "./projector.ts";

/** The projector's thread: it reads the events beside their writers, and alone writes the read models' files. */
if (!parentPort) throw new Error("the projector runs as a thread of another relai process");
const port = parentPort;
// Whoever starts the thread gives it this, and nobody else can.
const { events, folder } = workerData as ProjectorThreadData;

function say(said: ProjectorSaid): void {
  port.postMessage(said);
}

const clock = systemClock();
const onAlarm: Telemetry["alarm"] = (what, facts) => say({ said: "alarm", what, facts });
const store =
  "path" in events
    ? openSqliteEventReader({ path: events.path, clock, pollMs: 100 })
    : await openKurrentReader(events);
const readModels = openSqliteReadModels({
  folder,
  onDropped: (projection, reason) => onAlarm("read_model_dropped", { projection, reason }),
});
const projector = await startProjector({
  store,
  readModels,
  clock,
  signal: new AbortController().signal,
  onAlarm,
});

/** A server tells of new events by itself. */
async function openKurrentReader(place: { url: string; insecure: boolean }) {
  const { openKurrentEventStore } = await import("#infra/event-store/kurrent/store.ts");
  const opened = await openKurrentEventStore({ ...place, clock, random: systemRandom() });
  return { ...opened, lookNow: undefined };
}

async function answer(asked: ProjectorAsk): Promise<unknown> {
  switch (asked.ask) {
    case "rows": {
      const rows = projector.rows(asked.projection, asked.atLeast, asked.tables, asked.slice);
      // Whoever asks has mostly just recorded what they want to see.
      store.lookNow?.();
      return rows;
    }
    case "rebuild":
      return projector.rebuild(asked.projection, (progress) =>
        say({ said: "progress", id: asked.id, progress }),
      );
    case "state":
      return projector.state();
    case "close":
      await projector.close();
      await readModels.close();
      return store.close();
  }
}

port.on("message", (asked: ProjectorAsk) => {
  const { id } = asked;
  answer(asked).then(
    (answer) => {
      say({ said: "answer", id, answer });
      if (asked.ask === "close") port.close();
    },
    (error: unknown) => {
      const message = error instanceof Error ? error.message : "the projector failed";
      say({ said: "failed", id, message });
    },
  );
});
