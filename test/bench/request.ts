/** The two requests that the bench makes, and the check that an answer is whole. */

/** A model that ships with relai; the upstream answers with the same name. */
export const MODEL = "gpt-4o-mini";

/** Chunks with text in a stream; a role, a finish, a usage chunk and `[DONE]` come with them. */
export const CHUNKS = 20;

export const PATH = "/v1/chat/completions";

const question = {
  model: MODEL,
  messages: [
    { role: "system", content: "You are a helpful assistant. Answer briefly and to the point." },
    { role: "user", content: "What is the capital of France, and on which river does it stand?" },
  ],
  temperature: 0.2,
  max_tokens: 200,
};

/** The body of a request. It does not ask for the usage of a stream: most clients do not. */
export function requestBody(streamed: boolean): string {
  return JSON.stringify(streamed ? { ...question, stream: true } : question);
}

/** Makes one request of each kind and throws unless the answers are whole: a fast wrong answer is no figure. */
export async function checkAnswers(url: string, headers: Record<string, string>): Promise<void> {
  const ask = async (streamed: boolean): Promise<string> => {
    const response = await fetch(url + PATH, {
      method: "POST",
      headers: { ...headers, "content-type": "application/json" },
      body: requestBody(streamed),
      signal: AbortSignal.timeout(10_000),
    });
    const text = await response.text();
    if (response.status !== 200) {
      throw new Error(`answered ${response.status}: ${text.slice(0, 300)}`);
    }
    return text;
  };
  const completion = await ask(false);
  if (!completion.includes("stands on the Seine")) throw new Error("an answer lost its text");
  if (!/"prompt_tokens":\s*41\b/.test(completion)) throw new Error("an answer lost its usage");
  const streamed = await ask(true);
  const words = streamed.match(/"content":" word\d+"/g)?.length ?? 0;
  if (words !== CHUNKS) throw new Error(`a stream had ${words} chunks of text, not ${CHUNKS}`);
  if (!streamed.trimEnd().endsWith("data: [DONE]")) throw new Error("a stream had no [DONE]");
}
