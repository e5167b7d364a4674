import { expect } from "vitest";
import { readBook } from "#test/doubles/simulator-book.ts";
import { compare, eventsIn, ledgerOf, type Ledger } from "#test/faults/books.ts";
import type { Seen } from "#test/faults/clients.ts";
import { readBalance } from "#test/faults/processes.ts";
import { until, type Part, type Region } from "./region.ts";
import type { Funded } from "./crowd.ts";

/** An organization by the events alone. */
export function foldOf({ events, admitted, ends }: Ledger, orgId: string) {
  let [fundedMicro, spentMicro, heldMicro] = [0, 0, 0];
  for (const { type, data } of events) {
    if (type === "CreditToppedUp.v1" && data.orgId === orgId) fundedMicro += data.amountMicro;
    if (type === "UsageRecorded.v1" && data.orgId === orgId) spentMicro += data.chargedMicro;
  }
  for (const { data } of admitted.values())
    if (data.orgId === orgId && !ends.has(data.requestId)) heldMicro += data.holdMicro;
  return {
    fundedMicro,
    spentMicro,
    heldMicro,
    availableMicro: fundedMicro - spentMicro - heldMicro,
  };
}

/** Waits until nothing of these customers is held. */
export async function untilNothingIsHeld(
  region: Region,
  customers: readonly Pick<Funded, "orgId">[],
  limitMs: number,
): Promise<void> {
  await until("nothing is held", limitMs, async () => {
    const asked = await Promise.all(customers.map(({ orgId }) => region.figures(orgId)));
    const isFree = asked.every((one) => one.outcome === "figures" && one.balance.heldMicro === 0);
    return isFree || undefined;
  });
}

/**
 * Nothing runs any more. The upstream's book, the events, what callers saw, the admission store and the control API tell
 * the same; nobody has spent more than was put in; and nothing is held.
 */
export async function expectAtRest(
  region: Region,
  control: Part,
  customers: readonly Funded[],
  seen: readonly Seen[],
  left: ReadonlySet<string>,
  book = readBook(region.bookPath),
): Promise<Ledger> {
  const ledger = ledgerOf(await eventsIn(region.store));
  const found = compare(ledger, book, seen, left);
  expect([...found, ...chargedThoughRefused(ledger, seen)]).toEqual([]);
  for (const { orgId, fundedMicro } of customers) {
    const fold = foldOf(ledger, orgId);
    expect(fold).toMatchObject({ fundedMicro, heldMicro: 0 });
    expect(fold.availableMicro).toBeGreaterThanOrEqual(0);
    expect(await region.figures(orgId)).toMatchObject({ balance: fold });
    expect(await readBalance({ control: control.url }, orgId)).toEqual({
      credits_micro: fundedMicro - fold.spentMicro,
      available_micro: fold.availableMicro,
      held_micro: 0,
    });
  }
  return ledger;
}

/** Who was refused or told of an error has not paid, unless the books know that the answer was not delivered. */
function chargedThoughRefused({ ends, undelivered }: Ledger, seen: readonly Seen[]): string[] {
  const ids = new Set<string>();
  return seen.flatMap(({ requestId = "", status, code }) => {
    const isTwice = ids.has(requestId);
    ids.add(requestId);
    if (isTwice) return [`${requestId} was answered twice`];
    const isCharged = ends.get(requestId)?.[0]?.type === "UsageRecorded.v1";
    return status !== 200 && isCharged && !undelivered.has(requestId)
      ? [`${requestId} was told ${status} ${code} and is charged`]
      : [];
  });
}
