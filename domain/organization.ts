import type { Decider, Decision } from "./decider.ts";
import type { EventData } from "./events/schemas.ts";
import { MICRO_MAX } from "./money.ts";

/** The least that is topped up at once: a cent. Stores of before hold smaller top-ups, which stay what they are. */
export const TOP_UP_MICRO_MIN = 10_000;
/**
 * How many top-ups of an organization may be unspent. A hold lists the lots that it is taken from, all of them at the
 * most, and what ends it lists them again: so no event of a request can be too large to be appended.
 */
export const UNSPENT_LOTS_MAX = 1_000;

/**
 * What may be done with an organization. Its stream is short: one creation and one event for each top-up; what its
 * requests spend stands in the journals.
 */
export type OrganizationCommand =
  | ({ readonly command: "create" } & EventData<"OrganizationCreated.v1">)
  | ({
      readonly command: "top_up";
      /** How many lots have money left that is not spent, at least as of the state that is decided on. */
      readonly unspentLots: number;
    } & EventData<"CreditToppedUp.v1">);

/** In the order in which they are looked at. */
export const ORGANIZATION_REFUSALS = [
  "organization_unknown",
  "idempotency_reused",
  "top_up_too_small",
  "funded_total_too_large",
  "too_many_unspent_lots",
] as const;
export type OrganizationRefusal = (typeof ORGANIZATION_REFUSALS)[number];

type OrganizationEventType = "OrganizationCreated.v1" | "CreditToppedUp.v1";

export type OrganizationFacts = EventData<"OrganizationCreated.v1"> & {
  readonly createdAtMs: number;
};
export type TopUpFacts = Omit<EventData<"CreditToppedUp.v1">, "orgId" | "source" | "pot"> & {
  readonly createdAtMs: number;
};

export interface OrganizationState {
  /** Undefined before it is created. */
  readonly created: OrganizationFacts | undefined;
  readonly topUps: Map<string, TopUpFacts>;
  /** The sum of all top-ups; a safe integer. */
  readonly fundedMicro: number;
}

type OrganizationDecision = Decision<OrganizationEventType, OrganizationRefusal>;

/** A repeat of the same creation changes nothing; the same id with another body is a mistake of the caller's. */
function create(
  command: OrganizationCommand & { command: "create" },
  { created }: OrganizationState,
): OrganizationDecision {
  const { command: _, ...data } = command;
  if (created) return created.bodySha256 === data.bodySha256 ? [] : "idempotency_reused";
  return [{ type: "OrganizationCreated.v1", data, key: "created" }];
}

function topUp(
  command: OrganizationCommand & { command: "top_up" },
  { created, topUps, fundedMicro }: OrganizationState,
): OrganizationDecision {
  const { command: _, unspentLots, ...data } = command;
  if (!created) return "organization_unknown";
  const known = topUps.get(data.topUpId);
  if (known) return known.bodySha256 === data.bodySha256 ? [] : "idempotency_reused";
  if (data.amountMicro < TOP_UP_MICRO_MIN) return "top_up_too_small";
  if (data.amountMicro > MICRO_MAX - fundedMicro) return "funded_total_too_large";
  if (unspentLots >= UNSPENT_LOTS_MAX) return "too_many_unspent_lots";
  return [{ type: "CreditToppedUp.v1", data, key: `topped-up:${data.topUpId}` }];
}

/** The decider of the stream `org-<orgId>`. */
export const organization: Decider<
  OrganizationCommand,
  OrganizationState,
  OrganizationEventType,
  OrganizationRefusal
> = {
  initial: () => ({ created: undefined, topUps: new Map(), fundedMicro: 0 }),
  decide: (command, state) =>
    command.command === "create" ? create(command, state) : topUp(command, state),
  evolve(state, { type, data, recordedAt: createdAtMs }) {
    switch (type) {
      case "OrganizationCreated.v1":
        return { ...state, created: { ...data, createdAtMs } };
      case "CreditToppedUp.v1": {
        const { topUpId, amountMicro, bodySha256 } = data;
        state.topUps.set(topUpId, { topUpId, amountMicro, bodySha256, createdAtMs });
        return { ...state, fundedMicro: state.fundedMicro + amountMicro };
      }
    }
  },
};
