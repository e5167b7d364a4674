import { pino } from "pino";
import type { DestinationStream } from "pino";

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Ids, numbers and fixed words; never text of a caller or an upstream. */
type Fact = string | number | boolean | null | undefined;
export type LogFacts = Readonly<Record<string, Fact | Readonly<Record<string, Fact>>>>;

/** The message is a fixed text; `error` is what was thrown, if something was. */
export type LogLine = (facts: LogFacts, message: string, error?: unknown) => void;

export interface Log {
  readonly info: LogLine;
  readonly warn: LogLine;
  readonly error: LogLine;
}

/** What a reader of the log that stands still may make us keep; lines beyond it are lost, not the service. */
const BACKLOG_BYTES_MAX = 1024 * 1024;

/**
 * One JSON object a line, to stderr unless another destination is given. Nobody who writes here may hand in a
 * credential, a prompt or an answer; that each line is searched for what looks like a credential is a second line of
 * defence, not a permission. Lines written just before the process exits still go out.
 */
export function createLog(options: { level: LogLevel; destination?: DestinationStream }): Log {
  const destination =
    options.destination ?? pino.destination({ dest: 2, sync: false, maxLength: BACKLOG_BYTES_MAX });
  const logger = pino(
    {
      level: options.level,
      base: { pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: errorFacts },
      hooks: { streamWrite: hideCredentials },
    },
    destination,
  );
  const at =
    (level: keyof Log): LogLine =>
    (facts, message, error) =>
      logger[level](error === undefined ? facts : { ...facts, err: error }, message);
  return { info: at("info"), warn: at("warn"), error: at("error") };
}

/** A member whose name speaks of a credential, with a text for a value: `"authorization":"…"`. */
const CREDENTIAL_MEMBER =
  /("[^"\\]*(?:authorization|api[-_]?key|secret|password|token|cookie|credential)[^"\\]*":)"(?:[^"\\]|\\.)*"/giu;
/** Our keys, those of providers, bearer tokens; each may follow an escaped line break, which ends in a letter. */
const CREDENTIAL_TEXT =
  /(?:(?<![A-Za-z0-9])|(?<=\\[bfnrt]))(?:(?:relai_sk_|sk-|rk-|AIza|AKIA)[\w-]{8,}|bearer\s+[^\s"\\]+)/giu;
const URL_USER = /:\/\/[^/\s"@]+@/gu;

/** Takes out of a line of JSON everything that looks like a credential; what is left is JSON still. */
function hideCredentials(line: string): string {
  return line
    .replace(CREDENTIAL_MEMBER, '$1"[hidden]"')
    .replace(CREDENTIAL_TEXT, "[hidden]")
    .replace(URL_USER, "://[hidden]@");
}

/** Errors whose message quotes what they were given: `JSON.parse` shows the beginning of a prompt. */
const QUOTING_ERRORS: ReadonlySet<string> = new Set(["SyntaxError", "AssertionError", "ZodError"]);

function errorFacts(error: unknown): Record<string, unknown> {
  if (!(error instanceof Error)) return { type: typeof error };
  const frames = error.stack?.split("\n").filter((line) => line.startsWith("    at "));
  return {
    type: error.name,
    ...("code" in error ? { code: error.code } : {}),
    message: QUOTING_ERRORS.has(error.name) ? "[hidden: it may quote its input]" : error.message,
    stack: frames?.join("\n"),
  };
}
