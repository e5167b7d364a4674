import { isIP } from "node:net";
import { z } from "zod";
import { LOG_LEVELS } from "./log.ts";

/** What each setting allows, and its default. A message completes the sentence "… must be …". */

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
    return parsed.href.replace(/\/+$/u, "");
  },
);

/** Every setting of relai by its name. Units stand last; times are milliseconds. */
export const SETTINGS = z.strictObject({
  RELAI_DATA_DIR: matching(/^[^\0]+$/u, "a path").default("./.relai"),
  RELAI_REGIONS: setting("one name such as us; this version runs a single region", (text) =>
    /^[a-z][a-z0-9-]{0,15}$/u.test(text) ? [text] : undefined,
  ).default(["us"]),
  RELAI_GATEWAY_PORT: port.default(8080),
  RELAI_INTERNAL_PORT: port.default(8070),
  RELAI_CONTROL_PORT: port.default(8090),
  RELAI_SIMULATOR_PORT: port.default(8099),
  RELAI_DEMO: setting("1 or 0", (text) =>
    text === "1" ? true : text === "0" ? false : undefined,
  ).default(true),
  RELAI_ADMIN_TOKEN: matching(
    /^[\x21-\x7e]{16,256}$/u,
    "16 to 256 visible ASCII characters",
  ).optional(),
  OPENAI_API_KEY: matching(/^[\x21-\x7e]{1,512}$/u, "1 to 512 visible ASCII characters").optional(),
  OPENAI_BASE_URL: url.default("https://api.openai.com/v1"),
  OPENAI_AREA: matching(/^[a-z][a-z0-9-]{0,15}$/u, "one name such as us, eu or global").optional(),
  RELAI_BIND: address.default("127.0.0.1"),
  RELAI_CONTROL_BIND: address.default("127.0.0.1"),
  RELAI_INTERNAL_BIND: address.default("127.0.0.1"),
  RELAI_CONTROL_URL: url.optional(),
  RELAI_DRAIN_MS: whole(0, 86_400_000, " (milliseconds)").default(30_000),
  RELAI_LOG_LEVEL: setting(`one of ${LOG_LEVELS.join(", ")}`, (text) =>
    LOG_LEVELS.find((level) => level === text),
  ).default("info"),
  RELAI_UPSTREAM_CONNECT_MS: milliseconds.default(5_000),
  RELAI_UPSTREAM_FIRST_BYTE_MS: milliseconds.default(300_000),
  RELAI_UPSTREAM_IDLE_MS: milliseconds.default(120_000),
  RELAI_UPSTREAM_CONNECTIONS_MAX: whole(1, 65_535).default(512),
  RELAI_UPSTREAM_WAITING_MAX: whole(0, 65_535).default(512),
  RELAI_READ_ON_MS: milliseconds.default(600_000),
  RELAI_READ_ON_BYTES: bytes.default(64 * 1024 * 1024),
  RELAI_BODY_BYTES_MAX: bytes.default(20 * 1024 * 1024),
  RELAI_ANSWER_BYTES_MAX: bytes.default(64 * 1024 * 1024),
  RELAI_BODY_DEPTH_MAX: whole(1, 1_000).default(64),
  RELAI_IN_FLIGHT_BYTES_MAX: bytes.default(256 * 1024 * 1024),
});

export type Settings = z.infer<typeof SETTINGS>;
export type SettingName = keyof Settings;

/** Their values are never shown, not even when they are wrong. */
export const SECRETS: ReadonlySet<string> = new Set<SettingName>([
  "RELAI_ADMIN_TOKEN",
  "OPENAI_API_KEY",
]);
