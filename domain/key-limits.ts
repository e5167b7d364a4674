import { z } from "zod";

/**
 * The limits that are a number of something, each with its bounds. An event keeps them together, under these names; the
 * API reads them by the same bounds.
 */
export const KEY_COUNTS = z.object({
  /** Requests per minute. Nobody makes as many as the most; below it the counters cannot overflow. */
  rpm: z.int().min(1).max(1_000_000).exactOptional(),
});

/** The members of KeyIssued that hold a key's limits. */
export const STORED_LIMITS = {
  limits: KEY_COUNTS,
  budget: z.object({ period: z.literal("total"), micro: z.int().min(0) }).exactOptional(),
  expiresAt: z.int().min(0).exactOptional(),
};
type StoredLimits = z.infer<z.ZodObject<typeof STORED_LIMITS>>;

/**
 * What a key is limited to: one value that travels whole from the API through the event, the accounts and the lists to
 * admission, whose checks are what reads it. A limit that is absent does not limit.
 */
export type KeyLimits = Readonly<z.infer<typeof KEY_COUNTS>> & {
  /** What may be spent with the key in its whole life. */
  readonly budgetMicro?: number;
  /** From this time on it does not work. Milliseconds since 1970. */
  readonly expiresAtMs?: number;
};

/** Limits as KeyIssued holds them. */
export function storedLimits({ budgetMicro, expiresAtMs, ...limits }: KeyLimits): StoredLimits {
  return {
    limits,
    ...(budgetMicro === undefined ? {} : { budget: { period: "total", micro: budgetMicro } }),
    ...(expiresAtMs === undefined ? {} : { expiresAt: expiresAtMs }),
  };
}

/** The limits that a KeyIssued holds, of any age. */
export function limitsOf({ limits, budget, expiresAt }: StoredLimits): KeyLimits {
  return {
    ...limits,
    ...(budget === undefined ? {} : { budgetMicro: budget.micro }),
    ...(expiresAt === undefined ? {} : { expiresAtMs: expiresAt }),
  };
}
