import type {
  AccountFigures,
  AdmitOutcome,
  ApplyOutcome,
  ExtendOutcome,
  Fenced,
  RateFigures,
} from "#domain/accounts/admission-types.ts";
import type { AdmitRefusal } from "#domain/accounts/checks.ts";
import type { AccountTaking, LotShare } from "#domain/events/schemas.ts";

/** What the scripts answer: words, the first of which says what happened. The scripts' headers say the others. */
export type Reply = readonly string[];

function numberOf(text: string | undefined): number {
  const number = Number(text);
  if (text === undefined || text === "" || !Number.isSafeInteger(number))
    throw new RangeError(`the admission store answered "${text}" for a number`);
  return number;
}

export function fencedOf([, fenced]: Reply): Fenced {
  return { outcome: "fenced", fenced: fenced as Fenced["fenced"] };
}

export function admitOf(reply: Reply): AdmitOutcome {
  if (reply[0] === "fenced") return fencedOf(reply);
  if (reply[0] === "admitted") {
    const [, , atMs, takings = "", ...rate] = reply;
    const accounts = takingsOf(takings);
    return { outcome: "admitted", atMs: numberOf(atMs), accounts, ...rateOf(rate) };
  }
  const [, refusal, , funded, spent, held, budget, budgetSpent, budgetHeld, ...rate] = reply;
  return {
    outcome: "refused",
    refusal: refusal as AdmitRefusal,
    balance: figuresOf(funded, spent, held),
    ...budgetOf(budget, budgetSpent, budgetHeld),
    ...rateOf(rate),
  };
}

/** Whether the script came upon a provisional hold that is older than any append takes. */
export function meetsOld(reply: Reply): boolean {
  const old = { admitted: reply[1], figures: reply[1], refused: reply[2] }[reply[0] ?? ""];
  return old === "1";
}

export function extendOf(reply: Reply): ExtendOutcome {
  const [outcome, totalMicro, takings = ""] = reply;
  if (outcome === "fenced") return fencedOf(reply);
  if (outcome === "gone") return { outcome: "gone" };
  return { outcome: "raised", totalMicro: numberOf(totalMicro), accounts: takingsOf(takings) };
}

export function applyOf(reply: Reply): ApplyOutcome {
  const [outcome, position = ""] = reply;
  if (outcome === "fenced") return fencedOf(reply);
  return {
    outcome: outcome === "behind" ? "behind" : "applied",
    position: positionOf(position),
  };
}

const positionOf = (text: string): bigint | "start" => (text === "start" ? text : BigInt(text));

export function readFigures(reply: Reply) {
  if (reply[0] === "fenced") return fencedOf(reply);
  const [, , asOfMs, funded, spent, held, unspentLots, position = "", ...ofBudget] = reply;
  const [budget, budgetSpent, budgetHeld] = ofBudget;
  return {
    outcome: "figures" as const,
    balance: figuresOf(funded, spent, held),
    ...budgetOf(budget, budgetSpent, budgetHeld),
    unspentLots: numberOf(unspentLots),
    position: positionOf(position),
    asOfMs: numberOf(asOfMs),
  };
}

type Word = string | undefined;

function figuresOf(funded: Word, spent: Word, held: Word): AccountFigures {
  const [fundedMicro, spentMicro, heldMicro] = [numberOf(funded), numberOf(spent), numberOf(held)];
  return {
    fundedMicro,
    spentMicro,
    heldMicro,
    availableMicro: fundedMicro - spentMicro - heldMicro,
  };
}

function budgetOf(micro: Word, spent: Word, held: Word): { readonly budget?: AccountFigures } {
  if (micro === "") return {};
  const figures = figuresOf(micro, spent, held);
  return { budget: { ...figures, availableMicro: Math.max(0, figures.availableMicro) } };
}

function rateOf(words: Reply): { readonly rate?: RateFigures } {
  if (words.length === 0) return {};
  const [limit, remaining, freeInMs, resetMs] = words;
  return {
    rate: {
      limit: numberOf(limit),
      remaining: numberOf(remaining),
      freeInMs: numberOf(freeInMs),
      resetMs: numberOf(resetMs),
    },
  };
}

/** Takings as a hold keeps them: `account period micro shares`, each share `lot pot micro`, and `-` for an account without lots. */
export function takingsOf(text: string): AccountTaking[] {
  const words = text.split(" ").values();
  const next = () => words.next().value ?? "";
  const takings: AccountTaking[] = [];
  for (let account = next(); account !== ""; account = next()) {
    const taking = { account, period: next(), micro: numberOf(next()) };
    const shares = next();
    if (shares === "-") {
      takings.push(taking);
      continue;
    }
    const lots: LotShare[] = [];
    for (let left = numberOf(shares); left > 0; left -= 1)
      lots.push({ lotId: next(), pot: next() as LotShare["pot"], micro: numberOf(next()) });
    takings.push({ ...taking, lots });
  }
  return takings;
}
