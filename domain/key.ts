import type { Decider, Decision } from "./decider.ts";
import type { EventData } from "./events/schemas.ts";
import { storedLimits, type KeyLimits, type STORED_LIMITS } from "./key-limits.ts";

/** What may be done with a key. Its text is never here: only the SHA-256 of it, and the form that may be shown. */
export type KeyCommand =
  | ({
      readonly command: "issue";
      /** When the command is decided; an expiry must be later. */
      readonly atMs: number;
      readonly limits: KeyLimits;
    } & Omit<EventData<"KeyIssued.v1">, "scope" | keyof typeof STORED_LIMITS>)
  | { readonly command: "revoke" };

/** In the order in which they are looked at. */
export const KEY_REFUSALS = ["key_unknown", "idempotency_reused", "expiry_not_in_future"] as const;
export type KeyRefusal = (typeof KEY_REFUSALS)[number];

type KeyEventType = "KeyIssued.v1" | "KeyRevoked.v1";

export interface KeyState {
  /** Undefined before it is issued. */
  readonly issued: (EventData<"KeyIssued.v1"> & { readonly issuedAtMs: number }) | undefined;
  readonly revokedAtMs: number | undefined;
}

/** A repeat is answered from what is recorded, also after the key has expired or was revoked. */
function issue(
  command: KeyCommand & { command: "issue" },
  { issued }: KeyState,
): Decision<KeyEventType, KeyRefusal> {
  const { command: _, atMs, limits, ...facts } = command;
  if (issued) return issued.bodySha256 === facts.bodySha256 ? [] : "idempotency_reused";
  if ((limits.expiresAtMs ?? Infinity) <= atMs) return "expiry_not_in_future";
  const data = { ...facts, scope: "regional" as const, ...storedLimits(limits) };
  return [{ type: "KeyIssued.v1", data, key: "issued" }];
}

/** To revoke a revoked key again changes nothing. */
function revoke({ issued, revokedAtMs }: KeyState): Decision<KeyEventType, KeyRefusal> {
  if (!issued) return "key_unknown";
  if (revokedAtMs !== undefined) return [];
  const { keyId, orgId, tokenHash } = issued;
  return [{ type: "KeyRevoked.v1", data: { keyId, orgId, tokenHash }, key: "revoked" }];
}

/** The decider of the stream `key-<keyId>`. */
export const key: Decider<KeyCommand, KeyState, KeyEventType, KeyRefusal> = {
  initial: () => ({ issued: undefined, revokedAtMs: undefined }),
  decide: (command, state) => (command.command === "issue" ? issue(command, state) : revoke(state)),
  evolve(state, event) {
    switch (event.type) {
      case "KeyIssued.v1":
        return { ...state, issued: { ...event.data, issuedAtMs: event.recordedAt } };
      case "KeyRevoked.v1":
        return { ...state, revokedAtMs: event.recordedAt };
    }
  },
};
