import { createServer } from "node:http";
import { makeKeyText } from "#domain/key-text.ts";
import { canary } from "./canaries.ts";
import { answersIn, exchange, requestText } from "./hostile/raw-http.ts";

/** Requests with a canary wherever a caller or an upstream can put a text, through every way in which they can end. */

const CALLER = [
  "prompt",
  "system text",
  "tool arguments",
  "tool name",
  "file name",
  "image",
  "user",
  "metadata",
  "unknown member",
  "model",
  "malformed body",
  "wrong type",
  "header",
  "cookie",
  "path",
  "query",
  "idempotency key",
  "wrong key",
  "wrong admin token",
  "control value",
] as const;
const UPSTREAM = [
  "answer",
  "stream",
  "finish reason",
  "served model",
  "service tier",
  "fingerprint",
  "upstream header",
  "refusal",
  "failure",
  "stream error",
  "garbage",
] as const;

export type Canaries = Record<
  (typeof CALLER)[number] | (typeof UPSTREAM)[number] | "host key",
  string
>;

export function newCanaries(): Canaries {
  const names = [...CALLER, ...UPSTREAM, "host key"] as const;
  return Object.fromEntries(names.map((name) => [name, canary()])) as Canaries;
}

/** An upstream that says canaries. The text `[do=<name>]` in a body says how. */
export async function startTellingUpstream(
  told: Canaries,
): Promise<{ baseUrl: string; close(): void }> {
  const message = { role: "assistant", content: told.answer, refusal: `"${told.answer}"` };
  const names = {
    id: `chatcmpl-${told.fingerprint}`,
    model: told["served model"],
    system_fingerprint: told.fingerprint,
    service_tier: told["service tier"],
  };
  const usage = { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 };
  const choice = { index: 0, message, finish_reason: told["finish reason"] };
  const event = (delta: object, finish: string | null) =>
    `data: ${JSON.stringify({ ...names, choices: [{ index: 0, delta, finish_reason: finish }] })}\n\n`;
  const chunks = event({ content: told.stream }, null).repeat(3);
  const refused = (text: string) => JSON.stringify({ error: { message: text, code: text } });
  const bodies: Record<string, readonly [status: number, body: string]> = {
    plain: [200, JSON.stringify({ ...names, choices: [choice], usage })],
    "no-usage": [200, JSON.stringify({ ...names, choices: [choice] })],
    stream: [200, `${chunks}${event({}, told["finish reason"])}data: [DONE]\n\n`],
    cut: [200, chunks],
    "stream-error": [200, `${chunks}data: ${refused(told["stream error"])}\n\n`],
    garbage: [200, `{"${told.garbage}`],
    "stream-garbage": [200, `data: {"${told.garbage}\n\n`],
    endless: [200, chunks],
    "400": [400, refused(told.refusal)],
    "404": [404, told.failure],
    ...Object.fromEntries(
      [401, 403, 408, 429, 500, 503].map((code) => [code, [code, refused(told.failure)]]),
    ),
  };
  const server = createServer((req, res) => {
    let body = "";
    req.on("data", (piece: Buffer) => (body += piece.toString()));
    req.on("end", () => {
      const way = /\[do=([\w-]+)\]/.exec(body)?.[1] ?? "plain";
      const [status, text] = bodies[way] ?? [200, ""];
      const header = told["upstream header"];
      res.writeHead(status, {
        "x-own": header,
        "set-cookie": header,
        "openai-organization": header,
      });
      if (way === "endless") res.write(text);
      else res.end(text);
    });
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  return {
    baseUrl: `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}/v1`,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

interface Where {
  readonly gateway: string;
  readonly control: string;
  readonly internal: string;
  readonly key: string;
  readonly adminToken: string;
}

/** What answers said that are not the caller's own: every head, and the body of everything but a success. */
export interface Said {
  add(name: string, status: number, head: string, body: string): void;
}

const TELLING = "gpt-4o-mini";

/** A request with a canary in every place that a well-formed one has. */
export function fullRequest(
  told: Canaries,
  way: string,
  more: Record<string, unknown> = {},
): string {
  const image = Buffer.from(`PNG ${told.image}`).toString("base64");
  const call = { name: told["tool name"], arguments: `{"a":"${told["tool arguments"]}"}` };
  return JSON.stringify({
    model: TELLING,
    messages: [
      { role: "system", content: `"${told["system text"]}" \n ü` },
      {
        role: "assistant",
        content: null,
        tool_calls: [{ id: "1", type: "function", function: call }],
      },
      { role: "tool", tool_call_id: "1", content: told["tool arguments"] },
      {
        role: "user",
        content: [
          { type: "text", text: `[do=${way}] ${told.prompt}` },
          { type: "image_url", image_url: { url: `data:image/png;base64,${image}` } },
          { type: "file", file: { filename: told["file name"], file_data: told["file name"] } },
        ],
      },
    ],
    user: told.user,
    metadata: { about: told.metadata },
    tools: [{ type: "function", function: { name: told["tool name"], parameters: {} } }],
    [told["unknown member"]]: told["unknown member"],
    max_tokens: 100,
    ...more,
  });
}

/** Bodies that are refused, each with the canary where its fault is. */
function badBodies(told: Canaries): readonly string[] {
  const bad = told["wrong type"];
  const wrong: Record<string, unknown>[] = [
    { n: bad },
    { stream: bad },
    { max_tokens: bad },
    { stream_options: bad },
    { model_region: bad },
    { service_tier: [bad] },
    { messages: bad },
    { tools: [{ type: bad }] },
    { plugins: [bad] },
    { model: [bad] },
    { model: told.model },
    { model: `sk-${told.model}` },
    { MODEL: bad },
  ];
  const text = told["malformed body"];
  return [
    ...wrong.map((more) => fullRequest(told, "plain", more)),
    text,
    `{"${text}`,
    `{"model":"${text}",`,
    `{"model":"${text}","model":"${text}"}`,
    `{"${text}":${"[".repeat(100)}`,
    `[{"${text}":1}]`,
    `{"model":"m","messages":[${text}]}`,
    `\ufeff${text}`,
  ];
}

/** Goes through all of it once; `told` are said by the upstream too. */
export async function loadWith(told: Canaries, where: Where, said: Said): Promise<void> {
  const headers = {
    authorization: `Bearer ${where.key}`,
    "content-type": "application/json",
    "x-custom": told.header,
    cookie: `session=${told.cookie}`,
    traceparent: told.header,
    tracestate: `a=${told.header}`,
    baggage: `a=${told.header}`,
    "idempotency-key": told["idempotency key"],
  };
  async function ask(name: string, url: string, init: RequestInit): Promise<void> {
    const answer = await fetch(url, init);
    const head = JSON.stringify([...answer.headers]);
    const body = await answer.text().catch(() => "");
    // Of a success only what may stand behind its text is ours: an error at the end of a stream.
    const ours = answer.ok ? (/data: \{"error".*/s.exec(body)?.[0] ?? "") : body;
    said.add(name, answer.status, head, ours);
  }
  const chat = `${where.gateway}/v1/chat/completions`;
  const post = (name: string, body: string, more: Record<string, string> = {}) =>
    ask(name, chat, { method: "POST", headers: { ...headers, ...more }, body });

  const ways = ["plain", "no-usage", "stream", "cut", "stream-error", "garbage", "stream-garbage"];
  for (const way of [...ways, "400", "401", "403", "404", "408", "429", "500", "503"]) {
    await post(`upstream ${way}`, fullRequest(told, way));
    await post(`upstream ${way}, streamed`, fullRequest(told, way, { stream: true }));
  }
  for (const more of [{}, { stream: true }]) {
    const simulated = { model: "sim-small", ...more };
    await post("simulator", fullRequest(told, "plain", simulated));
    const content = `[sim ${told.prompt}]`;
    await post(
      "simulator's refusal",
      fullRequest(told, "plain", { ...simulated, messages: [{ role: "user", content }] }),
    );
  }
  for (const [at, body] of badBodies(told).entries()) await post(`bad body ${at}`, body);
  await post(
    "too dear",
    fullRequest(told, "plain", { model: "gpt-4o", n: 128, max_tokens: 16_000 }),
  );
  await post("media type", told.prompt, { "content-type": `text/${told.header}` });
  await post("encoded", told.prompt, { "content-encoding": told.header });
  await badKeys(told, where, ask);
  await badPaths(told, where, headers, ask);
  await badHttp(told, where, said);
  await badCommands(told, where, ask);
}

type Ask = (name: string, url: string, init: RequestInit) => Promise<void>;

async function badKeys(told: Canaries, where: Where, ask: Ask): Promise<void> {
  const wrong = told["wrong key"];
  // Well-formed keys whose secret is the canary, with a checksum that is right: of this region and of another.
  const places = Buffer.from(wrong.padEnd(32, "0")).map((letter) =>
    letter >= 97 ? letter - 61 : letter - 48,
  );
  const [here, there] = ["us", "eu"].map((region) => makeKeyText(region, () => places));
  const keys = [
    wrong,
    `sk-${wrong}`,
    `relai_sk_us_live_${wrong}`,
    `rk-us-${wrong}`,
    `rk-eu-${wrong}`,
  ];
  keys.push(here ?? "", there ?? "");
  if (!here?.includes(wrong)) throw new Error("the key does not hold the canary");
  for (const [at, key] of keys.entries()) {
    for (const name of ["authorization", "x-api-key"]) {
      const value = name === "authorization" ? `Bearer ${key}` : key;
      await ask(`wrong key ${at}`, `${where.gateway}/v1/models`, { headers: { [name]: value } });
    }
  }
}

async function badPaths(
  told: Canaries,
  where: Where,
  headers: Record<string, string>,
  ask: Ask,
): Promise<void> {
  const { path, query } = told;
  for (const url of [where.gateway, where.control, where.internal]) {
    for (const end of [
      `/${path}`,
      `/v1/models/${path}`,
      `/v1/models/%zz${path}`,
      `/metrics/${path}`,
    ])
      await ask(`path ${end.replace(path, "…")}`, `${url}${end}?q=${query}`, { headers });
    await ask("method", `${url}/v1/models?${query}`, { method: "DELETE", headers });
  }
}

async function badHttp(told: Canaries, where: Where, said: Said): Promise<void> {
  const { header } = told;
  const head = ["POST /v1/chat/completions HTTP/1.1", "host: localhost"];
  const requests = [
    `${header}\r\n\r\n`,
    requestText([`GET /${header} HTTP/9`, "host: localhost"]),
    requestText([...head, `${header} ${header}`]),
    requestText([...head, `x: ${header.repeat(2000)}`]),
    requestText([...head, `content-length: ${header}`]),
  ];
  for (const url of [where.gateway, where.control, where.internal]) {
    for (const [at, text] of requests.entries()) {
      for (const answer of answersIn(await exchange(url, text)))
        said.add(`bad HTTP ${at}`, answer.status, answer.head, answer.body);
    }
  }
}

async function badCommands(told: Canaries, where: Where, ask: Ask): Promise<void> {
  const url = `${where.control}/v1/orgs`;
  const headers = {
    authorization: `Bearer ${where.adminToken}`,
    "content-type": "application/json",
    "idempotency-key": told["idempotency key"],
    cookie: told.cookie,
  };
  const value = told["control value"];
  const post = (name: string, path: string, body: string, more: Record<string, string> = {}) =>
    ask(name, `${url}${path}`, { method: "POST", headers: { ...headers, ...more }, body });
  await post("stranger", "", '{"name":"x"}', {
    authorization: `Bearer ${told["wrong admin token"]}`,
  });
  await post("malformed command", "", `{"name":"${value}`);
  await post("command of another type", "", JSON.stringify({ name: [value] }));
  await post("credit of nothing", `/${value}/credits`, JSON.stringify({ amount_dollars: value }));
  await post("credit for nobody", `/${value}/credits`, '{"amount_dollars":"1"}');
  await post("organization", "", '{"name":"Acme"}');
  await post("organization again, with another name", "", '{"name":"Other"}');
  await ask("list", `${url}?limit=${value}`, { headers });
}
