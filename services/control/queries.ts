import { streams } from "#domain/events/events.ts";
import { organization } from "#domain/organization.ts";
import { PROJECTIONS, type ProjectionName, type RowsOf } from "#projections/all.ts";
import { keyRows, organizationRows } from "#projections/management.ts";
import type { ApiError } from "#services/errors.ts";
import { figuresOnceIn } from "#services/figures.ts";
import type {
  AdmissionStore,
  Clock,
  EventStore,
  Projector,
  RebuildProgress,
} from "#services/ports.ts";
import { TIMED_OUT, within } from "#services/waiting.ts";
import { StoreUnavailable } from "#services/writers.ts";
import { invalid, type Read } from "./bodies.ts";
import { load } from "./command-handler.ts";
import {
  balanceView,
  keyView,
  listView,
  organizationView,
  type BalanceView,
  type KeyView,
  type ListView,
  type OrganizationView,
  type Page,
} from "./views.ts";

export interface QueryParts {
  readonly store: EventStore;
  readonly clock: Clock;
  readonly admission: Pick<AdmissionStore, "figures" | "want">;
  readonly projector: Projector;
}

const ROWS_MS_MAX = 5000;

/** `replayed`: a command had been carried out before, and nothing was recorded now. */
export type Outcome<T> =
  | { readonly ok: true; readonly value: T; readonly replayed: boolean }
  | { readonly ok: false; readonly error: ApiError };

/** Runs a command or a read; a store that cannot be used is an expected outcome too. `note` ends its sentence. */
export async function orUnavailable<T>(
  note: string,
  work: () => Promise<T>,
): Promise<T | { readonly ok: false; readonly error: ApiError }> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof StoreUnavailable)) throw error;
    const message = `${error.message}${note}`;
    return { ok: false, error: { code: "ledger_unavailable", message, retryAfterSeconds: 1 } };
  }
}

/** What can be read: single things from their streams, balances from admission, lists from a read model. */
export function createQueries(parts: QueryParts) {
  const { store, clock, admission, projector } = parts;
  let replaying = false;

  async function find(orgId: string): Promise<Outcome<OrganizationView>> {
    const { state } = await load(parts, organization, streams.org(orgId));
    if (!state.created) {
      return {
        ok: false,
        error: { code: "not_found", message: "There is no such organization" },
      };
    }
    return found(organizationView(state.created));
  }

  async function balance(orgId: string): Promise<Outcome<BalanceView>> {
    let figures = await admission.figures({ orgId }).catch(() => undefined);
    if (figures?.outcome !== "figures") {
      const known = await find(orgId);
      if (!known.ok) return known;
      figures = await figuresOnceIn(parts, { orgId }).catch(() => undefined);
    }
    if (figures?.outcome === "figures")
      return found(balanceView(orgId, figures.balance, figures.asOfMs));
    const message =
      figures?.fenced === "fault"
        ? "This organization's accounts are closed until a person has looked at them"
        : "The balance is not known right now";
    return { ok: false, error: { code: "ledger_unavailable", message, retryAfterSeconds: 1 } };
  }

  /** The rows of a read model, with everything in them that was recorded before the call. */
  async function rowsOf<Name extends ProjectionName>(name: Name): Promise<RowsOf<Name>> {
    try {
      const read = store.head().then((head) => projector.rows(name, head));
      const answer = await within(clock, ROWS_MS_MAX, read);
      if (answer !== TIMED_OUT) return answer.rows;
    } catch (error) {
      throw new StoreUnavailable("the lists cannot be read", { cause: error });
    }
    throw new StoreUnavailable("the lists are still being brought up to date");
  }

  async function listOrganizations(page: Page): Promise<Outcome<ListView<OrganizationView>>> {
    return cut(organizationRows(await rowsOf("management")).map(organizationView), page);
  }

  /** `tokenSha256` finds the key whose text has that digest, without the text ever being sent. */
  async function listKeys(
    page: Page,
    filter: { readonly orgId?: string; readonly tokenSha256?: string } = {},
  ): Promise<Outcome<ListView<KeyView>>> {
    const rows = keyRows(await rowsOf("management")).filter(
      (row) =>
        (filter.orgId === undefined || row.orgId === filter.orgId) &&
        (filter.tokenSha256 === undefined || row.tokenHash === filter.tokenSha256),
    );
    return cut(rows.map(keyView), page);
  }

  /** The keys of one organization, which must exist. */
  async function listKeysOf(
    orgId: string,
    page: Page,
    tokenSha256?: string,
  ): Promise<Outcome<ListView<KeyView>>> {
    const known = await find(orgId);
    if (!known.ok) return known;
    return listKeys(page, { orgId, ...(tokenSha256 === undefined ? {} : { tokenSha256 }) });
  }

  /** Claims the replay of one read model, or of all: one replay runs at a time. The claim ends with `run`. */
  function openReplay(projection: string | undefined): Read<Replay> {
    const all = PROJECTIONS.map(({ name }) => name);
    const names = all.filter((name) => projection === undefined || name === projection);
    if (names.length === 0) {
      return invalid(`'projection' must be one of ${all.join(", ")}`, "projection");
    }
    if (replaying) {
      const message = "Another replay is running; one at a time";
      return { ok: false, error: { code: "overloaded", message, retryAfterSeconds: 5 } };
    }
    replaying = true;
    return { ok: true, value: { run: (onProgress) => runReplay(names, onProgress) } };
  }

  async function runReplay(
    names: readonly ProjectionName[],
    onProgress: (progress: RebuildProgress) => void,
  ): Promise<RebuildProgress[]> {
    const done: RebuildProgress[] = [];
    try {
      for (const name of names) done.push(await projector.rebuild(name, onProgress));
      return done;
    } finally {
      replaying = false;
    }
  }

  const guarded = <T>(work: () => Promise<T>) => orUnavailable("", work);
  return {
    getOrganization: (orgId: string) => guarded(() => find(orgId)),
    balance: (orgId: string) => guarded(() => balance(orgId)),
    listOrganizations: (page: Page) => guarded(() => listOrganizations(page)),
    listKeys: (...given: Parameters<typeof listKeys>) => guarded(() => listKeys(...given)),
    listKeysOf: (...given: Parameters<typeof listKeysOf>) => guarded(() => listKeysOf(...given)),
    openReplay,
  };
}

/** A replay that may begin. */
export interface Replay {
  /** Rebuilds one read model after the other; throws when one fails, and those before it stay rebuilt. */
  run(onProgress: (progress: RebuildProgress) => void): Promise<RebuildProgress[]>;
}

/** Cuts a page out of items that stand in the order in which they were made. */
function cut<T extends { readonly id: string }>(
  items: readonly T[],
  { limit, after, order }: Page,
): Outcome<ListView<T>> {
  const ordered = order === "asc" ? items : items.toReversed();
  const start = after === undefined ? 0 : ordered.findIndex((item) => item.id === after) + 1;
  if (after !== undefined && start === 0)
    return invalid("'after' is not an id of this list", "after");
  return found(listView(ordered.slice(start, start + limit), start + limit < ordered.length));
}

function found<T>(value: T): Outcome<T> {
  return { ok: true, value, replayed: false };
}
