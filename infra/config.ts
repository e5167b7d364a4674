import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { z } from "zod";
import { KURRENT_URL } from "#infra/event-store/kurrent/url.ts";
import { LOG_LEVELS } from "./telemetry/log.ts";

/**
 * The settings: environment variables, or the same names in a JSON file; the environment wins, and an empty variable
 * counts as none. One schema says what each allows and what it is when nobody sets it. A message completes the sentence
 * "… must be …".
 */

/** A setting that relai cannot start with: one sentence that names it, what is wrong, and what is allowed. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

/** A text with a rule; what the parser turns into undefined is refused. */
function setting<Value>(allowed: string, parse: (text: string) => Value | undefined) {
  return z.string().transform((text, context) => {
    const value = parse(text);
    if (value !== undefined) return value;
    context.addIssue({ code: "custom", message: allowed });
    return z.NEVER;
  });
}

function whole(min: number, max: number, note = "") {
  return setting(`a whole number from ${min} to ${max}${note}`, (text) => {
    const value = /^(0|[1-9]\d{0,15})$/u.test(text) ? Number(text) : -1;
    return value >= min && value <= max ? value : undefined;
  });
}

function matching(pattern: RegExp, allowed: string) {
  return setting(allowed, (text) => (pattern.test(text) ? text : undefined));
}

const port = whole(0, 65_535, " (0 takes a free port)");
/** A time-out of a day is a mistake, and longer ones overflow timers. */
const milliseconds = whole(1, 86_400_000, " (milliseconds)");
const bytes = whole(1, 2 ** 40, " (bytes)");
const flag = setting("1 or 0", (text) => (text === "1" ? true : text === "0" ? false : undefined));

/** Whether a URL's host name stands for this machine. */
export function isThisMachine(hostname: string): boolean {
  return /^(localhost|127(\.\d+){3}|\[::1\])$/u.test(hostname);
}

/** `localhost` may be two addresses, and a listener has one. */
const address = setting("an IP address or localhost", (text) => {
  if (text === "localhost") return "127.0.0.1";
  return isIP(text) === 0 ? undefined : text;
});

