import { z } from "zod";
import type { Dice } from "#test/simulation/random.ts";

/** What a client saw of one request. */
export interface Seen {
  readonly requestId: string | undefined;
  readonly status: number;
  readonly stream: boolean;
  /** The whole answer came: a stream's `[DONE]` or every byte of a body, and it was a success. */
  readonly complete: boolean;
  /** The answer ended as HTTP says, whatever was in it. */
  readonly ended: boolean;
  /** The code of an error, also of one inside a stream. */
  readonly code: string | undefined;
  readonly headers: Headers;
  readonly text: string;
  /** The client did not wait for its end. */
  readonly left: boolean;
  /** When it ended, by `Date.now()`. */
  readonly atMs: number;
}

export interface Ask {
  readonly stream: boolean;
  /** The words of the simulator's bracket. */
  readonly words: string;
  /** The client leaves after so many pieces of the answer, 0: before its head. */
  readonly leaveAfter?: number;
  /** Between two pieces that it reads. */
  readonly slowMs?: number;
}

export interface Customer {
  readonly gateway: string;
  readonly key: string;
  /**
   * The clients' own ids of the requests that they left. The upstream's book cannot know of one whose answer was on its
   * way already when its caller hung up.
   */
  readonly left?: Set<string>;
}

let asks = 0;

const MODEL = "gpt-4o-mini";
const problem = z.object({
  error: z.object({ code: z.union([z.string(), z.number()]).nullable() }),
});

const pause = (delayMs: number) => new Promise((resolve) => setTimeout(resolve, delayMs));

/** Asks once and reads the answer to its end, as far as it comes; throws when nobody answers at all. */
export async function ask(customer: Customer, asked: Ask): Promise<Seen> {
  const leaving = new AbortController();
  asks += 1;
  const clientRequestId = `client-${asks}`;
  leaving.signal.addEventListener("abort", () => customer.left?.add(clientRequestId));
  if (asked.leaveAfter === 0) setTimeout(() => leaving.abort(), 15);
  const response = await fetch(`${customer.gateway}/v1/chat/completions`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${customer.key}`,
      "content-type": "application/json",
      "x-client-request-id": clientRequestId,
    },
    body: JSON.stringify({
      model: MODEL,
      messages: [{ role: "user", content: `[sim ${asked.words}]` }],
      max_tokens: 400,
      stream: asked.stream,
    }),
    signal: leaving.signal,
  });
  const { text, ended } = await readAnswer(response, asked, leaving);
  const isWhole = asked.stream ? text.endsWith("data: [DONE]\n\n") : isJson(text);
  return {
    requestId: response.headers.get("x-request-id") ?? undefined,
    status: response.status,
    stream: asked.stream,
    complete: ended && response.status === 200 && isWhole,
    ended,
    code: codeIn(text),
    headers: response.headers,
    text,
    left: leaving.signal.aborted,
    atMs: Date.now(),
  };
}

async function readAnswer(
  response: Response,
  asked: Ask,
  leaving: AbortController,
): Promise<{ text: string; ended: boolean }> {
  let text = "";
  let pieces = 0;
  const decoder = new TextDecoder();
  try {
    const body: ReadableStream<Uint8Array> | null = response.body;
    for await (const piece of body ?? []) {
      text += decoder.decode(piece, { stream: true });
      pieces += 1;
      if (asked.leaveAfter === pieces) leaving.abort();
      if (asked.slowMs) await pause(asked.slowMs);
    }
    return { text, ended: true };
  } catch {
    return { text, ended: false };
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** The error's code in a body, or in the last event of a stream. */
function codeIn(text: string): string | undefined {
  const json = text.startsWith("{") ? text : (/data: (\{"error".*\})\n\n$/.exec(text)?.[1] ?? "");
  if (!isJson(json)) return undefined;
  const read = problem.safeParse(JSON.parse(json));
  return read.success ? String(read.data.error.code) : undefined;
}

/** Clients that go on asking until they are told to stop, through every start and kill of the server. */
export interface Load {
  /** Everything that was answered at all. */
  readonly seen: readonly Seen[];
  /** How often nobody answered a client that waited. */
  unanswered(): number;
  stop(): Promise<void>;
}

/**
 * Starts so many clients, each with one request at a time: streams and whole answers, some read slowly, and if
 * `someLeave` some clients that do not wait for the end.
 */
export function startLoad(
  customer: Customer,
  clients: number,
  dice: Dice,
  someLeave: boolean,
): Load {
  const seen: Seen[] = [];
  let unanswered = 0;
  let stopping = false;
  async function client(): Promise<void> {
    while (!stopping) {
      try {
        const one = await ask(customer, drawAsk(dice, someLeave));
        seen.push(one);
        // Who has no credit, or finds no ledger, does not ask as fast as it is refused.
        if (one.status !== 200) await pause(dice.between(20, 100));
      } catch (error) {
        const left = error instanceof Error && error.name === "AbortError";
        if (!left) unanswered += 1;
        await pause(dice.between(5, 40));
      }
    }
  }
  const all = Array.from({ length: clients }, client);
  return {
    seen,
    unanswered: () => unanswered,
    async stop() {
      stopping = true;
      await Promise.all(all);
    },
  };
}

function drawAsk(dice: Dice, someLeave: boolean): Ask {
  const stream = dice.chance(0.75);
  const usage = `input=${dice.between(1, 60)} output=${dice.between(0, 400)}`;
  const leaves = someLeave && dice.chance(0.1);
  if (!stream) {
    const words = `${usage} first=${dice.between(0, 120)}`;
    return { stream, words, ...(leaves ? { leaveAfter: 0 } : {}) };
  }
  const words = `${usage} chunks=20 delay=${dice.between(0, 15)} first=${dice.between(0, 40)}`;
  return {
    stream,
    words,
    ...(leaves ? { leaveAfter: dice.between(0, 4) } : {}),
    ...(dice.chance(0.2) ? { slowMs: dice.between(1, 20) } : {}),
  };
}
