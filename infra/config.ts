import { readFileSync } from "node:fs";
import type { z } from "zod";
import { SECRETS, SETTINGS } from "./config-schema.ts";
import type { SettingName, Settings } from "./config-schema.ts";
import type { LogLevel } from "./log.ts";

/**
 * The settings: environment variables, or the same names in a JSON file; the environment wins, and an empty variable
 * counts as none. One schema says what each allows and what it is when nobody sets it.
 */

/** A setting that relai cannot start with: one sentence that names it, what is wrong, and what is allowed. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

export type SettingSource = "default" | "environment" | "file";

const NAMES = Object.keys(SETTINGS.shape) as SettingName[];

export interface Config {
  readonly dataDir: string;
  /** Exactly one, until a second region is built. */
  readonly regions: readonly string[];
  /** 0 takes a free port, here and below. */
  readonly gatewayPort: number;
  readonly internalPort: number;
  readonly controlPort: number;
  readonly simulatorPort: number;
  readonly demo: boolean;
  readonly adminToken: string | undefined;
  readonly openaiApiKey: string | undefined;
  /** Base URLs end without a slash. */
  readonly openaiBaseUrl: string;
  /** Where what `openaiBaseUrl` names processes; undefined where its address says so. */
  readonly openaiArea: string | undefined;
  /** The addresses that the gateway, the control API and the internal listener bind to. */
  readonly bind: string;
  readonly controlBind: string;
  readonly internalBind: string;
  /** Where the command line finds a running process; undefined looks into the data folder. */
  readonly controlUrl: string | undefined;
  readonly drainMs: number;
  readonly logLevel: LogLevel;
  readonly upstreamConnectMs: number;
  readonly upstreamFirstByteMs: number;
  readonly upstreamIdleMs: number;
  /** To one host. */
  readonly upstreamConnectionsMax: number;
  /** Requests that wait for one of those connections. */
  readonly upstreamWaitingMax: number;
  /** How long and how far an answer is read on after its client left. */
  readonly readOnMs: number;
  readonly readOnBytes: number;
  /** Of one request's body, and how deep its JSON may nest. */
  readonly bodyBytesMax: number;
  readonly bodyDepthMax: number;
  /** Of one answer that is not streamed. */
  readonly answerBytesMax: number;
  /** Bodies and buffered answers of one process together; beyond it requests are refused as `overloaded`. */
  readonly inFlightBytesMax: number;
  readonly sources: ReadonlyMap<string, SettingSource>;
  readonly settings: Readonly<Settings>;
}

/**
 * Reads and checks every setting. `file` is the path given with `--config`. Throws `ConfigError` for a value that is
 * not allowed, for a `RELAI_…` name that is no setting (most likely a slip of the pen), and for a file that cannot be
 * read; never with a secret in its message.
 */
export function readConfig(from: {
  env: Readonly<Record<string, string | undefined>>;
  file?: string | undefined;
}): Config {
  const given: Record<string, string> = {};
  const sources = new Map<string, SettingSource>(NAMES.map((name) => [name, "default"]));
  for (const [name, text] of from.file === undefined ? [] : fileEntries(from.file)) {
    given[name] = text;
    sources.set(name, "file");
  }
  for (const [name, text] of Object.entries(from.env)) {
    if (text === undefined || text === "" || !(name.startsWith("RELAI_") || sources.has(name)))
      continue;
    given[name] = text;
    sources.set(name, "environment");
  }
  const parsed = SETTINGS.safeParse(given);
  if (!parsed.success) throw new ConfigError(sentence(parsed.error, given, sources, from.file));
  checkTogether(parsed.data);
  return { ...named(parsed.data), sources, settings: parsed.data };
}

/** What `relai config` and the control API tell: every setting in force, with its source. A value is null when there is none. */
export function describeConfig(
  config: Config,
): { name: string; value: string | null; source: SettingSource }[] {
  return NAMES.map((name) => {
    const value = config.settings[name];
    const shown = SECRETS.has(name)
      ? "(hidden)"
      : typeof value === "boolean"
        ? value
          ? "1"
          : "0"
        : String(value);
    return {
      name,
      value: value === undefined ? null : shown,
      source: config.sources.get(name) ?? "default",
    };
  });
}

function fileEntries(file: string): [string, string][] {
  let content: unknown;
  try {
    content = JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    // JSON.parse's own message would quote the file, and a file of settings holds secrets.
    const why =
      error instanceof SyntaxError
        ? "it is not JSON"
        : error instanceof Error
          ? error.message
          : "no reason given";
    throw new ConfigError(`The settings file ${file} cannot be read: ${why}.`);
  }
  if (typeof content !== "object" || content === null || Array.isArray(content)) {
    throw new ConfigError(
      `The settings file ${file} must hold one JSON object of setting names and values.`,
    );
  }
  return Object.entries(content).map(([name, value]: [string, unknown]) => {
    if (typeof value === "string" || typeof value === "number") return [name, String(value)];
    if (typeof value === "boolean") return [name, value ? "1" : "0"];
    throw new ConfigError(`${name} in ${file} must be a text, a number, true or false.`);
  });
}

