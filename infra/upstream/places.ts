/**
 * Who has one of a host's connections, and who waits for one: shared out so that no organization takes them all.
 *
 * At most `runningMax` are started at a time, by `start`, and at most `waitingMax` wait. Of both an organization may
 * have any number while less than half are taken, and then up to a quarter: whatever one of them does, half are there
 * for others. Those that wait take turns by organization, and within one they go in the order in which they came.
 */
export function createPlaces<T extends { readonly orgId: string }>(options: {
  readonly runningMax: number;
  readonly waitingMax: number;
  readonly start: (one: T) => void;
}) {
  const { runningMax, waitingMax, start } = options;
  let running = 0;
  let waiting = 0;
  /** An organization that has none is in neither. */
  const runningOf = new Map<string, number>();
  /** In the order of their turns. */
  const waitingOf = new Map<string, Set<T>>();

  const mayRun = (orgId: string) => isWithinShare(running, runningMax, runningOf.get(orgId) ?? 0);

  function occupy(one: T): void {
    running += 1;
    runningOf.set(one.orgId, (runningOf.get(one.orgId) ?? 0) + 1);
    start(one);
  }

  /** One that may wait here does so no longer; another is not concerned. */
  function leave(one: T): void {
    const own = waitingOf.get(one.orgId);
    if (!own?.delete(one)) return;
    waiting -= 1;
    if (own.size === 0) waitingOf.delete(one.orgId);
  }

  /** At most four organizations are at their share, so the first that may run is near. */
  function next(): T | undefined {
    for (const [orgId, own] of waitingOf) {
      if (!mayRun(orgId)) continue;
      for (const oldest of own) return oldest;
    }
    return undefined;
  }

  return {
    /** Starts it or lets it wait; false when it may do neither, and then it is not known here. */
    take(one: T): boolean {
      if (mayRun(one.orgId)) {
        occupy(one);
        return true;
      }
      const own = waitingOf.get(one.orgId);
      if (!isWithinShare(waiting, waitingMax, own?.size ?? 0)) return false;
      waiting += 1;
      if (own) own.add(one);
      else waitingOf.set(one.orgId, new Set([one]));
      return true;
    },
    leave,
    /** One that was started is through: who may have its place now is started. */
    release(one: T): void {
      running -= 1;
      const left = (runningOf.get(one.orgId) ?? 0) - 1;
      if (left > 0) runningOf.set(one.orgId, left);
      else runningOf.delete(one.orgId);
      // One that ends can let in two: one of any organization, and one of its own that is below its share again.
      for (let oldest = next(); oldest; oldest = next()) {
        const own = waitingOf.get(oldest.orgId);
        leave(oldest);
        // Its organization has had its turn, and comes after those that wait now.
        if (own && waitingOf.delete(oldest.orgId)) waitingOf.set(oldest.orgId, own);
        occupy(oldest);
      }
    },
    /** All that wait, which do so no longer. */
    clear(): T[] {
      const all = [...waitingOf.values()].flatMap((own) => [...own]);
      for (const one of all) leave(one);
      return all;
    },
  };
}

/** Whether an organization that has `own` of the `taken` places may have one more. */
function isWithinShare(taken: number, max: number, own: number): boolean {
  return taken < max && (taken < max / 2 || own < Math.max(1, Math.floor(max / 4)));
}
