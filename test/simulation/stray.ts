import { HOLD_TABLE, type HoldVerb } from "#domain/accounts/holds.ts";
import { BEGIN_MS } from "./process.ts";
import type { Dice } from "./random.ts";
import type { World } from "./world.ts";

/** The verbs that a misdirected or repeated call may carry, and that the hold table lets pass without effect. */
const VERBS = ["admit", "extend", "drop", "close", "sweep"] as const satisfies readonly HoldVerb[];
const HARMLESS: ReadonlySet<string> = new Set(["refuse", "gone", "nothing"]);

/**
 * A call that nobody meant: a verb on a hold (or on an id that is not there) for which the table says that it changes
 * nothing. It must change nothing.
 */
export function strayCall(world: World, dice: Dice): void {
  const { state, port } = world.servers.admission();
  const orgs = [...state.orgs.values()];
  if (orgs.length === 0) return;
  const { ownerEpoch, accounts, tombstones } = dice.pick(orgs);
  const { orgId } = accounts;
  const holds = [...accounts.holds.values()];
  const hold = holds.length > 0 && dice.chance(0.8) ? dice.pick(holds) : undefined;
  // One whose time is up is as good as absent: an admission would take it.
  const refusedUntilMs = tombstones.get(hold?.requestId ?? "") ?? Infinity;
  if (refusedUntilMs <= Math.floor(BEGIN_MS + world.timeline.nowMs())) return;
  const requestId = hold?.requestId ?? "req_00000000000000000000000000";
  const writerEpoch = hold?.writerEpoch ?? 999_999;
  const verb = dice.pick(VERBS);
  if (!HARMLESS.has(HOLD_TABLE[hold?.state ?? "absent"][verb])) return;
  // A sweep is for all holds of a writer: it is harmless only where none of them is still provisional.
  if (
    verb === "sweep" &&
    holds.some((one) => one.writerEpoch === writerEpoch && one.state === "provisional")
  )
    return;
  if (verb === "sweep" && !hold) world.watch.observe("absent", "sweep");

  const figures = () =>
    JSON.stringify([accounts.fundedMicro, accounts.spentMicro, accounts.heldMicro, hold]);
  const before = figures();
  const ask = { orgId, ownerEpoch, requestId };
  switch (verb) {
    case "admit":
      void port.admit({ ...ask, writerEpoch, keyId: hold?.keyId ?? "", holdMicro: 1 });
      break;
    case "extend":
      void port.extend({ ...ask, totalMicro: 1_000_000 });
      break;
    case "drop":
      void port.drop(ask);
      break;
    case "close":
      void port.close({ ...ask, chargedMicro: 1 });
      break;
    case "sweep":
      void port.sweep({ orgId, ownerEpoch, writerEpoch });
  }
  if (figures() !== before)
    world.watch.broken("IDEMP", `a stray ${verb} of a ${hold?.state ?? "absent"} hold moves money`);
}
