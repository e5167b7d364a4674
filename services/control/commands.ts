import { streams } from "#domain/events/events.ts";
import { sha256Hex } from "#domain/hash.ts";
import { ID_RANDOM_BYTES, idFromCause, makeId, type IdPrefix } from "#domain/ids.ts";
import { limitsOf } from "#domain/key-limits.ts";
import { displayKey, makeKeyText } from "#domain/key-text.ts";
import { key, type KeyRefusal, type KeyState } from "#domain/key.ts";
import {
  organization,
  UNSPENT_LOTS_MAX,
  type OrganizationCommand,
  type OrganizationRefusal,
  type OrganizationState,
} from "#domain/organization.ts";
import type { ApiError } from "#services/errors.ts";
import type { Random } from "#services/ports.ts";
import { StoreUnavailable } from "#services/writers.ts";
import { bodySha256Of, invalid, type KeyBody } from "./bodies.ts";
import {
  handleCommand,
  load,
  type CommandParts,
  type Handled,
  type Loaded,
} from "./command-handler.ts";
import { createQueries, orUnavailable, type Outcome, type QueryParts } from "./queries.ts";
import {
  creditView,
  keyView,
  organizationView,
  type CreditView,
  type KeyView,
  type OrganizationView,
} from "./views.ts";

export interface ControlParts extends CommandParts, QueryParts {
  readonly random: Random;
  readonly region: string;
  /**
   * Waits until everything of an organization up to a position can be seen in admission, and the key with this hash, where
   * one is named, is found; false when `limitMs` passed first.
   */
  readonly applied: (
    orgId: string,
    position: bigint,
    limitMs: number,
    tokenHash?: string,
  ) => Promise<boolean>;
}

/** Who asks, in so far as it matters to a command. */
export interface CommandContext {
  /** At most 255 characters. With one, a repeat creates nothing new; without, every call does. */
  readonly idempotencyKey?: string;
  /** The id of this call; made here when there is none yet. */
  readonly requestId?: string;
}

/** A key as its issuance answers: `key` is the text itself, shown this once; null in a repeat. */
export type IssuedKeyView = KeyView & { readonly key: string | null };

/** `isThisText`: the key that is recorded has the text that this call came with or made. */
export type IssueOutcome =
  | (Outcome<IssuedKeyView> & { readonly ok: true; readonly isThisText: boolean })
  | (Outcome<IssuedKeyView> & { readonly ok: false });

const SEEN_MS_MAX = 5000;
const UNCERTAIN =
  "; whether the change was recorded is not certain, and with an Idempotency-Key it can be repeated safely";

const REFUSALS: Record<OrganizationRefusal | KeyRefusal, ApiError> = {
  organization_unknown: { code: "not_found", message: "There is no such organization" },
  key_unknown: { code: "not_found", message: "There is no such key" },
  idempotency_reused: { code: "idempotency_error" },
  funded_total_too_large: invalid(
    "With this amount the organization's top-ups would add up to more than 9007199254.740991 dollars, the most that an account can carry",
    "amount_dollars",
  ).error,
  top_up_too_small: invalid(
    "A top-up is at least 0.01 dollars, which is 10000 micro-dollars; add more at once",
    "amount_dollars",
  ).error,
  too_many_unspent_lots: invalid(
    `This organization has ${UNSPENT_LOTS_MAX} top-ups with money left in them, and there can be no more; add fewer and larger ones, once some of these are spent`,
    null,
  ).error,
  expiry_not_in_future: invalid("'expires_at' must be in the future", "expires_at").error,
};

export type Control = ReturnType<typeof createControl>;

/**
 * Management: the commands of organizations and keys, and what can be read of them. A command answers after its effect
 * can be seen: a created key works, a revoked one does not. Expected refusals are values.
 */
