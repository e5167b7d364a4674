import { join } from "node:path";
import { z } from "zod";
import type { Config } from "#infra/config.ts";
import { readSecretFile } from "#infra/files.ts";
import { CONTROL_FILE_NAME, parseControlFile } from "#services/control/control-file.ts";
import { TIMED_OUT, within } from "#services/waiting.ts";
import type { Clock } from "#services/ports.ts";
import { CliError } from "./world.ts";

/** The control API of the running process, as commands use it. */
export interface Client {
  /** Where it asks, without a slash at the end. */
  readonly url: string;
  /** Sends and reads one JSON object. Throws {@link CliError} when the server refuses or is not there. */
  call(method: string, path: string, sent?: Sent): Promise<Readonly<Record<string, unknown>>>;
  /** Sends and gives each line of the answer, as JSON, as it comes. */
  lines(method: string, path: string, sent: Sent): AsyncIterable<Readonly<Record<string, unknown>>>;
}

export interface Sent {
  readonly body?: Readonly<Record<string, unknown>>;
  readonly idempotencyKey?: string | undefined;
}

interface Place {
  readonly url: string;
  readonly token: string | undefined;
  readonly from: string;
  /** Where the token is from. */
  readonly tokenFrom: string;
}

/** Longer than the server takes to give up on its own store. */
const ANSWER_MS_MAX = 60_000;
const LINE_LENGTH_MAX = 1024 * 1024;
const HOW_TO_START = "start it with: relai start";

const ERROR_BODY = z.object({ error: z.object({ message: z.string(), code: z.unknown() }) });
const OBJECT = z.record(z.string(), z.unknown());

/**
 * Finds the running process: by the settings, else by the file that `relai start` keeps, else at the usual port. The
 * file's token goes to the file's address and to no other.
 */
function findPlace(config: Config): Place {
  const { controlUrl, adminToken, dataDir, controlPort } = config;
  const path = join(dataDir, CONTROL_FILE_NAME);
  const own = { token: adminToken, tokenFrom: "RELAI_ADMIN_TOKEN" };
  if (controlUrl !== undefined) {
    const named = { url: controlUrl, from: "RELAI_CONTROL_URL" };
    if (adminToken !== undefined) return { ...named, ...own };
    const found = parseControlFile(readSecretFile(path) ?? "");
    const isSame = found !== undefined && new URL(found.url).href === new URL(controlUrl).href;
    return { ...named, ...(isSame ? { token: found.token, tokenFrom: path } : own) };
  }
  const text = readSecretFile(path);
  if (text !== undefined) {
    const found = parseControlFile(text);
    if (!found) throw new CliError(2, `${path} is damaged; relai start writes it anew`);
    return { ...found, from: path, tokenFrom: path };
  }
  const url = `http://127.0.0.1:${controlPort}`;
  return { url, ...own, from: `no ${path}, so the usual address` };
}

/**
 * A client of the process that is running, or of the listener at the address that somebody gave with an option, who is sent
 * no token. Nothing is sent before the first call.
 */
export function createClient(
  clock: Clock,
  config: Config,
  given?: { readonly url: string; readonly from: string },
): Client {
  const place = given ? { ...given, token: undefined, tokenFrom: "" } : findPlace(config);

  async function send(method: string, path: string, sent: Sent): Promise<Response> {
    const headers: Record<string, string> = {};
    if (place.token !== undefined) headers["authorization"] = `Bearer ${place.token}`;
    if (sent.idempotencyKey !== undefined) headers["idempotency-key"] = sent.idempotencyKey;
    if (sent.body !== undefined) headers["content-type"] = "application/json";
    const abort = new AbortController();
    const request = fetch(place.url + path, {
      method,
      headers,
      redirect: "error",
      signal: abort.signal,
      ...(sent.body === undefined ? {} : { body: JSON.stringify(sent.body) }),
    }).catch(() => undefined);
    const response = await within(clock, ANSWER_MS_MAX, request);
    if (response === TIMED_OUT) {
      abort.abort();
      throw new CliError(2, `${place.url} did not answer within ${ANSWER_MS_MAX / 1000} s`);
    }
    if (response === undefined) {
      const where = `nothing answers at ${place.url} (${place.from})`;
      throw new CliError(2, `relai is not running: ${where}; ${HOW_TO_START}`);
    }
    if (!response.ok) throw await refusal(response, place);
    return response;
  }

  return {
    url: place.url,
    async call(method, path, sent = {}) {
      const response = await send(method, path, sent);
      const text = await within(clock, ANSWER_MS_MAX, response.text());
      if (text === TIMED_OUT) throw new CliError(2, `${place.url} did not finish its answer`);
      const read = OBJECT.safeParse(jsonOf(text));
      if (!read.success) throw notRelai(place);
      return read.data;
    },
    async *lines(method, path, sent) {
      const response = await send(method, path, sent);
      for await (const line of linesOf(response)) {
        const read = OBJECT.safeParse(jsonOf(line));
        if (!read.success) throw notRelai(place);
        const failed = ERROR_BODY.safeParse(read.data);
        if (failed.success) throw new CliError(1, failed.data.error.message);
        yield read.data;
      }
    },
  };
}

async function refusal(response: Response, place: Place): Promise<CliError> {
  const read = ERROR_BODY.safeParse(jsonOf(await response.text()));
  if (!read.success) return notRelai(place);
  const { message, code } = read.data.error;
  if (code !== "invalid_admin_token") return new CliError(1, message);
  const hint =
    place.token === undefined
      ? "set RELAI_ADMIN_TOKEN to the token of the process that runs there"
      : `the token (${place.tokenFrom}) is not the one of the process that runs there`;
  return new CliError(1, `${message}: ${hint}`);
}

function notRelai(place: Place): CliError {
  return new CliError(2, `what answers at ${place.url} is not relai's control API (${place.from})`);
}

async function* linesOf(response: Response): AsyncIterable<string> {
  const decoder = new TextDecoder();
  let rest = "";
  const body: AsyncIterable<Uint8Array> | null = response.body;
  if (body === null) return;
  for await (const bytes of body) {
    const pieces = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = pieces.pop() ?? "";
    yield* pieces;
    if (rest.length > LINE_LENGTH_MAX) throw new CliError(2, "the answer holds too long a line");
  }
  if (rest !== "")
    throw new CliError(1, "the answer ended in the middle; the process may have stopped");
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
