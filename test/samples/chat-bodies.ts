/** Chat completions as callers ask for them and as upstreams answer. */

/** A small chat request. */
export function chat(changes: object = {}): string {
  return JSON.stringify({
    model: "sim-flat",
    max_tokens: 100,
    messages: [{ role: "user", content: "hello" }],
    ...changes,
  });
}

/** A whole chat completion, with usage in prompt and completion tokens unless it is left out. */
export function completion(
  usage?: readonly [prompt: number, completion: number],
  content = "Hello there!",
) {
  return {
    id: "chatcmpl-1",
    object: "chat.completion",
    created: 1,
    model: "sim-flat",
    choices: [{ index: 0, message: { role: "assistant", content }, finish_reason: "stop" }],
    ...(usage
      ? {
          usage: {
            prompt_tokens: usage[0],
            completion_tokens: usage[1],
            total_tokens: usage[0] + usage[1],
          },
        }
      : {}),
  };
}

/** One event of a stream. */
export function chunk(delta: object | undefined, rest: object = {}): string {
  const choices = delta ? [{ index: 0, delta, finish_reason: null, ...rest }] : [];
  const usage = delta ? {} : rest;
  return `data: ${JSON.stringify({ id: "chatcmpl-1", object: "chat.completion.chunk", created: 1, model: "sim-flat", choices, ...usage })}\n\n`;
}

export const DONE = "data: [DONE]\n\n";
