import type { Redis } from "ioredis";
import type { AdmissionOrg } from "#domain/accounts/admission.ts";
import { toSnapshot } from "#domain/accounts/accounts.ts";
import type { Hold, Lot } from "#domain/accounts/types.ts";
import type { KeyLimits } from "#domain/key-limits.ts";
import { BUCKETS } from "#domain/accounts/rate-window.ts";
import { takingsOf } from "#infra/admission/redis-replies.ts";

/** Everything that the store knows of an organization, as a test compares it; in an order of its own where none is meant. */
export type Books = ReturnType<typeof booksOf>;

const byName = <Of>(entries: Iterable<[string, Of]>): [string, Of][] =>
  [...entries].sort(([one], [other]) => (one < other ? -1 : 1));

/** The reducer's. */
export function booksOf(org: AdmissionOrg) {
  const { lots, keys, holds, orgId: _, ...totals } = toSnapshot(org.accounts);
  return {
    ownerEpoch: org.ownerEpoch,
    ...totals,
    lots,
    freeLots: lots.filter((lot) => lot.availableMicro > 0).map(({ lotId }) => lotId),
    keys: byName(keys.map((key) => [key.keyId, key])),
    holds: byName(holds.map((hold) => [hold.requestId, hold])),
    taken: [...org.provisional].map(([requestId, atMs]) => `${atMs} ${requestId}`),
    tombstones: [...org.tombstones].map(([requestId, untilMs]) => `${untilMs} ${requestId}`),
    windows: byName([...org.windows].map(([keyId, window]) => [keyId, { ...window }])),
  };
}

/** The same of a Redis, read from its keys; undefined where the organization is absent. */
export async function booksOnRedis(
  redis: Redis,
  prefix: string,
  orgId: string,
): Promise<Books | undefined> {
  const keyOf = (name: string) => `${prefix}{${orgId}}:${name}`;
  const [fields, free, taken, tombstones] = await Promise.all([
    redis.hgetallBuffer(keyOf("state")),
    redis.zrange(keyOf("free"), "0", "-1"),
    redis.zrange(keyOf("taken"), "0", "-1"),
    redis.lrange(keyOf("tombstones"), 0, -1),
  ]);
  const text = (name: string) => fields[name]?.toString() ?? "";
  const named = (mark: string) =>
    byName(
      Object.keys(fields)
        .filter((name) => name.startsWith(`${mark}:`))
        .map((name) => [name.slice(2), text(name)]),
    );
  if (fields["epoch"] === undefined) return undefined;
  const lots = named("l")
    .map(([lotId, packed]) => {
      const [order, pot, funded, available, held] = packed.split(" ");
      const amounts = { availableMicro: Number(available), heldMicro: Number(held) };
      const lot = { lotId, pot: pot as Lot["pot"], fundedMicro: Number(funded), ...amounts };
      return { order: Number(order), lot };
    })
    .sort((one, other) => one.order - other.order)
    .map(({ lot }) => lot);
  if (String(lots.length) !== text("lots"))
    throw new Error("the count of lots is not their number");
  return {
    ownerEpoch: Number(text("epoch")),
    position: text("position"),
    created: text("created") === "1",
    fundedMicro: Number(text("funded")),
    spentMicro: Number(text("spent")),
    heldMicro: Number(text("held")),
    ...(fields["fault"] && { fault: text("fault") }),
    lots,
    freeLots: free,
    keys: named("k").map(([keyId, packed]) => {
      const [, revoked, spent, held, limits = ""] = /^(\S+) (\S+) (\S+) (.*)$/.exec(packed) ?? [];
      const amounts = { spentMicro: Number(spent), heldMicro: Number(held) };
      return [
        keyId,
        { keyId, revoked: revoked === "1", limits: JSON.parse(limits) as KeyLimits, ...amounts },
      ];
    }),
    holds: named("h").map(([requestId, packed]) => [requestId, holdOf(requestId, packed)]),
    taken: taken.map((member) => member.replace(/ \S+ /, " ")),
    tombstones: tombstones.map((requestId) => {
      const [, , , , , untilMs] = text(`h:${requestId}`).split(" ");
      return `${untilMs} ${requestId}`;
    }),
    windows: named("r").map(([keyId, packed]) => {
      const [second = 0, total = 0, , newest = 0] = packed.split(" ").map(Number);
      const buckets = fields[`b:${keyId}`];
      const counts = Array.from({ length: BUCKETS }, (_, at) => buckets?.readUInt32BE(4 * at) ?? 0);
      counts[second % BUCKETS] = newest;
      return [keyId, { second, total, counts }];
    }),
  };
}

function holdOf(requestId: string, packed: string): Hold {
  const [state, writer, keyId = "", revision, , , total, ...takings] = packed.split(" ");
  return {
    requestId,
    keyId: keyId === "-" ? "" : keyId,
    writerEpoch: Number(writer),
    state: state as Hold["state"],
    totalMicro: Number(total),
    accounts: takingsOf(takings.join(" ")),
    revision: Number(revision),
  };
}
