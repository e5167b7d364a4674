/** The most characters (UTF-16 units) that a name may have. */
export const NAME_LENGTH_MAX = 256;

// Control characters, lone surrogates, and the two separators that end a line in many programs.
const FORBIDDEN = /[\p{Cc}\p{Cs}\u2028\u2029]/u;

/**
 * A name that a person chose, as it is stored: without the white space around it. Undefined when nothing is left, when
 * it is longer than {@link NAME_LENGTH_MAX}, or when it holds a character that would break a line of a list or a log.
 */
export function normaliseName(text: string): string | undefined {
  const name = text.trim();
  return name.length === 0 || name.length > NAME_LENGTH_MAX || FORBIDDEN.test(name)
    ? undefined
    : name;
}
