/**
 * What a test or a person asks of the simulated upstream, written into the last user message:
 * `[sim output=500 cached=600 delay=20]`. At most one bracket, words in any order, each word once.
 */
export interface Directives {
  // Usage as the answer tells it. Totals include their parts, as OpenAI counts: `input` includes `cached`,
  // `cache-write`, `audio-in` and `image-in`; `output` includes `reasoning` and `audio-out`. Nothing keeps a part
  // below its total or `output` below the caller's cap: wrong figures are worth testing too.
  readonly input?: number;
  readonly cached?: number;
  readonly cacheWrite?: number;
  readonly audioIn?: number;
  readonly imageIn?: number;
  readonly output?: number;
  readonly reasoning?: number;
  readonly audioOut?: number;
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

export type ParsedDirectives =
  | { readonly ok: true; readonly directives: Directives }
  | { readonly ok: false; readonly message: string };

// Largest values that are taken. They keep a misspelt figure from turning into a request that never ends.
const TOKENS_MAX = 1_000_000_000;
const CHUNKS_MAX = 1_000_000;
const TOOLS_MAX = 128;
const WAIT_MS_MAX = 600_000;
const RETRY_AFTER_SECONDS_MAX = 86_400;
const BRACKET_CHARACTERS_MAX = 1_000;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}$/;

const NUMBERS = {
  input: ["input", TOKENS_MAX],
  cached: ["cached", TOKENS_MAX],
  "cache-write": ["cacheWrite", TOKENS_MAX],
  "audio-in": ["audioIn", TOKENS_MAX],
  "image-in": ["imageIn", TOKENS_MAX],
  output: ["output", TOKENS_MAX],
  reasoning: ["reasoning", TOKENS_MAX],
  "audio-out": ["audioOut", TOKENS_MAX],
  chunks: ["chunks", CHUNKS_MAX],
  tool: ["tool", TOOLS_MAX],
  first: ["first", WAIT_MS_MAX],
  delay: ["delay", WAIT_MS_MAX],
} as const satisfies Record<string, readonly [keyof Directives, number]>;
const NAMES = { model: "model", tier: "tier", hold: "hold" } as const satisfies Record<
  string,
  keyof Directives
>;
const CUTS = {
  "reset-after": "reset",
  "end-after": "end",
  "stall-after": "stall",
  "error-after": "error",
} as const;
const FAILING_FLAGS = ["hang-up", "garbage", "no-done"] as const;

/**
 * The directives in a text, none if there is no bracket. A word that is not known, stands twice or has a value out
 * of range is refused with a message that names it, so that a misspelt test cannot pass.
 */
export function parseDirectives(text: string): ParsedDirectives {
  const found = findBracket(text);
  if (found === undefined) return { ok: true, directives: {} };
  if (typeof found !== "string") return refuse(found.problem);
  const directives: { -readonly [K in keyof Directives]: Directives[K] } = {};
  const failures: Failure[] = [];
  const seen = new Set<string>();
  let retryAfterSeconds: number | undefined;
  for (const word of found.split(/\s+/).filter((part) => part !== "")) {
    const equals = word.indexOf("=");
    const name = equals < 0 ? word : word.slice(0, equals);
    const value = equals < 0 ? undefined : word.slice(equals + 1);
    if (seen.has(name)) return refuse(`'${name}' stands twice`);
    seen.add(name);
    if (isKeyOf(NUMBERS, name)) {
      const [field, max] = NUMBERS[name];
      const number = wholeNumber(value, 0, max);
      if (number === undefined) return refuse(`'${name}' needs a whole number from 0 to ${max}`);
      directives[field] = number;
    } else if (isKeyOf(NAMES, name)) {
      if (value === undefined || !NAME.test(value)) return refuse(`'${name}' needs a name`);
      directives[NAMES[name]] = value;
    } else if (isKeyOf(CUTS, name)) {
      const after = wholeNumber(value, 0, CHUNKS_MAX);
      if (after === undefined)
        return refuse(`'${name}' needs a whole number from 0 to ${CHUNKS_MAX}`);
      failures.push({ how: CUTS[name], after });
    } else if (name === "status") {
      const status = wholeNumber(value, 300, 599);
      if (status === undefined) return refuse("'status' needs a number from 300 to 599");
      failures.push({ how: "status", status });
    } else if (name === "retry-after") {
      retryAfterSeconds = wholeNumber(value, 0, RETRY_AFTER_SECONDS_MAX);
      if (retryAfterSeconds === undefined)
        return refuse(`'retry-after' needs seconds from 0 to ${RETRY_AFTER_SECONDS_MAX}`);
    } else if (value !== undefined) {
      return refuse(`'${name}' is not known or takes no value`);
    } else if (name === "no-usage") {
      directives.noUsage = true;
    } else {
      const flag = FAILING_FLAGS.find((known) => known === name);
      if (flag === undefined) return refuse(`'${name}' is not known or needs a value`);
      failures.push({ how: flag });
    }
  }
  const [failure, second] = failures;
  if (second !== undefined) return refuse("an answer can fail in one way only");
  if (failure !== undefined) directives.failure = failure;
  if (retryAfterSeconds !== undefined) {
    if (failure?.how !== "status") return refuse("'retry-after' needs 'status'");
    directives.failure = { ...failure, retryAfterSeconds };
  }
  return { ok: true, directives };
}

/** The words inside the bracket. Looks through the text once, however many brackets it opens. */
function findBracket(text: string): string | { problem: string } | undefined {
  const start = findStart(text, 0);
  if (start < 0) return undefined;
  const end = text.indexOf("]", start);
  if (end < 0 || end - start > BRACKET_CHARACTERS_MAX)
    return { problem: "the bracket is not closed" };
  if (findStart(text, end) >= 0) return { problem: "there are two brackets" };
  return text.slice(start + "[sim".length, end);
}

function findStart(text: string, from: number): number {
  for (let at = text.indexOf("[sim", from); at >= 0; at = text.indexOf("[sim", at + 1)) {
    const next = text.charAt(at + "[sim".length);
    if (next === "]" || next.trim() === "") return at;
  }
  return -1;
}

function wholeNumber(text: string | undefined, min: number, max: number): number | undefined {
  if (text === undefined || !/^\d{1,10}$/.test(text)) return undefined;
  const number = Number(text);
  return number < min || number > max ? undefined : number;
}

function isKeyOf<T extends object>(table: T, name: string): name is Extract<keyof T, string> {
  return Object.hasOwn(table, name);
}

function refuse(problem: string): ParsedDirectives {
  return { ok: false, message: `simulator directive: ${problem}` };
}
