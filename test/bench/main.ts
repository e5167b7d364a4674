import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Bench, measureRound, profile, replay, say, soak } from "./bench.ts";
import { cpuUsed, fileSystemOf, othersBetween } from "./measure.ts";
import { findCores, startScript, startServer } from "./processes.ts";
import { page, type Round } from "./report.ts";
import { FULL, SMOKE } from "./rounds.ts";
import { freshFolder, portkeyIsInstalled, type Target, TARGETS } from "./targets.ts";

const USAGE = `npm run bench -- [options]

  --smoke            a few seconds of every part, to see that it works; says nothing about speed
  --rounds N         rounds to measure (3); 0 with --soak for the soak alone
  --only NAMES       of ${TARGETS.map(({ name }) => name).join(", ")}; bare always runs
  --connections N    connections of the closed loop, to each process of a gateway (16)
  --soak TIME        afterwards mixed load on relai for so long: 90s, 10m
  --profile          only profile relai, with --only servers its gateways there: where CPU goes in a closed loop
  --streams          with --profile: of streams
  --data DIR         where the stores lie (the system's temporary folder); never on a tmpfs
  --write            write docs/benchmarks.md although not everything ran
`;

const REPLAY_EVENTS = 400_000;
const MEMORY_FILE_SYSTEMS = ["tmpfs", "ramfs", "devtmpfs"];

/** A wrong use or a machine that cannot do it: one sentence, exit 2. */
function refuse(sentence: string): never {
  process.stderr.write(`bench: ${sentence}\n`);
  process.exit(2);
}

function countOf(option: string, text: string, min: number): number {
  const count = Number(text);
  if (!Number.isSafeInteger(count) || count < min)
    refuse(`--${option} takes a whole number from ${min}, not ${text}`);
  return count;
}

function secondsOf(text: string): number {
  const match = /^(\d+)(s|m)$/.exec(text);
  if (match === null) refuse(`--soak takes a time such as 90s or 10m, not ${text}`);
  return Number(match[1]) * (match[2] === "m" ? 60 : 1);
}

const readOptions = () =>
  parseArgs({
    options: {
      smoke: { type: "boolean", default: false },
      rounds: { type: "string", default: "3" },
      only: { type: "string" },
      connections: { type: "string", default: String(FULL.connections) },
      soak: { type: "string" },
      profile: { type: "boolean", default: false },
      streams: { type: "boolean", default: false },
      data: { type: "string", default: tmpdir() },
      write: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  }).values;

function chooseTargets(only: string | undefined, smoke: boolean): Target[] {
  const names = only?.split(",") ?? TARGETS.map(({ name }) => name);
  for (const name of names) {
    if (!TARGETS.some((target) => target.name === name)) refuse(`there is no target ${name}`);
  }
  // A smoke run takes what is there and installs nothing.
  return TARGETS.filter(
    ({ name }) =>
      name === "bare" ||
      (names.includes(name) && !(smoke && name === "portkey" && !portkeyIsInstalled())),
  );
}

function commitOfSource(): string {
  try {
    const where = {
      cwd: import.meta.dirname,
      stdio: ["ignore", "pipe", "ignore"] as ["ignore", "pipe", "ignore"],
    };
    return execFileSync("git", ["describe", "--always", "--dirty"], {
      ...where,
      encoding: "utf8",
    }).trim();
  } catch {
    return "not under git";
  }
}

function facts(fileSystem: string): [string, string][] {
  const [cpu] = cpus();
  return [
    ["date", new Date().toISOString().slice(0, 10)],
    ["source", commitOfSource()],
    ["Node", process.version],
    [
      "machine",
      `${cpu?.model.trim() ?? "unknown CPU"}, ${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}`,
    ],
    ["load of the machine before the run", loadavg()[0]?.toFixed(2) ?? "unknown"],
    ["file system of the data", fileSystem],
  ];
}

async function main(): Promise<void> {
  const options = readOptions();
  if (options.help) {
    say(USAGE);
    return;
  }
  if (process.platform !== "linux")
    refuse("needs Linux: it reads /proc and binds processes with taskset");
  const { smoke } = options;
  const cores = findCores();
  if (cores === undefined && !smoke)
    refuse("needs two cores and taskset, or the gateway would share its core");
  const fileSystem = fileSystemOf(options.data);
  if (MEMORY_FILE_SYSTEMS.includes(fileSystem) && !smoke) {
    refuse(
      `${options.data} is on ${fileSystem}, where a commit costs nothing; name a folder on a disk with --data`,
    );
  }
  const about = facts(fileSystem);
  for (const [what, value] of about) say(`${what}: ${value}`);

  const folder = freshFolder(realpathSync(options.data), "relai-bench");
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  const where = { core: cores?.load, folder };
  const upstream = await startServer("upstream.ts", [], where);
  const load = startScript("load.ts", [], where);
  const bench: Bench = {
    folder,
    cores,
    plan: {
      ...(smoke ? SMOKE : FULL),
      connections: countOf("connections", options.connections, 1),
    },
    upstreamUrl: upstream.ready.url,
    load,
    targets: chooseTargets(options.only, smoke),
    leftOut: new Map(),
    problems: [],
  };
  try {
    if (options.profile) await profile(bench, options.streams);
    else await measureAll(bench, options, about);
  } finally {
    await Promise.all([load.stop(), upstream.child.stop()]);
  }
  for (const problem of bench.problems) process.stderr.write(`bench: ${problem}\n`);
  if (bench.problems.length > 0) process.exitCode = 1;
}

/** The rounds, the replay and the soak, and the page that tells of them. */
async function measureAll(
  bench: Bench,
  options: ReturnType<typeof readOptions>,
  about: [string, string][],
): Promise<void> {
  const { smoke } = options;
  const roundsWanted = smoke ? 1 : countOf("rounds", options.rounds, 0);
  const soakSeconds = options.soak === undefined ? undefined : secondsOf(options.soak);
  const rounds: Round[] = [];
  const before = cpuUsed();
  while (rounds.length < roundsWanted) {
    say(`round ${rounds.length + 1} of ${roundsWanted}`);
    rounds.push(await measureRound(bench));
  }
  const others = othersBetween(before, cpuUsed());
  if (others.problem !== undefined && !smoke && rounds.length > 0)
    bench.problems.push(`${others.problem}: these figures are not to be trusted`);
  const replayed =
    rounds.length === 0 ? undefined : await replay(bench, smoke ? 2_000 : REPLAY_EVENTS);
  const soaked = soakSeconds === undefined ? undefined : await soak(bench, soakSeconds);
  if (rounds.length === 0) return;
  const { targets, leftOut } = bench;
  const text = page({
    facts: about,
    targets,
    rounds,
    others,
    leftOut,
    replay: replayed,
    soak: soaked,
  });
  const complete = rounds.length >= 3 && options.only === undefined && bench.problems.length === 0;
  if (smoke) {
    if (bench.problems.length === 0) say("smoke run: every part that is there works");
  } else if (complete || options.write) {
    const file = join(import.meta.dirname, "../../docs/benchmarks.md");
    mkdirSync(join(file, ".."), { recursive: true });
    writeFileSync(file, text);
    say(`written: docs/benchmarks.md\n\n${readFileSync(file, "utf8")}`);
  } else {
    say(`\n${text}`);
  }
}

await main();
