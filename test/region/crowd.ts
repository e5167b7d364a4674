import { diceOf } from "#test/simulation/random.ts";
import { startLoad, type Load, type Seen } from "#test/faults/clients.ts";
import { makeCustomer, topUp } from "#test/faults/processes.ts";
import { pause, type Part } from "./region.ts";

/** An organization with its key, and all that was ever put in for it. */
export interface Funded {
  readonly orgId: string;
  readonly key: string;
  fundedMicro: number;
}

export const RICH_MICRO = 1_000_000_000;
/** As much as a hundred requests use or two; then as little as can be put in, and no sooner than it is used up. */
export const SMALL_MICRO = 20_000;
const TOP_UP_MICRO = 10_000;
const TOP_UP_EVERY_MS = 2_000;

/** Makes an organization with a key for each amount. */
export async function makeCustomers(
  control: Part,
  fundedMicros: readonly number[],
): Promise<Funded[]> {
  const customers: Funded[] = [];
  for (const fundedMicro of fundedMicros)
    customers.push({ ...(await makeCustomer({ control: control.url }, fundedMicro)), fundedMicro });
  return customers;
}

/** Clients of several customers at several gateways, all at once. */
export interface Crowd {
  /** Everything that was answered so far. */
  seen(): Seen[];
  /** How often nobody answered a client that waited. */
  unanswered(): number;
  /** Lets what runs come to its end, and gives all that was answered. */
  stop(): Promise<Seen[]>;
}

/**
 * Starts clients of each customer at each gateway. A small customer gets a little more each time that it has been refused
 * for lack of it.
 */
export function startCrowd(parts: {
  readonly control: Part;
  readonly gateways: readonly Part[];
  readonly customers: readonly Funded[];
  readonly seed: number;
  /** Where the clients note the requests that they left, some of which do. */
  readonly left: Set<string>;
}): Crowd {
  const { control, gateways, customers, seed, left } = parts;
  let isOver = false;

  async function keepFunded(customer: Funded, loads: readonly Load[]): Promise<void> {
    const refusals = () => refusedIn(loads.flatMap((load) => load.seen));
    for (let seen = 0; !isOver; await pause(TOP_UP_EVERY_MS)) {
      if (refusals() === seen) continue;
      seen = refusals();
      await topUp({ control: control.url }, customer.orgId, TOP_UP_MICRO);
      customer.fundedMicro += TOP_UP_MICRO;
    }
  }

  const loads: Load[] = [];
  const funded: Promise<void>[] = [];
  for (const [at, customer] of customers.entries()) {
    const isRich = customer.fundedMicro === RICH_MICRO;
    const its = gateways.map(({ url }) => {
      const dice = diceOf(seed, `load ${at} ${url}`);
      return startLoad({ gateway: url, key: customer.key, left }, isRich ? 3 : 2, dice, true);
    });
    loads.push(...its);
    if (!isRich) funded.push(keepFunded(customer, its));
  }
  const seen = () => loads.flatMap((load) => load.seen);
  return {
    seen,
    unanswered: () => loads.reduce((sum, load) => sum + load.unanswered(), 0),
    async stop() {
      isOver = true;
      // Also where one of them fails: nothing is to go on behind the end of the test.
      await Promise.all(loads.map((load) => load.stop()));
      await Promise.all(funded);
      return seen();
    },
  };
}

/** How many were refused because there was too little credit. */
export function refusedIn(seen: readonly Seen[]): number {
  return seen.filter(({ status }) => status === 402).length;
}

/**
 * What was answered otherwise than it may be while a server is away: served; refused for lack of credit; or told that the
 * ledger is unavailable, and then when to come again, or, of what may have been charged, not to.
 */
export function undefinedAnswers(seen: readonly Seen[]): string[] {
  return seen.flatMap(({ status, code, headers, requestId, ended, left }) => {
    const isServed =
      status === 200 && (left || (ended && (code === undefined || code === "ledger_unavailable")));
    const isRefused = status === 402 && /^(insufficient_balance|balance_held)$/.test(code ?? "");
    const saysWhen = headers.has("retry-after") || headers.get("x-should-retry") === "false";
    const isUnavailable = status === 503 && code === "ledger_unavailable" && saysWhen;
    return isServed || isRefused || isUnavailable
      ? []
      : [`${requestId} was answered ${status} ${code}, to its end: ${ended}`];
  });
}

/** How a time of trouble looked to those who asked. */
export function troubleIn(seen: readonly Seen[], sinceMs: number) {
  const during = seen.filter(({ atMs }) => atMs >= sinceMs);
  const refused = during.filter(({ status }) => status === 503);
  const cut = during.filter(({ status, code }) => status === 200 && code !== undefined);
  const times = [...refused, ...cut].map(({ atMs }) => atMs);
  const secondsTo = (toMs: number) => Math.round((toMs - sinceMs) / 100) / 10;
  return {
    refused: refused.length,
    cut: cut.length,
    served: during.filter(({ complete }) => complete).length,
    /** From the trouble's begin to the last that was told of it. */
    lastRefusalAfterS: times.length === 0 ? 0 : secondsTo(Math.max(...times)),
  };
}