/** One sentence for the first thing that is wrong. */
function sentence(
  error: z.ZodError,
  given: Readonly<Record<string, string>>,
  sources: ReadonlyMap<string, SettingSource>,
  file: string | undefined,
): string {
  const [issue] = error.issues;
  const name = String(issue?.code === "unrecognized_keys" ? issue.keys[0] : issue?.path[0]);
  const where = sources.get(name) === "file" ? ` in ${file}` : "";
  if (issue?.code === "unrecognized_keys") {
    return `${name}${where} is not a setting of relai; the nearest is ${nearest(name)}.`;
  }
  const shown = showable(name, given[name] ?? "");
  return `${name}${where} ${shown === undefined ? "" : `is ${shown} but `}must be ${issue?.message}.`;
}

/** A wrong value helps to find the slip, unless a credential has slipped into the wrong place. */
function showable(name: string, text: string): string | undefined {
  const harmless = /^[\w.:,\- ]{1,32}$/u.test(text) && !/sk[-_]/u.test(text);
  return harmless && !SECRETS.has(name) ? `"${text}"` : undefined;
}

/** What no single setting can say for itself. */
function checkTogether(settings: Settings): void {
  const ports = [
    "RELAI_GATEWAY_PORT",
    "RELAI_INTERNAL_PORT",
    "RELAI_CONTROL_PORT",
    "RELAI_SIMULATOR_PORT",
  ] as const;
  const taken = new Map<number, string>();
  for (const name of ports) {
    const other = taken.get(settings[name]);
    if (settings[name] !== 0 && other !== undefined) {
      throw new ConfigError(`${name} is ${settings[name]} but must be another port than ${other}.`);
    }
    taken.set(settings[name], name);
  }
  if (settings.RELAI_BODY_BYTES_MAX > settings.RELAI_IN_FLIGHT_BYTES_MAX) {
    throw new ConfigError(
      `RELAI_BODY_BYTES_MAX is ${settings.RELAI_BODY_BYTES_MAX} but must be at most ` +
        `RELAI_IN_FLIGHT_BYTES_MAX, which is ${settings.RELAI_IN_FLIGHT_BYTES_MAX}.`,
    );
  }
}

function named(settings: Settings): Omit<Config, "sources" | "settings"> {
  return {
    dataDir: settings.RELAI_DATA_DIR,
    regions: settings.RELAI_REGIONS,
    gatewayPort: settings.RELAI_GATEWAY_PORT,
    internalPort: settings.RELAI_INTERNAL_PORT,
    controlPort: settings.RELAI_CONTROL_PORT,
    simulatorPort: settings.RELAI_SIMULATOR_PORT,
    demo: settings.RELAI_DEMO,
    adminToken: settings.RELAI_ADMIN_TOKEN,
    openaiApiKey: settings.OPENAI_API_KEY,
    openaiBaseUrl: settings.OPENAI_BASE_URL,
    openaiArea: settings.OPENAI_AREA,
    bind: settings.RELAI_BIND,
    controlBind: settings.RELAI_CONTROL_BIND,
    internalBind: settings.RELAI_INTERNAL_BIND,
    controlUrl: settings.RELAI_CONTROL_URL,
    drainMs: settings.RELAI_DRAIN_MS,
    logLevel: settings.RELAI_LOG_LEVEL,
    upstreamConnectMs: settings.RELAI_UPSTREAM_CONNECT_MS,
    upstreamFirstByteMs: settings.RELAI_UPSTREAM_FIRST_BYTE_MS,
    upstreamIdleMs: settings.RELAI_UPSTREAM_IDLE_MS,
    upstreamConnectionsMax: settings.RELAI_UPSTREAM_CONNECTIONS_MAX,
    upstreamWaitingMax: settings.RELAI_UPSTREAM_WAITING_MAX,
    readOnMs: settings.RELAI_READ_ON_MS,
    readOnBytes: settings.RELAI_READ_ON_BYTES,
    bodyBytesMax: settings.RELAI_BODY_BYTES_MAX,
    bodyDepthMax: settings.RELAI_BODY_DEPTH_MAX,
    answerBytesMax: settings.RELAI_ANSWER_BYTES_MAX,
    inFlightBytesMax: settings.RELAI_IN_FLIGHT_BYTES_MAX,
  };
}

/** The setting whose name needs the fewest letters changed (Levenshtein's distance). */
function nearest(name: string): string {
  const distances = NAMES.map((known) => ({ known, distance: distance(name, known) }));
  return distances.reduce((best, each) => (each.distance < best.distance ? each : best)).known;
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
