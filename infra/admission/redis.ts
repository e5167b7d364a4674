import type { Fenced, Wanted } from "#domain/accounts/admission-types.ts";
import type { AccountsItem, OrgSnapshot } from "#domain/accounts/types.ts";
import { WANTED_MAX } from "#domain/accounts/wanted.ts";
import type { KeyLimits } from "#domain/key-limits.ts";
import type { LuaScript } from "#infra/redis/lua-scripts.ts";
import { answersOf, ServerAway, type RedisConnection } from "#infra/redis/connection.ts";
import type { AdmissionStore } from "#services/ports.ts";
import {
  admitOf,
  applyOf,
  extendOf,
  fencedOf,
  meetsOld,
  readFigures,
  type Reply,
} from "./redis-replies.ts";
import { admissionScripts } from "./redis-scripts.ts";

/**
 * The admission store on Redis or Valkey, 7.0 and later, or on a cluster of them. It decides exactly as the pure reducer
 * does; each decision is one script and one round trip. All keys of an organization are in one slot, and each organization
 * keeps the identity of the primary on which it was adopted.
 *
 * A promise that rejects says nothing about the outcome. Ids, and the names of accounts and periods, have no spaces in them:
 * holds are kept as words.
 */
export function createRedisAdmission(options: {
  redis: RedisConnection;
  /** In front of every key, so that several regions may share a server. */
  prefix: string;
  /** Told once when an organization is closed because a rule of the books did not hold. */
  onFault?: (orgId: string, sentence: string) => void;
  /** For whoever must set the time: Lua in the place of the server's own. */
  timeLua?: string;
}): AdmissionStore {
  const { redis, prefix, onFault } = options;
  const scripts = admissionScripts(options.timeLua);
  const wantedKeys = redis.tags.map((tag) => `${prefix}wanted${tag}`);

  function keysOf(orgId: string): string[] {
    return ["state", "free", "taken", "tombstones"].map((name) => `${prefix}{${orgId}}:${name}`);
  }

  /** Runs a script on an organization. What it says by the way is passed on. */
  async function decide<Arg extends string>(
    script: LuaScript<Arg>,
    orgId: string,
    args: Readonly<Record<Arg, string | number>>,
  ): Promise<Reply> {
    const running = redis.run(script, keysOf(orgId), args);
    const reply = (await running.catch(fencedIfAway)) as Reply;
    if (reply[0] === "fenced" && reply[2] !== undefined) onFault?.(orgId, reply[2]);
    // Lost where it fails; whoever comes upon the hold next says it again.
    if (meetsOld(reply)) void want(orgId).catch(() => {});
    return reply;
  }

  async function want(orgId: string): Promise<void> {
    const args = { orgId, most: WANTED_MAX };
    await Promise.any(wantedKeys.map((key) => redis.run(scripts.want, [key], args)));
  }

  return {
    seek: (meant) => redis.seek(meant),
    admit: async (ask) => admitOf(await decide(scripts.admit, ask.orgId, amountsIn(ask))),
    extend: async (ask) => extendOf(await decide(scripts.extend, ask.orgId, amountsIn(ask))),
    drop: async (ask) => endOf(await decide(scripts.drop, ask.orgId, ask), "dropped"),
    close: async (ask) => endOf(await decide(scripts.close, ask.orgId, amountsIn(ask)), "closed"),
    figures: async ({ orgId, keyId = "", ownerEpoch = "" }) =>
      readFigures(await decide(scripts.figures, orgId, { keyId, ownerEpoch })),
    want,
    async wanted() {
      const asked = wantedKeys.map((key) => redis.command("SPOP", key, WANTED_MAX));
      const orgIds = new Set((await answersOf(asked)).flat() as string[]);
      const looks = [...orgIds].map(async (orgId): Promise<Wanted> => {
        const epochs = await redis.run(scripts["old-writers"], keysOf(orgId), {});
        return { orgId, writerEpochs: (epochs as Reply).map(Number) };
      });
      return answersOf(looks);
    },
    async apply({ orgId, ownerEpoch, items }) {
      const text = JSON.stringify(items.map(itemText));
      return applyOf(await decide(scripts.apply, orgId, { orgId, ownerEpoch, items: text }));
    },
    async adopt({ ownerEpoch, servers, state }) {
      const { orgId } = state;
      const snapshot = snapshotText(state);
      // Of an adoption nobody may wonder whether it came about, if that can be helped: it costs everybody a claim.
      if (!(await redis.takes(keysOf(orgId)))) return { outcome: "fenced", fenced: "away" };
      const args = { orgId, ownerEpoch, servers: JSON.stringify(servers), snapshot };
      return endOf(await decide(scripts.adopt, orgId, args), "adopted");
    },
    sweep: async (ask) => endOf(await decide(scripts.sweep, ask.orgId, ask), "swept"),
  };
}

/** What certainly was not sent changed nothing. */
function fencedIfAway(error: unknown): Reply {
  if (error instanceof ServerAway) return ["fenced", "away"];
  throw error;
}

function endOf<Outcome extends string>(
  reply: Reply,
  outcome: Outcome,
): { outcome: Outcome } | Fenced {
  return reply[0] === "fenced" ? fencedOf(reply) : { outcome };
}

/** Amounts are safe integers at every door: what is not would be another number in the store. */
function amountsIn<Ask extends { holdMicro?: number; totalMicro?: number; chargedMicro?: number }>(
  ask: Ask,
): Ask {
  for (const micro of [ask.holdMicro, ask.totalMicro, ask.chargedMicro]) {
    if (micro !== undefined && !(Number.isSafeInteger(micro) && micro >= 0))
      throw new RangeError(`${micro} is no amount of micro-dollars`);
  }
  return ask;
}

/** Limits go in as text, which the store keeps whole: nothing there has to know what limits there are. */
const limitsText = <Of extends { readonly limits: KeyLimits }>(key: Of) => ({
  ...key,
  limits: JSON.stringify(key.limits),
});

function itemText({ prev, position, effects }: AccountsItem) {
  return {
    prev: String(prev),
    position: String(position),
    effects: effects.map((effect) =>
      effect.effect === "key_issued" ? limitsText(effect) : effect,
    ),
  };
}

function snapshotText(state: OrgSnapshot): string {
  const other = state.holds.find((hold) => hold.state !== "open");
  if (other)
    throw new RangeError(
      `a recorded state has open holds only; ${other.requestId} is ${other.state}`,
    );
  return JSON.stringify({ ...state, keys: state.keys.map(limitsText) });
}
