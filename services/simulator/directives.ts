import { Refused } from "./refused.ts";
import type { Counts } from "./usage.ts";

/**
 * What a test or a person asks of the simulated upstream, written into the last user message:
 * `[sim output=500 cached=600 delay=20]`. At most one bracket, words in any order, each word once.
 */
export interface Directives {
  /**
   * Usage as the answer tells it. Totals include their parts, as OpenAI counts: `input` includes `cached`,
   * `cache-write`, `audio-in` and `image-in`; `output` includes `reasoning` and `audio-out`. Nothing keeps a part
   * below its total or `output` below the caller's cap: wrong figures are worth testing too.
   */
  readonly counts: Partial<Counts>;
  /** The answer tells no usage, even if it is asked to. */
  readonly noUsage?: true;

  // What is said.
  /** Exactly this many chunks with text per choice of a stream; the text grows to fill them (JSON leaves some empty). */
  readonly chunks?: number;
  /** This many tool calls in place of a text. */
  readonly tool?: number;
  /** The model that the answer says was served. */
  readonly model?: string;
  /** The service tier that the answer says was served. */
  readonly tier?: string;

  // When.
  /** Nothing is answered before this name is released. */
  readonly hold?: string;
  /** Milliseconds before the first byte of the answer, its head included. */
  readonly first?: number;
  /** Milliseconds between the events of a stream. */
  readonly delay?: number;

  // What goes wrong: at most one.
  readonly failure?: Failure;
}

/**
 * How an answer fails. `after` counts the events of a stream, the role chunk being the first; 0 leaves only the head.
 * An answer that is no stream is cut in the middle of its body (at its start for 0).
 */
export type Failure =
  /** An error with this status in place of an answer. */
  | { readonly how: "status"; readonly status: number; readonly retryAfterSeconds?: number }
  /** The connection is reset before any byte of the answer. */
  | { readonly how: "hang-up" }
  /** The connection is closed in the middle of the answer. */
  | { readonly how: "reset"; readonly after: number }
  /** The body ends as if complete, without finish chunk, usage and `[DONE]`. */
  | { readonly how: "end"; readonly after: number }
  /** Nothing more comes, the connection stays open. */
  | { readonly how: "stall"; readonly after: number }
  /** An error event inside the stream, then the body ends. */
  | { readonly how: "error"; readonly after: number }
  /** Status 200 with JSON that is cut in half: the body, or every event of the stream. */
  | { readonly how: "garbage" }
  /** Everything but the stream's `[DONE]`. */
  | { readonly how: "no-done" };

// Largest values that are taken. They keep a misspelt figure from turning into a request that never ends.
const TOKENS_MAX = 1_000_000_000;
const CHUNKS_MAX = 1_000_000;
const TOOLS_MAX = 128;
const WAIT_MS_MAX = 600_000;
const RETRY_AFTER_SECONDS_MAX = 86_400;
const BRACKET_CHARACTERS_MAX = 1_000;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}$/;

const COUNTS = {
  input: "input",
  cached: "cached",
  "cache-write": "cacheWrite",
  "audio-in": "audioIn",
  "image-in": "imageIn",
  output: "output",
  reasoning: "reasoning",
  "audio-out": "audioOut",
} as const;
const NUMBERS = {
  chunks: CHUNKS_MAX,
  tool: TOOLS_MAX,
  first: WAIT_MS_MAX,
  delay: WAIT_MS_MAX,
} as const;
const CUTS = {
  "reset-after": "reset",
  "end-after": "end",
  "stall-after": "stall",
  "error-after": "error",
} as const;

const BRACKET = /\[sim(?=[\]\s]|$)/;

type Refuse = (problem: string) => never;

/**
 * The directives in a text, none if there is no bracket. A word that is not known, stands twice or has a value out
 * of range is refused with a message that names it, so that a misspelt test cannot pass. `param` is the member of the
 * request in which the text stands.
 */
export function parseDirectives(text: string, param: string): Directives {
  const refuse: Refuse = (problem) => {
    throw new Refused(`simulator directive: ${problem}`, { param });
  };
  const counts: Directives["counts"] = {};
  const directives: { -readonly [K in keyof Directives]: Directives[K] } = { counts };
  const failures: Failure[] = [];
  const seen = new Set<string>();
  let retryAfterSeconds: number | undefined;
  for (const word of wordsIn(text, refuse)) {
    const equals = word.indexOf("=");
    const name = equals < 0 ? word : word.slice(0, equals);
    const value = equals < 0 ? undefined : word.slice(equals + 1);
    const number = (what: string, min: number, max: number): number => {
      const read = /^\d{1,10}$/.test(value ?? "") ? Number(value) : NaN;
      if (read >= min && read <= max) return read;
      return refuse(`'${name}' needs ${what} from ${min} to ${max}`);
    };
    if (seen.has(name)) refuse(`'${name}' stands twice`);
    seen.add(name);
    if (isKeyOf(COUNTS, name)) {
      counts[COUNTS[name]] = number("a whole number", 0, TOKENS_MAX);
    } else if (isKeyOf(NUMBERS, name)) {
      directives[name] = number("a whole number", 0, NUMBERS[name]);
    } else if (isKeyOf(CUTS, name)) {
      failures.push({ how: CUTS[name], after: number("a whole number", 0, CHUNKS_MAX) });
    } else if (name === "status") {
      failures.push({ how: name, status: number("a number", 300, 599) });
    } else if (name === "retry-after") {
      retryAfterSeconds = number("seconds", 0, RETRY_AFTER_SECONDS_MAX);
    } else if (name === "model" || name === "tier" || name === "hold") {
      if (value === undefined || !NAME.test(value)) refuse(`'${name}' needs a name`);
      directives[name] = value;
    } else if (value !== undefined) {
      refuse(`'${name}' is not known or takes no value`);
    } else if (name === "no-usage") {
      directives.noUsage = true;
    } else if (name === "hang-up" || name === "garbage" || name === "no-done") {
      failures.push({ how: name });
    } else {
      refuse(`'${name}' is not known or needs a value`);
    }
  }
  const [failure, second] = failures;
  if (second !== undefined) refuse("an answer can fail in one way only");
  if (failure !== undefined) directives.failure = failure;
  if (retryAfterSeconds !== undefined) {
    if (failure?.how !== "status") refuse("'retry-after' needs 'status'");
    directives.failure = { ...failure, retryAfterSeconds };
  }
  return directives;
}

/** The words inside the bracket. Looks through the text once, however many brackets it opens. */
function wordsIn(text: string, refuse: Refuse): string[] {
  const start = text.search(BRACKET);
  if (start < 0) return [];
  const end = text.indexOf("]", start);
  if (end < 0 || end - start > BRACKET_CHARACTERS_MAX) refuse("the bracket is not closed");
  if (BRACKET.test(text.slice(end))) refuse("there are two brackets");
  const words = text.slice(start + "[sim".length, end).split(/\s+/);
  return words.filter((word) => word !== "");
}

function isKeyOf<T extends object>(table: T, name: string): name is Extract<keyof T, string> {
  return Object.hasOwn(table, name);
}
