import { diceOf } from "./random.ts";

/**
 * What can go wrong, each kind with how often per occasion. `lost`: the call never arrived; `reply_lost`: it took
 * effect and nobody was told; `late`: the caller gave up and it took effect afterwards; `repeated`: it arrived again.
 */
export const FAULT_RATES = {
  store_lost: 0.004,
  store_reply_lost: 0.006,
  store_refused: 0.012,
  store_read_failed: 0.004,
  follow_dropped: 0.004,
  admission_lost: 0.006,
  admission_reply_lost: 0.006,
  admission_late: 0.004,
  admission_repeated: 0.03,
  admission_restarted: 0.02,
  admission_failed_over: 0.02,
  address_unreachable: 0.02,
  disk_failed: 0.01,
  disk_lost: 0.3,
  slow: 0.03,
  crash: 0.12,
  gateway_paused: 0.03,
  ledger_paused: 0.02,
  gateway_stopped: 0.03,
  connect_failed: 0.03,
  upstream_failed: 0.3,
  client_left: 0.12,
  client_slow: 0.1,
  clock_skewed: 0.5,
  stray: 0.1,
  servers_flushed: 0.01,
  server_away: 0.015,
} as const satisfies Record<string, number>;

export type FaultKind = keyof typeof FAULT_RATES;
export const FAULT_KINDS = Object.keys(FAULT_RATES) as FaultKind[];

/** How likely a kind of fault is to be missing from a world altogether. */
const SPARED = 0.2;

/**
 * How a world knows that a writer is dead. `silence`: ledger and gateways are processes of their own, on servers that
 * outlive them. `lock`: they are one process, which has locked its data folder, and its memory dies with it; or, where it
 * says `apart`, admission and keys are on a server of which each start uses a part of its own.
 */
export type Death = "silence" | "lock" | "lock, apart";

const GATEWAY_CALLS = [
  ...["append", "read"].map((method) => `store.${method}`),
  ...["seek", "figures", "admit", "extend", "drop", "close", "want"].map(
    (method) => `admission.${method}`,
  ),
  "directory.lookup",
  "upstream.send",
];
const LEDGER_CALLS = [
  ...["append", "read", "fence", "follow", "head"].map((method) => `store.${method}`),
  ...["seek", "wanted", "figures", "apply", "adopt", "sweep"].map(
    (method) => `admission.${method}`,
  ),
  ...["put", "markFilling", "markFilled", "stateOf"].map((method) => `directory.${method}`),
  ...["open", "checkpoint", "rows", "commit"].map((method) => `disk.${method}`),
];
/** Where memory and process are one hardly anybody is missed, and the marks of the directory end with it. */
const ONLY_APART = new Set([
  "admission.want",
  "directory.markFilling",
  "directory.markFilled",
  "directory.stateOf",
]);

const REGION_CALLS = [...new Set([...GATEWAY_CALLS, ...LEDGER_CALLS])];
/** The calls of ports at which a process can end, before they arrive or after they took effect. */
export const CRASH_POINTS: Readonly<Record<Death, readonly string[]>> = {
  silence: beforeAndAfter([
    ...GATEWAY_CALLS.map((call) => `gateway ${call}`),
    ...LEDGER_CALLS.map((call) => `ledger ${call}`),
  ]),
  lock: beforeAndAfter(
    REGION_CALLS.filter((call) => !ONLY_APART.has(call)).map((call) => `region ${call}`),
  ),
  "lock, apart": beforeAndAfter(REGION_CALLS.map((call) => `region ${call}`)),
};

/** One far from the other: where both wait for a call, it is always the first that ends the process. */
function beforeAndAfter(calls: readonly string[]): string[] {
  return ["before", "after"].flatMap((end) => calls.map((call) => `${call} ${end}`));
}

/** The faults of one world: drawn by kind, counted, and all off once the world is healed. */
export interface Faults {
  /** Whether a fault of this kind happens on this occasion. */
  strikes(kind: FaultKind): boolean;
  /** Arms the next crash point: the first call that passes it ends its process. */
  armCrash(): void;
  /** Whether the process that passes this point now ends here. */
  crashesAt(point: string): boolean;
  /** From now on nothing goes wrong any more. */
  heal(): void;
  readonly isHealed: () => boolean;
  readonly counts: ReadonlyMap<FaultKind, number>;
  readonly crashes: ReadonlyMap<string, number>;
}

export function createFaults(
  seed: number,
  off: ReadonlySet<FaultKind>,
  death: Death = "silence",
): Faults {
  const points = CRASH_POINTS[death];
  const dice = new Map(FAULT_KINDS.map((kind) => [kind, diceOf(seed, `fault ${kind}`)]));
  const counts = new Map<FaultKind, number>();
  const crashes = new Map<string, number>();
  // A point that is seldom passed stays armed until it is.
  const armed = new Set<string>();
  // Seeds walk through the points from different places, so that a set of them passes all.
  let next = (seed * 7) % points.length;
  let healed = false;
  // Each world is spared some kinds: what one fault would repair or hide is seen where that fault is missing.
  const choice = diceOf(seed, "spared kinds");
  const spared = new Set(FAULT_KINDS.filter(() => choice.chance(SPARED)));

  function strikes(kind: FaultKind): boolean {
    if (healed || off.has(kind) || spared.has(kind)) return false;
    if (!dice.get(kind)?.chance(FAULT_RATES[kind])) return false;
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
    return true;
  }

  return {
    strikes,
    armCrash() {
      armed.add(points[next] ?? "");
      next = (next + 1) % points.length;
    },
    crashesAt(point) {
      if (healed || !armed.delete(point)) return false;
      crashes.set(point, (crashes.get(point) ?? 0) + 1);
      return true;
    },
    heal() {
      healed = true;
    },
    isHealed: () => healed,
    counts,
    crashes,
  };
}
