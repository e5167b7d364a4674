import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs, promisify } from "node:util";
import { newEvent, streams, type NewEvent } from "#domain/events/events.ts";
import type { EventMetadata } from "#domain/events/schemas.ts";
import { type AppendRequest, NO_STREAM, rowsOf } from "#infra/event-store/append-request.ts";
import { openSqliteCore } from "#infra/event-store/sqlite-core.ts";
import { readConfig } from "#infra/config.ts";
import { openRelai } from "#services/start/main.ts";

/**
 * How long a start takes on a store with many earlier starts and organizations, beside one on an empty store, in turns:
 * `node test/bench/starts.ts --starts 10000 --orgs 100000`. Each organization has a top-up and a key.
 */

const ROUNDS = 5;
const FILLED_MS_MAX = 600_000;
const REGION = "us";
const SHA = "0123456789abcdef".repeat(4);
const APPENDS_AT_ONCE = 5_000;
const by: EventMetadata = {
  at: 1_790_000_000_000,
  region: REGION,
  actor: "bench",
  $correlationId: "bench",
  schema: 1,
};

const idOf = (prefix: string, number: number) => `${prefix}_${String(number).padStart(26, "0")}`;

const make: typeof newEvent = (stream, key, type, data) => newEvent(stream, key, type, data, by);

/** What a start and its clean stop record: two writers, a claim, a fence and a seal for each. */
function* lives(count: number): Generator<AppendRequest> {
  const writers = streams.writers(REGION);
  for (let start = 0; start < count; start++) {
    const at = start * 3;
    const journals = [at, at + 1].map((epoch) => streams.journal(REGION, epoch));
    const claim = { ownerEpoch: start + 1, writerEpoch: at, servers: [`server ${start}`] };
    yield requestOf(writers, at - 1, [
      make(
        writers,
        `started:${at}`,
        "WriterStarted.v1",
        { process: "ledger", instance: `l${at}` },
        by,
      ),
      make(
        writers,
        `started:${at + 1}`,
        "WriterStarted.v1",
        { process: "gateway", instance: `g${at}` },
        by,
      ),
      make(writers, `owner:${start + 1}:${at}`, "OwnerChanged.v1", claim, by),
    ]);
    for (const stream of journals)
      yield requestOf(stream, NO_STREAM, [
        make(stream, `fenced:${start + 1}`, "OwnerFenced.v1", { ownerEpoch: start + 1 }, by),
        make(stream, "sealed", "JournalSealed.v1", { by: "writer" }, by),
      ]);
  }
}

function* organizations(count: number): Generator<AppendRequest> {
  for (let number = 0; number < count; number++) {
    const orgId = idOf("org", number);
    const keyId = idOf("key", number);
    const [org, key] = [streams.org(orgId), streams.key(keyId)];
    const topUpId = idOf("lot", number);
    const tokenHash = number.toString(16).padStart(64, "0");
    const credit = {
      orgId,
      topUpId,
      amountMicro: 5_000_000,
      source: "manual",
      pot: "paid",
      bodySha256: SHA,
    } as const;
    const issued = {
      keyId,
      orgId,
      scope: "regional",
      homeRegion: REGION,
      name: "app",
      tokenHash,
      displayPrefix: "relai_sk_us_live_ab12…cd34",
      limits: { rpm: 60 },
      bodySha256: SHA,
    } as const;
    yield requestOf(org, NO_STREAM, [
      make(
        org,
        orgId,
        "OrganizationCreated.v1",
        { orgId, name: `Customer ${number}`, homeRegion: REGION, bodySha256: SHA },
        by,
      ),
      make(org, topUpId, "CreditToppedUp.v1", credit, by),
    ]);
    yield requestOf(key, NO_STREAM, [make(key, keyId, "KeyIssued.v1", issued, by)]);
  }
}

function requestOf(stream: string, expected: number, events: readonly NewEvent[]): AppendRequest {
  return { stream, expected, rows: rowsOf(events) };
}

function write(path: string, starts: number, orgs: number): void {
  const core = openSqliteCore(path);
  core.pragma("synchronous", 0);
  let batch: AppendRequest[] = [];
  const flush = () => {
    for (const { outcome } of core.appendAll(batch, by.at).judged)
      if (outcome !== "appended") throw new Error(`an append was answered ${outcome}`);
    batch = [];
  };
  for (const source of [organizations(orgs), lives(starts)])
    for (const request of source) {
      batch.push(request);
      if (batch.length === APPENDS_AT_ONCE) flush();
    }
  flush();
  core.close();
}

interface Took {
  /** Until relai is ready and serves. */
  readonly readyMs: number;
  /** Until every organization is in place. */
  readonly filledMs: number;
  /** Of all threads, until then: what the machine's other work does not change. */
  readonly cpuMs: number;
  /** The most memory that the process ever had. */
  readonly mostMib: number;
}

/** Starts and stops once in a process of its own, so that its memory is its own. */
async function start(dataDir: string): Promise<Took> {
  const { stdout } = await promisify(execFile)(process.execPath, [
    import.meta.filename,
    "--one",
    dataDir,
  ]);
  return JSON.parse(stdout) as Took;
}

async function startOne(dataDir: string): Promise<Took> {
  const env = {
    RELAI_DATA_DIR: dataDir,
    RELAI_DEMO: "0",
    RELAI_LOG_LEVEL: "fatal",
    RELAI_GATEWAY_PORT: "0",
    RELAI_INTERNAL_PORT: "0",
    RELAI_CONTROL_PORT: "0",
  };
  const begunMs = performance.now();
  const before = process.cpuUsage();
  const relai = await openRelai(readConfig({ env }));
  const readyMs = performance.now() - begunMs;
  if (!(await relai.filled(FILLED_MS_MAX))) throw new Error("not every organization came in");
  const { user, system } = process.cpuUsage(before);
  const filledMs = performance.now() - begunMs;
  const mostMib = process.resourceUsage().maxRSS / 1024;
  await relai.stop();
  return { readyMs, filledMs, cpuMs: (user + system) / 1_000, mostMib };
}

const shown = ({ readyMs, filledMs, cpuMs, mostMib }: Took) =>
  `ready in ${Math.round(readyMs)} ms, filled in ${Math.round(filledMs)} ms (cpu ${Math.round(cpuMs)} ms, ${Math.round(mostMib)} MiB)`;

async function compare(starts: number, orgs: number): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), "relai-starts-"));
  try {
    const [empty, full] = [join(root, "empty"), join(root, "full")];
    mkdirSync(join(full, REGION), { recursive: true });
    write(join(full, REGION, "events.sqlite"), starts, orgs);
    process.stdout.write(`first start, which folds everything: ${shown(await start(full))}\n`);
    await start(empty);
    for (let round = 0; round < ROUNDS; round++) {
      process.stdout.write(`empty ${shown(await start(empty))}\n`);
      process.stdout.write(`full  ${shown(await start(full))}\n`);
    }
  } finally {
    rmSync(root, { recursive: true });
  }
}

const { values } = parseArgs({
  options: { starts: { type: "string" }, orgs: { type: "string" }, one: { type: "string" } },
});
if (values.one === undefined)
  await compare(Number(values.starts ?? 10_000), Number(values.orgs ?? 100_000));
else process.stdout.write(JSON.stringify(await startOne(values.one)));
