import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { systemClock } from "#infra/clock.ts";
import { createLog } from "#infra/telemetry/log.ts";
import { createTelemetry } from "#infra/telemetry/telemetry.ts";
import { createReadiness, type Check } from "#services/internal/readiness.ts";
import { createInternalServer } from "#services/internal/server.ts";
import { canary, filesIn, formsOf, listenTo, modeOf, search, type Heard } from "./canaries.ts";
import {
  fullRequest,
  loadWith,
  newCanaries,
  startTellingUpstream,
  type Said,
} from "./secrets-load.ts";

/**
 * Prompts, answers, keys and headers are in no file, log, metric, error or head: strings that nobody else would write
 * are put in each of them, through every way in which a request can end and through kills, and then looked for in every
 * byte that relai leaves. A caller's `x-client-request-id` is not among them: it is recorded and echoed on purpose.
 */

const LAUNCHER = join(import.meta.dirname, "../../bin/relai.mjs");
const STREAMS_AT_A_KILL = 10;

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "relai-secrets-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function pageOf(url: string): Promise<Buffer> {
  return Buffer.from(await (await fetch(url)).arrayBuffer());
}

describe("the search finds what was planted", () => {
  const planted = canary();
  const only = { planted };

  test.for(Object.entries(formsOf(planted)))("as %s, in a file", ([form, bytes]) => {
    const here = join(folder, "planted");
    mkdirSync(join(here, "deep"), { recursive: true });
    writeFileSync(join(here, "deep", "file"), Buffer.concat([Buffer.from("ab"), bytes]));
    expect(search(filesIn(here), only)).toContain(`planted in deep/file (${form})`);
  });

  test.for([0, 1, 2])("within base64 of something longer, %i bytes in", (offset) => {
    const encoded = Buffer.from(`${"x".repeat(offset)}${planted}rest`).toString("base64");
    const places = new Map([["text", Buffer.from(encoded)]]);
    expect(search(places, only)).toEqual([`planted in text (base64 at ${offset})`]);
  });

  test("in a row that is only in a -wal file", () => {
    const here = join(folder, "wal");
    mkdirSync(here);
    const database = new DatabaseSync(join(here, "events.sqlite"));
    database.exec("PRAGMA journal_mode = WAL; CREATE TABLE events (data BLOB)");
    database.prepare("INSERT INTO events VALUES (?)").run(Buffer.from(`{"a":"${planted}"}`));
    expect(search(filesIn(here), only)).toEqual(["planted in events.sqlite-wal (plain)"]);
    database.close();
  });

  test("in what a process says", async () => {
    const script = `console.log("${planted}"); console.error(JSON.stringify({a: "${planted}"}))`;
    const heard = listenTo(["-e", script], {});
    await heard.closed;
    const places = new Map([
      ["stdout", heard.stdout()],
      ["stderr", heard.stderr()],
    ]);
    expect(search(places, only)).toEqual([
      "planted in stderr (plain)",
      "planted in stdout (plain)",
    ]);
  });

  test("in a label of a metric", async () => {
    const log = createLog({ level: "silent" });
    const telemetry = createTelemetry({ log, models: new Set([planted]) });
    const [status, code, durationMs] = [200, "ok", 1];
    const facts = { route: "/", status, code, model: planted, durationMs, firstByteMs: undefined };
    telemetry.requestDone({ ...facts, chargedMicro: 0, inputTokens: 0, outputTokens: 0 });
    const server = createInternalServer({ telemetry, readiness: readinessWith({}), settings: [] });
    const url = await server.listen({ host: "127.0.0.1", port: 0 });
    const places = new Map([["/metrics", await pageOf(`${url}/metrics`)]]);
    await server.close();
    expect(search(places, only)).toEqual(["planted in /metrics (plain)"]);
  });

  test("in the head or the body of an answer", async () => {
    const telemetry = {
      alarm: () => {},
      metricsText: () => Promise.resolve(""),
      metricsContentType: `text/${planted}`,
    };
    const readiness = readinessWith({ [planted]: () => "down" });
    const server = createInternalServer({ telemetry, readiness, settings: [] });
    const url = await server.listen({ host: "127.0.0.1", port: 0 });
    const places = new Map([
      ["head", Buffer.from(JSON.stringify([...(await fetch(`${url}/metrics`)).headers]))],
      ["body", await pageOf(`${url}/readyz`)],
    ]);
    await server.close();
    expect(search(places, only)).toEqual(["planted in body (plain)", "planted in head (plain)"]);
  });
});

/** A process that needs only these, and goes on. */
function readinessWith(checks: Readonly<Record<string, Check>>) {
  return createReadiness({ clock: systemClock(), checks, isStopping: () => false });
}

interface Ready {
  readonly regions: { readonly us: Record<"gateway" | "control" | "internal", string> };
  readonly demo: { readonly key: string | null };
}

