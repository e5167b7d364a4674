/**
 * Members below the top level of a body. relai reads those from the parsed body, where of two members with one name only
 * the last is left; an upstream may take the first, or one whose name differs in upper and lower case.
 */

export type Members = Readonly<Record<string, unknown>>;

export function isMembers(value: unknown): value is Members {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * How many members the objects in a parsed value have, at every depth. The scan counts them in the bytes: where it
 * found more, one was given twice.
 */
export function memberCount(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  let count = 0;
  if (Array.isArray(value)) {
    for (const item of value) count += memberCount(item);
    return count;
  }
  const members = value as Members;
  for (const key in members) count += 1 + memberCount(members[key]);
  return count;
}

const PLAIN = /^[a-z0-9_]*$/;

/** The one of `names`, plain all, that a key differs from in upper and lower case only, by the rule of the scan's `lookalikeOf`. */
export function otherCaseOf(key: string, names: readonly string[]): string | undefined {
  if (PLAIN.test(key)) return undefined;
  const folded = key.toUpperCase().toLowerCase();
  return names.includes(folded) ? folded : undefined;
}

/** What is said to a caller whose member differs from one that is read in letter case only. */
export function inOtherCase(name: string): string {
  return `A member differs from '${name}' only in upper and lower case; write it as '${name}'.`;
}

/** What is said to a caller who gave a member twice, somewhere below this one. */
export function twiceWithin(name: string): string {
  return `An object within '${name}' has a member more than once.`;
}
