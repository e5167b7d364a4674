import type { Attempt, EventData } from "#domain/events/schemas.ts";
import type { ApiError } from "#services/errors.ts";
import type { Ended } from "./forward.ts";

/** Why an answer came to no proper end. */
export type Broken = Extract<Ended, { how: "stream_broke" | "failed" }>["why"];

/** What each of them is in the event's attempt, as the reason of a release, and to the caller. */
interface Ending {
  readonly outcome: Attempt["outcome"];
  readonly reason: EventData<"RequestReleased.v1">["reason"];
  readonly error: ApiError;
}

const UPSTREAM_ERROR = { reason: "upstream_error", error: { code: "upstream_error" } } as const;
const TIME_OUT: Ending = {
  outcome: "timed_out",
  reason: "upstream_timeout",
  error: { code: "upstream_timeout" },
};
const OVERLOADED = { code: "overloaded", retryAfterSeconds: 1 } as const;

export const BROKEN: Readonly<Record<Broken, Ending>> = {
  overloaded: { outcome: "unreachable", reason: "overloaded", error: OVERLOADED },
  connect: { outcome: "unreachable", ...UPSTREAM_ERROR },
  reset: { outcome: "reset", ...UPSTREAM_ERROR },
  first_byte_timeout: TIME_OUT,
  idle_timeout: TIME_OUT,
  garbage: { outcome: "garbage", ...UPSTREAM_ERROR },
  upstream_error: { outcome: "failed", ...UPSTREAM_ERROR },
  // The client has left, so its error is for nobody.
  read_on_over: { outcome: "aborted", reason: "client_gone", error: UPSTREAM_ERROR.error },
  truncated: { outcome: "reset", ...UPSTREAM_ERROR },
  too_large: { outcome: "garbage", ...UPSTREAM_ERROR },
  no_room: { outcome: "aborted", reason: "overloaded", error: OVERLOADED },
  journal_sealed: {
    outcome: "aborted",
    reason: "internal_error",
    error: { code: "ledger_unavailable" },
  },
  stopping: { outcome: "aborted", reason: "stopping", error: OVERLOADED },
};