test("canaries of callers, upstreams and keys are nowhere in what relai leaves", async () => {
  const told = newCanaries();
  const dataDir = join(folder, "data");
  const upstream = await startTellingUpstream(told);
  const start = async (): Promise<{ heard: Heard; ready: Ready }> => {
    const heard = listenTo([LAUNCHER, "start", "--json"], {
      RELAI_DATA_DIR: dataDir,
      RELAI_GATEWAY_PORT: "0",
      RELAI_INTERNAL_PORT: "0",
      RELAI_CONTROL_PORT: "0",
      RELAI_SIMULATOR_PORT: "0",
      RELAI_LOG_LEVEL: "trace",
      RELAI_READ_ON_MS: "200",
      OPENAI_API_KEY: `sk-${told["host key"]}`,
      OPENAI_BASE_URL: upstream.baseUrl,
    });
    return { heard, ready: JSON.parse(await heard.firstLine) as Ready };
  };

  const places = new Map<string, Buffer>();
  const statuses = new Set<number>();
  const said: Said = {
    add(name, status, head, body) {
      statuses.add(status);
      // The same thing is asked of several servers, and by both loads.
      for (const [part, text] of Object.entries({ head, body })) {
        const place = `${part}: ${name}`;
        places.set(place, Buffer.concat([places.get(place) ?? Buffer.alloc(0), Buffer.from(text)]));
      }
    },
  };
  const keep = (prefix: string, found: ReadonlyMap<string, Buffer>) => {
    for (const [name, bytes] of found) places.set(`${prefix}: ${name}`, bytes);
  };

  const first = await start();
  const adminToken = readFileSync(join(dataDir, "admin-token"), "utf8").trim();
  const key = first.ready.demo.key ?? "";
  const { us } = first.ready.regions;
  await loadWith(told, { ...us, key, adminToken }, said);
  keep("first", new Map([["/metrics", await pageOf(`${us.internal}/metrics`)]]));
  keep("first", new Map([["/readyz", await pageOf(`${us.internal}/readyz`)]]));

  // Killed while streams run, started again, loaded again, and stopped.
  const streams = Array.from({ length: STREAMS_AT_A_KILL }, () =>
    fetch(`${us.gateway}/v1/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body: fullRequest(told, "endless", { stream: true }),
    }),
  );
  const begun = await Promise.all(streams);
  expect(begun.map(({ status }) => status)).toEqual(begun.map(() => 200));
  first.heard.kill("SIGKILL");
  await first.heard.closed;
  keep("killed", filesIn(dataDir));
  const second = await start();
  await loadWith(told, { ...second.ready.regions.us, key, adminToken }, said);
  keep(
    "second",
    new Map([["/metrics", await pageOf(`${second.ready.regions.us.internal}/metrics`)]]),
  );
  keep("restarted", filesIn(dataDir));
  second.heard.kill("SIGTERM");
  await second.heard.closed;
  keep("stopped", filesIn(dataDir));
  for (const [name, { heard }] of Object.entries({ first, second })) {
    places.set(`${name}: stdout`, heard.stdout());
    places.set(`${name}: stderr`, heard.stderr());
  }
  upstream.close();

  // The load was what it says: every kind of refusal, events on disk, streams that a kill cut.
  for (const status of [200, 400, 401, 402, 403, 404, 405, 413, 415, 429, 502])
    expect(statuses).toContain(status);
  const log = ["", "-wal"]
    .map((end) => places.get(`restarted: us/events.sqlite${end}`)?.toString("latin1"))
    .join();
  for (const type of ["UsageRecorded", "RequestReleased", "RequestExpired", "KeyIssued"])
    expect(log).toContain(type);
  expect([...places.keys()]).toContain("killed: us/events.sqlite-wal");
  expect([...places.keys()]).toContain("killed: simulator-book.jsonl");

  // The parts of our own secrets that are never shown in a shortened form.
  const ownSecrets = { "demo key": key.slice(-34, -6), "admin token": adminToken };
  const whole = ["killed", "restarted"].flatMap((when) => [
    `admin token in ${when}: admin-token (plain)`,
    `admin token in ${when}: control.json (plain)`,
    `demo key in ${when}: demo.env (plain)`,
  ]);
  expect(search(places, { ...told, ...ownSecrets })).toEqual(
    [
      ...whole,
      "admin token in stopped: admin-token (plain)",
      "demo key in stopped: demo.env (plain)",
      // Told once, to whoever started it.
      "demo key in first: stdout (plain)",
      // A fault of the request is told in the upstream's words.
      "refusal in body: upstream 400 (plain)",
      "refusal in body: upstream 400, streamed (plain)",
      "prompt in body: simulator's refusal (plain)",
    ].sort(),
  );
  for (const file of ["demo.env", "admin-token"]) expect(modeOf(join(dataDir, file))).toBe("600");
}, 60_000);
