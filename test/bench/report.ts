import type { Figures, Latencies } from "./rounds.ts";
import { RATES } from "./rounds.ts";
import type { ReplayResult } from "./replay.ts";
import type { Soak } from "./soak.ts";
import { median } from "./stats.ts";
import type { Target } from "./targets.ts";

/** One round: the disk's commit, the direct path, and every target that ran. */
export interface Round {
  readonly commitMs: number;
  readonly direct: Latencies;
  readonly figures: ReadonlyMap<string, Figures>;
}

export interface Run {
  readonly facts: readonly (readonly [string, string])[];
  readonly targets: readonly Target[];
  readonly rounds: readonly Round[];
  /** The part of one core that other programs used during the rounds, and why that is not to be trusted. */
  readonly others: { readonly share: number; readonly problem?: string };
  /** Why a target is not in the figures. */
  readonly leftOut: ReadonlyMap<string, string>;
  readonly replay: ReplayResult | undefined;
  readonly soak: Soak | undefined;
}

/** The medians over the rounds of one target; what is added to the direct path is subtracted within a round. */
interface Summary {
  readonly perSecond: number;
  readonly busy: number;
  readonly requestUs: number;
  readonly requestTimes: number;
  readonly streamUs: number;
  readonly streamTimes: number;
  readonly added: readonly { readonly p50Ms: number; readonly p99Ms: number }[];
  /** The same at the rates, less the commits that the target waits for. */
  readonly addedLess: readonly { readonly p50Ms: number; readonly p99Ms: number }[];
  readonly firstByteMs: number;
  readonly firstByteLessMs: number;
  readonly memoryMiB: number;
  readonly failed: number;
}

function summarize(run: Run, target: Target): Summary | undefined {
  const mine = run.rounds.flatMap((round) => {
    const figures = round.figures.get(target.name);
    return figures === undefined ? [] : [{ round, figures }];
  });
  if (mine.length === 0) return undefined;
  type Part = (typeof mine)[number];
  const over = (of: (part: Part) => number): number => median(mine.map(of));
  const times = (of: (figures: Figures) => number) =>
    over(({ round, figures }) => of(figures) / of(round.figures.get("bare") ?? figures));
  const added = (commits: number) =>
    RATES.map((rate) => {
      const of = (which: "p50Ms" | "p99Ms") =>
        over(
          ({ round, figures }) =>
            figures.at[rate][which] - round.direct.at[rate][which] - commits * round.commitMs,
        );
      return { p50Ms: of("p50Ms"), p99Ms: of("p99Ms") };
    });
  // Of a stream's commits one stands before its first byte.
  const firstByte = (commits: number) =>
    over(
      ({ round, figures }) =>
        figures.firstByte.p50Ms - round.direct.firstByte.p50Ms - commits * round.commitMs,
    );
  return {
    perSecond: over(({ figures }) => figures.perSecond),
    busy: over(({ figures }) => figures.busy),
    requestUs: over(({ figures }) => figures.requestUs),
    requestTimes: times(({ requestUs }) => requestUs),
    streamUs: over(({ figures }) => figures.streamUs),
    streamTimes: times(({ streamUs }) => streamUs),
    added: added(0),
    addedLess: added(target.commits),
    firstByteMs: firstByte(0),
    firstByteLessMs: firstByte(Math.min(1, target.commits)),
    memoryMiB: over(({ figures }) => figures.memoryMiB),
    failed: mine
      .flatMap(({ figures }) => Object.values(figures.errors))
      .reduce((sum, count) => sum + count, 0),
  };
}

const whole = (value: number): string => Math.round(value).toLocaleString("en-US");
const two = (value: number): string => value.toFixed(2);
const pair = ({ p50Ms, p99Ms }: { p50Ms: number; p99Ms: number }): string =>
  `${two(p50Ms)} / ${two(p99Ms)}`;
const row = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;

