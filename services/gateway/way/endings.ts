import type { Attempt, EventData } from "#domain/events/schemas.ts";
import type { ApiError } from "#services/errors.ts";
import type { Ended } from "./forward.ts";

/** Why an answer came to no proper end. */
export type Broken = Extract<Ended, { how: "stream_broke" | "failed" }>["why"];

/** What each of them is in the event's attempt, as the reason of a release, and to the caller. */
export const BROKEN = {
  overloaded: {
    outcome: "unreachable",
    reason: "overloaded",
    error: { code: "overloaded", retryAfterSeconds: 1 },
  },
  connect: { outcome: "unreachable", reason: "upstream_error", error: { code: "upstream_error" } },
  reset: { outcome: "reset", reason: "upstream_error", error: { code: "upstream_error" } },
  first_byte_timeout: {
    outcome: "timed_out",
    reason: "upstream_timeout",
    error: { code: "upstream_timeout" },
  },
  idle_timeout: {
    outcome: "timed_out",
    reason: "upstream_timeout",
    error: { code: "upstream_timeout" },
  },
  garbage: { outcome: "garbage", reason: "upstream_error", error: { code: "upstream_error" } },
  upstream_error: {
    outcome: "failed",
    reason: "upstream_error",
    error: { code: "upstream_error" },
  },
  // The client has left, so its error is for nobody.
  read_on_over: { outcome: "aborted", reason: "client_gone", error: { code: "upstream_error" } },
  truncated: { outcome: "reset", reason: "upstream_error", error: { code: "upstream_error" } },
  too_large: { outcome: "garbage", reason: "upstream_error", error: { code: "upstream_error" } },
  no_room: {
    outcome: "aborted",
    reason: "overloaded",
    error: { code: "overloaded", retryAfterSeconds: 1 },
  },
  journal_sealed: {
    outcome: "aborted",
    reason: "internal_error",
    error: { code: "ledger_unavailable" },
  },
  stopping: {
    outcome: "aborted",
    reason: "stopping",
    error: { code: "overloaded", retryAfterSeconds: 1 },
  },
} as const satisfies Record<
  Broken,
  {
    outcome: Attempt["outcome"];
    reason: EventData<"RequestReleased.v1">["reason"];
    error: ApiError;
  }
>;
