import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, vi } from "vitest";
import { ERRORS } from "#services/errors.ts";
import { ANSWER, MODEL, startHostileUpstream, type HostileUpstream } from "./hostile-upstream.ts";
import { balanceOf, newOrganization, startRelai, type RelaiProcess } from "#test/e2e/relai.ts";

/** A relai beside a hostile upstream, and a good client that must get every one of its answers right all the time. */

export const MIB = 2 ** 20;
export const IN_FLIGHT_BYTES_MAX = 256 * MIB;
const CONTROL_PAUSE_MS = 20;
const SETTLED_MS_MAX = 30_000;

export interface HostileWorld {
  readonly relai: RelaiProcess;
  readonly upstream: HostileUpstream;
  /** Another customer each time, with a key that has not been refused yet. */
  newKey(): Promise<string>;
  /** Answers that the good client has got so far. */
  controlAnswers(): number;
  /** Waits until no customer has anything held and the good client has had another answer; throws what went wrong for it. */
  settled(): Promise<void>;
  close(): Promise<void>;
}

export async function hostileWorld(): Promise<HostileWorld> {
  const upstream = await startHostileUpstream();
  const relai = await startRelai({
    settings: {
      RELAI_DEMO: "0",
      RELAI_LOG_LEVEL: "warn",
      OPENAI_API_KEY: "sk-of-the-hostile-upstream",
      OPENAI_BASE_URL: upstream.baseUrl,
      RELAI_IN_FLIGHT_BYTES_MAX: String(IN_FLIGHT_BYTES_MAX),
      // A client that takes nothing for this long has left; and what left clients' answers are read on for.
      RELAI_UPSTREAM_IDLE_MS: "3000",
      RELAI_READ_ON_MS: "2000",
    },
  });
  const keys: string[] = [];
  async function newKey(): Promise<string> {
    const { key } = await newOrganization(relai, { creditMicro: 1_000_000_000_000 });
    keys.push(key);
    return key;
  }
  const control = goodClient(relai.gateway, await newKey());
  return {
    relai,
    upstream,
    newKey,
    controlAnswers: control.answers,
    async settled() {
      const answered = control.answers();
      await vi.waitFor(
        async () => {
          const asked = keys.map((key) => balanceOf({ gateway: relai.gateway, key }));
          for (const { held_micro } of await Promise.all(asked)) expect(held_micro).toBe(0);
          expect(control.answers()).toBeGreaterThan(answered);
        },
        { timeout: SETTLED_MS_MAX, interval: 20 },
      );
      expect(control.wrong()).toEqual([]);
    },
    async close() {
      await control.stop();
      await relai.stop();
      await upstream.close();
    },
  };
}

/** Asks the same small question again and again, and keeps what was not the right answer. */
function goodClient(gateway: string, key: string) {
  let answers = 0;
  let stopped = false;
  const wrong: string[] = [];
  async function run(): Promise<void> {
    while (!stopped) {
      const { status, text } = await complete(gateway, key, chat("fine"));
      if (status === 200 && text === ANSWER) answers += 1;
      else wrong.push(`${status} ${text}`);
      await sleep(CONTROL_PAUSE_MS);
    }
  }
  const running = run().catch((error: unknown) => void wrong.push(String(error)));
  return {
    answers: () => answers,
    wrong: () => wrong,
    async stop() {
      stopped = true;
      await running;
    },
  };
}

/** The body of a request whose answer the hostile upstream gives in a certain way. */
export function chat(way: string, more: Record<string, unknown> = {}): string {
  const messages = [{ role: "user", content: `[do=${way}]` }];
  return JSON.stringify({ model: MODEL, messages, max_tokens: 16, ...more });
}

/** The body of a request of so many bytes, all of one letter. */
export function largeChat(bytes: number, way = "answer"): Buffer {
  const [head = "", tail = ""] = chat(`${way}]#`).split("#");
  return Buffer.concat([Buffer.from(head), Buffer.alloc(bytes, "a"), Buffer.from(tail)]);
}

/** One chat completion, read to its end. */
export async function complete(
  gateway: string,
  key: string,
  body: string | Buffer,
  headers: Record<string, string> = {},
): Promise<{ status: number; text: string }> {
  const answer = await fetch(`${gateway}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json", ...headers },
    body: typeof body === "string" ? body : new Uint8Array(body),
    signal: AbortSignal.timeout(60_000),
  });
  return { status: answer.status, text: await answer.text() };
}

/** The status and code of a refusal in our shape, as `400 invalid_request`; throws when it is none of the table. */
export function refusalIn({ status, text }: { status: number; text: string }): string {
  const parsed = JSON.parse(text) as { error: Record<string, unknown> };
  expect(Object.keys(parsed)).toEqual(["error"]);
  expect(Object.keys(parsed.error).slice(0, 4)).toEqual(["message", "type", "code", "param"]);
  const code = String(parsed.error["code"]);
  const known = Object.entries(ERRORS).find(([name]) => name === code)?.[1];
  expect(known, `${code} is in the table of errors`).toMatchObject({ status });
  expect(code).not.toBe("internal_error");
  return `${status} ${code}`;
}

/** A line of `/proc/<pid>/status` in bytes: `VmHWM` is the most memory that the process ever had, `VmRSS` what it has. */
export function memoryBytes(pid: number, line: "VmHWM" | "VmRSS"): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const kilobytes = new RegExp(`^${line}:\\s+(\\d+) kB$`, "m").exec(status)?.[1];
  if (kilobytes === undefined) throw new Error(`no ${line} of process ${pid}`);
  return Number(kilobytes) * 1024;
}

/** The process's counters of errors that must never happen: empty when there were none. */
export async function faultsIn(relai: RelaiProcess): Promise<string[]> {
  const text = await (await fetch(`${relai.internal}/metrics`)).text();
  return text
    .split("\n")
    .filter(
      (line) =>
        /^relai_alarms_total\{.*\} [1-9]/.test(line) || line.includes('code="internal_error"'),
    );
}