function mainTable(run: Run): string[] {
  const lines = [
    row([
      "",
      "requests/s (core busy)",
      "µs CPU per request (× bare)",
      ...RATES.map((rate) => `added p50 / p99 ms at ${rate}/s`),
      "µs CPU per stream (× bare)",
      "first byte of a stream added, p50 ms",
      "peak memory MiB",
      "failed",
    ]),
    row(Array.from({ length: 7 + RATES.length }, () => "---")),
  ];
  for (const target of run.targets) {
    const summary = summarize(run, target);
    if (summary === undefined) continue;
    const { perSecond, busy, requestUs, requestTimes, streamUs, streamTimes } = summary;
    lines.push(
      row([
        target.title,
        `${whole(perSecond)} (${whole(busy * 100)} %)`,
        `${whole(requestUs)} (${two(requestTimes)})`,
        ...summary.added.map((added, index) => {
          const less = summary.addedLess[index];
          if (target.commits === 0 || less === undefined) return pair(added);
          return `${pair(added)}, less its commits ${pair(less)}`;
        }),
        `${whole(streamUs)} (${two(streamTimes)})`,
        two(summary.firstByteMs),
        whole(summary.memoryMiB),
        whole(summary.failed),
      ]),
    );
  }
  return lines;
}

type Verdict = readonly [target: string, measured: string, met: boolean | undefined];

/** Every target of the product beside what was measured, whether that is good news or not. */
function verdicts(run: Run): Verdict[] {
  const { replay, soak } = run;
  const servers = onServers(run);
  const product = run.targets.find(({ name }) => name === "relai");
  const relai = product === undefined ? undefined : summarize(run, product);
  const judge = (what: string, value: number | undefined, show: string, met: boolean): Verdict =>
    value === undefined ? [what, "not measured", undefined] : [what, show, met];
  const most = (what: string, value: number | undefined, max: number, unit: string): Verdict =>
    judge(what, value, `${two(value ?? 0)}${unit}`, (value ?? 0) <= max);
  const at300 = relai?.addedLess[RATES.indexOf(300)];
  const perSecond =
    replay !== undefined && "events" in replay ? replay.events / replay.seconds : undefined;
  const grown =
    soak === undefined
      ? ""
      : `${whole(soak.startMiB)} to ${whole(soak.endMiB)} MiB, ${two(soak.mibPerMinute)} MiB/min in the second half`;
  return [
    most("CPU per request ≤ 2 × bare", relai?.requestTimes, 2, " ×"),
    most("CPU per stream of 20 chunks ≤ 1.6 × bare", relai?.streamTimes, 1.6, " ×"),
    most("added p50 at 300/s less two commits ≤ 1 ms", at300?.p50Ms, 1, " ms"),
    most("added p99 at 300/s less two commits ≤ 5 ms", at300?.p99Ms, 5, " ms"),
    most("first byte of a stream less one commit ≤ 1 ms later", relai?.firstByteLessMs, 1, " ms"),
    most("on servers: a gateway's CPU per request ≤ embedded", servers?.requestTimes, 1, " ×"),
    judge(
      "replay of the accounts ≥ 200,000 events/s",
      perSecond,
      `${whole(perSecond ?? 0)} events/s`,
      (perSecond ?? 0) >= 200_000,
    ),
    judge(
      "memory flat over 10 minutes of mixed load",
      soak !== undefined && soak.minutes >= 10 ? soak.minutes : undefined,
      `${whole(soak?.minutes ?? 0)} min: ${grown}`,
      soak?.flat === true && soak.failed === 0,
    ),
    judge(
      "memory ≤ 200 MiB after 30 minutes of it",
      soak !== undefined && soak.minutes >= 30 ? soak.endMiB : undefined,
      `${whole(soak?.endMiB ?? 0)} MiB`,
      (soak?.endMiB ?? 0) <= 200,
    ),
  ];
}

