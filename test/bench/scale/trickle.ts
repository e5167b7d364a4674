import { keyTextOf } from "./history.ts";
import { PATH } from "#test/bench/request.ts";

/** A request of the trickle, in milliseconds of `performance.now()`. A status of 0: nobody answered. */
export interface Asked {
  readonly beganMs: number;
  readonly endedMs: number;
  readonly status: number;
}

const ANSWER_MS_MAX = 20_000;
const BODY = JSON.stringify({
  model: "gpt-4o-mini",
  max_tokens: 100,
  messages: [{ role: "user", content: "[sim input=10 output=10]" }],
});

/** So many requests a second, each of some organization's, whatever has become of those before. */
export function startTrickle(url: string, perSecond: number, orgs: number) {
  const asked: Asked[] = [];
  const running = new Set<Promise<void>>();

  async function ask(): Promise<void> {
    const key = keyTextOf(Math.floor(Math.random() * orgs));
    const beganMs = performance.now();
    const status = await fetch(url + PATH, {
      method: "POST",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body: BODY,
      signal: AbortSignal.timeout(ANSWER_MS_MAX),
    }).then(
      async (response) => {
        await response.text();
        return response.status;
      },
      () => 0,
    );
    asked.push({ beganMs, endedMs: performance.now(), status });
  }

  const timer = setInterval(() => {
    const one = ask().finally(() => running.delete(one));
    running.add(one);
  }, 1000 / perSecond);
  return {
    asked: asked as readonly Asked[],
    async stop(): Promise<void> {
      clearInterval(timer);
      await Promise.all(running);
    },
  };
}
