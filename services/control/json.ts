/**
 * Reads JSON of the control API without ever turning a number into a float: every number stays the text that was
 * sent, so that 0.1 dollars are exactly 100,000 micro.
 */

/** A number as it stood in the JSON text: `25`, `1.50`, `1e3`. */
export class NumberText {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

type Reviver = (key: string, value: unknown, context: { readonly source?: string }) => unknown;
// JavaScript gives a reviver the source text of a number; the library types do not say so yet.
const parse = JSON.parse as (text: string, reviver: Reviver) => unknown;

/** Parses UTF-8 JSON; numbers become {@link NumberText}. Undefined for anything else, also for JSON nested too deep. */
export function parseJson(bytes: Uint8Array): { readonly value: unknown } | undefined {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    const value = parse(text, (_key, read, { source }) =>
      typeof read === "number" ? new NumberText(source ?? "") : read,
    );
    return { value };
  } catch {
    // The parser's own message quotes the text, which could hold a credential in the wrong place.
    return undefined;
  }
}