/** What each process of the region on servers used, and how often the gateway's share is the embedded one's. */
function onServers(run: Run): { requestTimes: number; lines: readonly string[] } | undefined {
  const rounds = run.rounds.flatMap(({ figures }) => {
    const [mine, embedded] = [figures.get("servers"), figures.get("relai")];
    return mine && embedded ? [{ mine, embedded }] : [];
  });
  const [first] = rounds;
  if (!first) return undefined;
  const over = (of: (round: (typeof rounds)[number]) => number): number => median(rounds.map(of));
  const ofEach = (show: (of: "requestUs" | "at300Us" | "streamUs") => string): string[] => [
    show("requestUs"),
    show("at300Us"),
    show("streamUs"),
  ];
  const requestTimes = over(({ mine, embedded }) => mine.requestUs / embedded.requestUs);
  const gateway = ofEach((of) => {
    const times = over(({ mine, embedded }) => mine[of] / embedded[of]);
    return `${whole(over(({ mine }) => mine[of]))} (${two(times)} × embedded)`;
  });
  const beside = first.mine.beside.map(({ name }, at) =>
    row([name, ...ofEach((of) => whole(over(({ mine }) => mine.beside[at]?.[of] ?? 0)))]),
  );
  const carried = (of: "requests" | "streams"): string =>
    over(({ mine }) => mine.eventsPerAppend?.[of] ?? Number.NaN).toFixed(1);
  const lines = [
    "On servers, by process:",
    "",
    row(["", "µs CPU per request", "at 300/s", "µs CPU per stream"]),
    row(["---", "---", "---", "---"]),
    row(["the gateway that serves it", ...gateway]),
    ...beside,
    "",
    `An append carried ${carried("requests")} events in the loop of requests and ${carried("streams")} in that of streams. The two gateways share the gateway's core, each with as many connections as the embedded one has; all else shares the other core with upstream and load generator, which bounds the rate: the gateways then have the CPU of a low rate, which is better compared at 300/s, where both of them together serve as many as the embedded one. The event store is the tests' stand-in: it speaks the server's protocol and keeps its events in memory, so neither its CPU nor the time of an append is a server's.`,
  ];
  return { requestTimes, lines };
}

function verdictTable(run: Run): string[] {
  const word = (met: boolean | undefined): string =>
    met === undefined ? "–" : met ? "met" : "**missed**";
  return [
    row(["target (relai, everything on)", "measured", ""]),
    row(["---", "---", "---"]),
    ...verdicts(run).map(([target, measured, met]) => row([target, measured, word(met)])),
  ];
}

/** The whole page, docs/benchmarks.md. */
export function page(run: Run): string {
  const commits = run.rounds.map(({ commitMs }) => two(commitMs)).join(", ");
  const direct = (rate: (typeof RATES)[number]): string =>
    two(median(run.rounds.map((round) => round.direct.at[rate].p50Ms)));
  const leftOut = [...run.leftOut].map(([name, why]) => `- ${name} is not in it: ${why}`);
  if (run.replay !== undefined && "skipped" in run.replay)
    leftOut.push(`- replay is not in it: ${run.replay.skipped}`);
  const { soak } = run;
  const servers = onServers(run);
  return [
    "# Benchmarks",
    "",
    "Made by `npm run bench`; do not edit. Every figure is the median of the rounds, every ratio is taken within a round. The gateway has one core for itself; upstream and load generator share the other.",
    "",
    ...run.facts.map(([what, value]) => `- ${what}: ${value}`),
    `- median durable commit of this disk (SQLite, WAL, synchronous FULL), by round: ${commits} ms`,
    run.others.problem === undefined
      ? `- used by other programs during the rounds: ${whole(run.others.share * 100)} % of one core`
      : `- **these figures are not to be trusted: ${run.others.problem}**`,
    "",
    ...verdictTable(run),
    "",
    ...mainTable(run),
    "",
    "Requests/s and CPU: closed loop over 16 connections; where the core is not busy, the rate is bound by what the gateway waits for and not by its CPU. Added: open loop, latency from the intended start, less that of the direct path in the same round; relai's includes its two durable commits. CPU at a low rate is several times that at saturation: neither follows from the other. Portkey waits 25 ms before the first chunk of each stream on purpose.",
    `The direct path itself takes ${RATES.map((rate) => `${direct(rate)} ms at ${rate}/s`).join(", ")} at the median, of which up to 1 ms is the load generator's timer; it is the same for all.`,
    ...(servers === undefined ? [] : ["", ...servers.lines]),
    ...(soak === undefined
      ? []
      : [
          "",
          `Soak: ${two(soak.minutes)} min, ${whole(soak.requests)} requests and streams, ${soak.failed} failed, peak ${whole(soak.peakMiB)} MiB; CPU ${whole(soak.secondQuarterUs)} µs each in the second quarter, ${whole(soak.lastQuarterUs)} in the last.`,
        ]),
    ...(leftOut.length === 0 ? [] : ["", ...leftOut]),
    "",
  ].join("\n");
}