const url = setting(
  "a URL with https, or with http to this machine (localhost, 127.…, [::1]), without user name, query or fragment",
  (text) => {
    const parsed = URL.parse(text);
    if (parsed === null || parsed.username !== "" || parsed.password !== "" || /[?#]/u.test(text))
      return undefined;
    const { protocol, hostname } = parsed;
    if (protocol !== "https:" && !(protocol === "http:" && isThisMachine(hostname)))
      return undefined;
    // Base URLs end without a slash.
    return parsed.href.replace(/\/+$/u, "");
  },
);

/** What may stand in a user and a password. Anything else would make the rest of them a part of the host, or of the list. */
const WORD = String.raw`(?:[^\s:@/?#,%[\]\\]|%[\da-f]{2})*`;
const REDIS_URL = new RegExp(
  String.raw`^rediss?://(?:${WORD}:${WORD}@)?(?:[\w.-]+|\[[\da-f:.]+\]):(?<port>\d{1,5})(?:/\d{0,5})?$`,
  "iu",
);

function isRedisUrl(text: string): boolean {
  const port = Number(REDIS_URL.exec(text)?.groups?.["port"]);
  return port >= 1 && port <= 65_535;
}

/** A collector may be anywhere, and be asked with a user name or a query: {@link shown} leaves those out. */
const collector = setting("a URL with http or https, without fragment", (text) => {
  const parsed = URL.parse(text);
  return parsed && /^https?:$/u.test(parsed.protocol) && parsed.hash === "" ? text : undefined;
});

/**
 * What each setting allows, and its default. Units stand last; times are milliseconds. A setting's variable is its name
 * in capitals: {@link variableOf}.
 */
const SETTINGS = z.object({
  dataDir: matching(/^[^\0]+$/u, "a path").default("./.relai"),
  /** Exactly one, until a second region is built. */
  regions: setting("one name such as us; this version runs a single region", (text) =>
    /^[a-z][a-z0-9-]{0,15}$/u.test(text) ? [text] : undefined,
  ).default(["us"]),
  gatewayPort: port.default(8080),
  internalPort: port.default(8070),
  controlPort: port.default(8090),
  simulatorPort: port.default(8099),
  /** 1 while everything is embedded, else 0. */
  demo: flag.optional(),
  /** EventStoreDB or KurrentDB, which takes a Redis too; undefined keeps events in a file of the data folder. */
  eventstoreUrl: matching(
    KURRENT_URL,
    "a URL esdb://user:password@host:2113, with user and password percent-encoded",
  ).optional(),
  /** Lets that URL say tls=false: events and password then travel in plain text. */
  eventstoreInsecure: flag.default(false),
  /** Where EventStoreDB or KurrentDB is installed; used only by a start that is to find servers. */
  eventstoreHome: matching(/^[^\0]+$/u, "a path").optional(),
  /** Redis or Valkey; undefined keeps admission and keys in the process's memory. */
  redisUrl: setting(
    "one or more URLs redis://[user:password@]host:port[/number] with commas between them; " +
      "in user and password what is no letter or digit must be percent-encoded",
    (text) => {
      const urls = text.split(",").map((each) => each.trim());
      return urls.every(isRedisUrl) ? urls : undefined;
    },
  ).optional(),
  redisCluster: flag.default(false),
  adminToken: matching(/^[\x21-\x7e]{16,256}$/u, "16 to 256 visible ASCII characters").optional(),
  openaiApiKey: matching(/^[\x21-\x7e]{1,512}$/u, "1 to 512 visible ASCII characters").optional(),
  openaiBaseUrl: url.default("https://api.openai.com/v1"),
  /** Where what `openaiBaseUrl` names processes; undefined where its address says so. */
  openaiArea: matching(/^[a-z][a-z0-9-]{0,15}$/u, "one name such as us, eu or global").optional(),
  /** The addresses that the gateway, the control API and the internal listener bind to. */
  bind: address.default("127.0.0.1"),
  controlBind: address.default("127.0.0.1"),
  internalBind: address.default("127.0.0.1"),
  /** Where the command line finds a running process; undefined looks into the data folder. */
  controlUrl: url.optional(),
  drainMs: whole(0, 86_400_000, " (milliseconds)").default(30_000),
  logLevel: setting(`one of ${LOG_LEVELS.join(", ")}`, (text) =>
    LOG_LEVELS.find((level) => level === text),
  ).default("info"),
  upstreamConnectMs: milliseconds.default(5_000),
  upstreamFirstByteMs: milliseconds.default(300_000),
  upstreamIdleMs: milliseconds.default(120_000),
  /** To one host, and the requests that wait for one of those connections. */
  upstreamConnectionsMax: whole(1, 65_535).default(512),
  upstreamWaitingMax: whole(0, 65_535).default(512),
  /** How long and how far an answer is read on after its client left. */
  readOnMs: milliseconds.default(600_000),
  readOnBytes: bytes.default(64 * 1024 * 1024),
  /** Of one request's body. */
  bodyBytesMax: bytes.default(20 * 1024 * 1024),
  /** Of one answer that is not streamed. */
  answerBytesMax: bytes.default(64 * 1024 * 1024),
  /** How deep a request's JSON may nest. */
  bodyDepthMax: whole(1, 1_000).default(64),
  /** Bodies and buffered answers of one process together; beyond it requests are refused as `overloaded`. */
  inFlightBytesMax: bytes.default(256 * 1024 * 1024),
  /** By the rules of OpenTelemetry, so no value of these two is wrong: {@link tracesUrlOf}. */
  otelSdkDisabled: z.string().optional(),
  otelTracesExporter: z.string().optional(),
  otelExporterOtlpEndpoint: collector.optional(),
  otelExporterOtlpTracesEndpoint: collector.optional(),
});

type Settings = Readonly<z.infer<typeof SETTINGS>> & { readonly demo: boolean };
type SettingName = keyof Settings;
/** `found`: a server that a start found by itself. */
type SettingSource = "default" | "environment" | "file" | "found";

/** Every setting in force, and where those that somebody set come from. */
export interface Config extends Settings {
  readonly sources: ReadonlyMap<SettingName, SettingSource>;
}

/** Their values are never shown when they are wrong, and of those that are right no more than where a server is. */
const SECRETS: ReadonlySet<SettingName> = new Set([
  "adminToken",
  "openaiApiKey",
  "eventstoreUrl",
  "redisUrl",
] as const);

/**
 * Where traces are sent to; undefined where nobody asked for them. The endpoint for traces is used as it stands, behind the
 * general one comes `v1/traces`; `OTEL_SDK_DISABLED` and `OTEL_TRACES_EXPORTER` can take it back.
 */
export function tracesUrlOf(config: Config): string | undefined {
  const { otelSdkDisabled = "", otelTracesExporter = "otlp" } = config;
  if (otelSdkDisabled.trim().toLowerCase() === "true") return undefined;
  if (!otelTracesExporter.split(",").some((name) => name.trim() === "otlp")) return undefined;
  if (config.otelExporterOtlpTracesEndpoint !== undefined)
    return config.otelExporterOtlpTracesEndpoint;
  if (config.otelExporterOtlpEndpoint === undefined) return undefined;
  const url = new URL(config.otelExporterOtlpEndpoint);
  url.pathname = `${url.pathname.replace(/\/$/u, "")}/v1/traces`;
  return url.href;
}

/** The address of a collector may carry a credential. */
const isCollector = (name: SettingName) => name.startsWith("otelExporterOtlp");

/** The variable of a setting: of `drainMs` it is RELAI_DRAIN_MS, of `openaiArea` it is OPENAI_AREA. */
function variableOf(name: SettingName): string {
  const capitals = name.replaceAll(/[A-Z]/g, "_$&").toUpperCase();
  return /^(OPENAI|OTEL)_/u.test(capitals) ? capitals : `RELAI_${capitals}`;
}

const NAMES = Object.keys(SETTINGS.shape) as SettingName[];
const BY_VARIABLE = new Map(NAMES.map((name) => [variableOf(name), name]));

/**
 * Reads and checks every setting. `file` is the path given with `--config`. Throws `ConfigError` for a value that is
 * not allowed, for a `RELAI_…` name that is no setting (most likely a slip of the pen), and for a file that cannot be
 * read; never with a secret in its message.
 */
export function readConfig(from: {
  env: Readonly<Record<string, string | undefined>>;
  file?: string | undefined;
}): Config {
  const given: Partial<Record<SettingName, string>> = {};
  const sources = new Map<SettingName, SettingSource>();
  const inFile = ` in ${from.file}`;
  function take(variable: string, text: string, source: SettingSource): void {
    const name = BY_VARIABLE.get(variable);
    if (name === undefined) {
      const where = source === "file" ? inFile : "";
      throw new ConfigError(
        `${variable}${where} is not a setting of relai; the nearest is ${nearest(variable)}.`,
      );
    }
    given[name] = text;
    sources.set(name, source);
  }
  for (const [variable, text] of from.file === undefined ? [] : fileEntries(from.file))
    take(variable, text, "file");
  for (const [variable, text] of Object.entries(from.env)) {
    const isOurs = variable.startsWith("RELAI_") || BY_VARIABLE.has(variable);
    if (isOurs && text) take(variable, text, "environment");
  }
  const { data: settings, error } = SETTINGS.safeParse(given);
  if (error) {
    const [issue] = error.issues;
    const name = issue?.path[0] as SettingName;
    const where = sources.get(name) === "file" ? inFile : "";
    const is = isShowable(name, given[name] ?? "") ? `is "${given[name]}" but ` : "";
    throw new ConfigError(`${variableOf(name)}${where} ${is}must be ${issue?.message}.`);
  }
  checkTogether(settings);
  const { demo = settings.eventstoreUrl === undefined && settings.redisUrl === undefined } =
    settings;
  return { ...settings, demo, sources };
}

/** What a process logs when it starts, and `relai config` shows: every setting in force, with its source. A value is null when there is none. */
export function describeConfig(
  config: Config,
): { name: string; value: string | null; source: SettingSource }[] {
  return NAMES.map((name) => {
    const value = config[name];
    return {
      name: variableOf(name),
      value: value === undefined ? null : shown(name, value),
      source: config.sources.get(name) ?? "default",
    };
  });
}

function shown(name: SettingName, value: Settings[SettingName]): string {
  if (name === "eventstoreUrl" || name === "redisUrl")
    return [value].flat().map(serverIn).join(",");
  if (SECRETS.has(name)) return "(hidden)";
  if (typeof value === "boolean") return String(Number(value));
  if (!isCollector(name)) return String(value);
  const { origin, pathname } = new URL(String(value));
  return `${origin}${pathname}`;
}

/** A server's address without user, password and options; nothing of one in which they could be elsewhere. */
function serverIn(url: unknown): string {
  const parts = /^([a-z+]+:\/\/)(?:[^@/?#]*@)?([^@/?#]+(?:\/\d+)?)(?:[/?#][^@]*)?$/u.exec(
    String(url),
  );
  const [, scheme, hosts] = parts ?? [];
  return scheme === undefined || hosts === undefined ? "(hidden)" : scheme + hosts;
}

function fileEntries(file: string): [string, string][] {
  let content: unknown;
  try {
    content = JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    // JSON.parse's own message would quote the file, and a file of settings holds secrets.
    const isNoJson = error instanceof SyntaxError || !(error instanceof Error);
    const why = isNoJson ? "it is not JSON" : error.message;
    throw new ConfigError(`The settings file ${file} cannot be read: ${why}.`);
  }
  if (typeof content !== "object" || content === null || Array.isArray(content)) {
    throw new ConfigError(
      `The settings file ${file} must hold one JSON object of setting names and values.`,
    );
  }
  return Object.entries(content).map(([name, value]: [string, unknown]) => {
    if (typeof value === "string" || typeof value === "number") return [name, String(value)];
    // OpenTelemetry knows `true` only as a word.
    if (typeof value === "boolean") {
      return [name, name.startsWith("OTEL_") ? String(value) : value ? "1" : "0"];
    }
    throw new ConfigError(`${name} in ${file} must be a text, a number, true or false.`);
  });
}

/** A wrong value helps to find the slip, unless a credential has slipped into the wrong place. */
function isShowable(name: SettingName, text: string): boolean {
  return (
    !SECRETS.has(name) &&
    !isCollector(name) &&
    /^[\w.:,\- ]{1,32}$/u.test(text) &&
    !/sk[-_]/u.test(text)
  );
}

/** What no single setting can say for itself. */
function checkTogether(settings: z.infer<typeof SETTINGS>): void {
  const taken = new Map<number, string>();
  for (const name of ["gatewayPort", "internalPort", "controlPort", "simulatorPort"] as const) {
    const port = settings[name];
    const other = taken.get(port);
    if (port !== 0 && other !== undefined) {
      throw new ConfigError(
        `${variableOf(name)} is ${port} but must be another port than ${other}.`,
      );
    }
    taken.set(port, variableOf(name));
  }
  const { bodyBytesMax, inFlightBytesMax, eventstoreUrl, redisUrl, redisCluster } = settings;
  if (redisCluster && redisUrl?.some((url) => /\/0*[1-9]\d*$/u.test(url))) {
    throw new ConfigError("RELAI_REDIS_URL must be without /number: a cluster has one database.");
  }
  if (eventstoreUrl !== undefined && redisUrl === undefined) {
    throw new ConfigError(
      "RELAI_EVENTSTORE_URL is set and RELAI_REDIS_URL is not: set both, or RELAI_REDIS_URL alone to keep events in the data folder.",
    );
  }
  if (bodyBytesMax > inFlightBytesMax) {
    throw new ConfigError(
      `RELAI_BODY_BYTES_MAX is ${bodyBytesMax} but must be at most ` +
        `RELAI_IN_FLIGHT_BYTES_MAX, which is ${inFlightBytesMax}.`,
    );
  }
}

/** The variable whose name needs the fewest letters changed (Levenshtein's distance). */
function nearest(variable: string): string {
  return [...BY_VARIABLE.keys()].reduce((best, each) =>
    distance(variable, each) < distance(variable, best) ? each : best,
  );
}

function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let index = 0; index < a.length; index += 1) {
    const next = [index + 1];
    for (let column = 1; column <= b.length; column += 1) {
      const changed = (row[column - 1] ?? 0) + (a[index] === b[column - 1] ? 0 : 1);
      next.push(Math.min(changed, (row[column] ?? 0) + 1, (next[column - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
