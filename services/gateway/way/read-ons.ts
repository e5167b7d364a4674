/** At most so many at a time in the whole process, and so many of one organization. */
const READ_ONS_MAX = 1_024;
const READ_ONS_PER_ORGANIZATION_MAX = 64;

/**
 * Places for answers that are read on although their client has left: each keeps an upstream connection and, when it is
 * not streamed, its body. Without a bound a caller that asks and leaves could fill both.
 */
export function createReadOns(most = READ_ONS_MAX, mostOfOne = READ_ONS_PER_ORGANIZATION_MAX) {
  /** Only organizations that have a place are in it. */
  const counts = new Map<string, number>();
  let total = 0;
  return {
    /** Takes a place for an organization; undefined when it has as many as it may, or the process has. Call what it gives once. */
    begin(orgId: string): (() => void) | undefined {
      const count = counts.get(orgId) ?? 0;
      if (total >= most || count >= mostOfOne) return undefined;
      counts.set(orgId, count + 1);
      total += 1;
      return () => {
        total -= 1;
        const left = (counts.get(orgId) ?? 1) - 1;
        if (left === 0) counts.delete(orgId);
        else counts.set(orgId, left);
      };
    },
  };
}
