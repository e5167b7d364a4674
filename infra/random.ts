import { randomFillSync } from "node:crypto";
import type { Random } from "#services/ports.ts";

const POOL_BYTES = 4_096;

/**
 * Randomness from the operating system, fit for secrets. Small draws come from a pool that is filled at once, for a
 * system call per draw is dear; what was drawn is copied out and wiped, so that nothing is given twice or left behind.
 */
export function systemRandom(): Random {
  const pool = new Uint8Array(POOL_BYTES);
  let used = POOL_BYTES;
  return {
    bytes(count) {
      if (count > POOL_BYTES / 4) return randomFillSync(new Uint8Array(count));
      if (used + count > POOL_BYTES) {
        randomFillSync(pool);
        used = 0;
      }
      const drawn = pool.slice(used, used + count);
      pool.fill(0, used, used + count);
      used += count;
      return drawn;
    },
  };
}