export function createControl(parts: ControlParts) {
  const { clock, random, region } = parts;

  function newId(prefix: IdPrefix): string {
    return makeId(prefix, clock.now(), random.bytes(ID_RANDOM_BYTES));
  }

  /** The id of what a command creates. `scope` is the organization, or the region for organizations themselves. */
  function createdId(prefix: IdPrefix, scope: string, kind: string, context: CommandContext) {
    return context.idempotencyKey === undefined
      ? newId(prefix)
      : idFromCause(prefix, sha256Hex(JSON.stringify([scope, kind, context.idempotencyKey])));
  }

  /** Answers once the change can be seen; else with an error that says that it is recorded all the same, and `hint`. */
  async function seen<State, T>(
    handled: Handled<State, OrganizationRefusal | KeyRefusal>,
    whatOf: (state: State) => { readonly orgId: string; readonly tokenHash?: string },
    hint: (fresh: boolean) => string,
    view: (state: State, fresh: boolean) => T,
  ): Promise<Outcome<T>> {
    if (!handled.ok) return failed(REFUSALS[handled.refusal]);
    const { position, state, fresh } = handled;
    const { orgId, tokenHash } = whatOf(state);
    const isSeen =
      position === "start" || (await parts.applied(orgId, position, SEEN_MS_MAX, tokenHash));
    if (isSeen) return { ok: true, value: view(state, fresh), replayed: !fresh };
    return failed({
      code: "ledger_unavailable",
      message: `The change is recorded and will show, but could not be seen within ${SEEN_MS_MAX / 1000} s. ${hint(fresh)}`,
      extra: { recorded: true },
      doNotRetry: true,
    });
  }

  const guarded =
    <Given extends unknown[], T>(work: (...given: Given) => Promise<T>) =>
    (...given: Given) =>
      orUnavailable(UNCERTAIN, () => work(...given));

  async function createOrganization(
    body: { readonly name: string },
    context: CommandContext = {},
  ): Promise<Outcome<OrganizationView>> {
    const orgId = createdId("org", region, "create_organization", context);
    const { name } = body;
    const bodySha256 = bodySha256Of("create_organization", { name });
    const handled = await handleCommand(
      parts,
      organization,
      streams.org(orgId),
      { command: "create", orgId, name, homeRegion: region, bodySha256 },
      context.requestId ?? newId("req"),
    );
    return seen(
      handled,
      () => ({ orgId }),
      () => `Its id is ${orgId}.`,
      ({ created }) => organizationView(recorded(created)),
    );
  }

  /**
   * How many of an organization's top-ups have money left, seen from the state of its stream: never too few, so that a
   * top-up that is appended behind that very state cannot be one too many. Admission knows, once it has come as far.
   */
  async function unspentLots(
    orgId: string,
    { state, position }: Loaded<OrganizationState>,
  ): Promise<number> {
    if (state.topUps.size < UNSPENT_LOTS_MAX) return state.topUps.size;
    const hasCome = position === "start" || (await parts.applied(orgId, position, SEEN_MS_MAX));
    const asked = hasCome ? parts.admission.figures({ orgId }).catch(() => undefined) : undefined;
    const figures = await asked;
    if (figures?.outcome === "figures") return figures.unspentLots;
    throw new StoreUnavailable(
      "what is left of this organization's top-ups is not known right now",
    );
  }

  async function addCredit(
    orgId: string,
    body: { readonly amountMicro: number },
    context: CommandContext = {},
  ): Promise<Outcome<CreditView>> {
    const topUpId = createdId("lot", orgId, "top_up", context);
    const { amountMicro } = body;
    const bodySha256 = bodySha256Of("top_up", { amountMicro });
    const handled = await handleCommand(
      parts,
      organization,
      streams.org(orgId),
      async (loaded): Promise<OrganizationCommand> => ({
        command: "top_up",
        orgId,
        topUpId,
        amountMicro,
        source: "manual",
        pot: "paid",
        bodySha256,
        unspentLots: await unspentLots(orgId, loaded),
      }),
      context.requestId ?? newId("req"),
    );
    return seen(
      handled,
      () => ({ orgId }),
      () => `Its id is ${topUpId}; do not add it again.`,
      ({ topUps }) => creditView(orgId, recorded(topUps.get(topUpId))),
    );
  }

  /** `keyText` is for a caller that must keep the text before it can be used; else it is made here. */
  async function issueKey(
    orgId: string,
    body: KeyBody,
    context: CommandContext & { readonly keyText?: string } = {},
  ): Promise<IssueOutcome> {
    const { state: org } = await load(parts, organization, streams.org(orgId));
    if (!org.created) return failed(REFUSALS.organization_unknown);
    const keyId = createdId("key", orgId, "issue_key", context);
    const text = context.keyText ?? makeKeyText(region, (count) => random.bytes(count));
    const tokenHash = sha256Hex(text);
    const { name = "", ...limits } = body;
    const handled = await handleCommand(
      parts,
      key,
      streams.key(keyId),
      {
        command: "issue",
        atMs: clock.now(),
        keyId,
        orgId,
        homeRegion: region,
        name,
        limits,
        tokenHash,
        displayPrefix: displayKey(text),
        bodySha256: bodySha256Of("issue_key", { name, ...limits }),
      },
      context.requestId ?? newId("req"),
    );
    const hint = (fresh: boolean) =>
      fresh
        ? `The key ${keyId} was issued, but its secret is not shown with an error: revoke it and issue another.`
        : `Its id is ${keyId}.`;
    const outcome = await seen(handled, keyOf, hint, (state, fresh) => ({
      ...viewOf(state),
      key: fresh ? text : null,
    }));
    const isThisText = handled.ok && handled.state.issued?.tokenHash === tokenHash;
    return outcome.ok ? { ...outcome, isThisText } : outcome;
  }

  async function revokeKey(keyId: string, context: CommandContext = {}): Promise<Outcome<KeyView>> {
    const commandId = context.requestId ?? newId("req");
    const stream = streams.key(keyId);
    const handled = await handleCommand(parts, key, stream, { command: "revoke" }, commandId);
    // Admission refuses it, whatever the directory still says.
    const whose = (state: KeyState) => ({ orgId: keyOf(state).orgId });
    const outcome = await seen(handled, whose, () => `The key ${keyId} is revoked.`, viewOf);
    // To revoke needs no Idempotency-Key, so its repeat is no replay of an answer.
    return outcome.ok ? { ...outcome, replayed: false } : outcome;
  }

  return {
    createOrganization: guarded(createOrganization),
    addCredit: guarded(addCredit),
    issueKey: guarded(issueKey),
    revokeKey: guarded(revokeKey),
    ...createQueries(parts),
  };
}

/** A key that is recorded, as the API shows it. */
function viewOf({ issued, revokedAtMs }: KeyState): KeyView {
  const facts = recorded(issued);
  return keyView({ ...facts, limits: limitsOf(facts), revokedAtMs: revokedAtMs ?? null });
}

const keyOf = ({ issued }: KeyState) => recorded(issued);

function recorded<T>(facts: T | undefined): T {
  if (facts === undefined) throw new Error("what was recorded is not there");
  return facts;
}

function failed(error: ApiError) {
  return { ok: false as const, error };
}
