import { isIP } from "node:net";

/** The address of an event store server, taken apart so that no text with a password in it goes any further. */
export interface KurrentAddress {
  /** What the client is given: the URL without user and password. */
  readonly connection: string;
  readonly credentials: { readonly username: string; readonly password: string };
}

const HOST = String.raw`[\w.-]+(:\d{1,5})?`;

/** What is none of this is mostly a password with a character that ends it in a URL; so nothing is guessed. */
export const KURRENT_URL = new RegExp(
  String.raw`^(?<scheme>esdb(\+discover)?:\/\/)((?<user>[^\s:@/?]+):(?<password>[^\s:@/?]*)@)?` +
    String.raw`(?<hosts>${HOST}(,${HOST})*\/?)(\?(?<options>[^\s@]*))?$`,
  "u",
);

const WHOLE = ["a whole number", /^\d{1,9}$/u] as const;
const ANYTHING = ["a text", /./u] as const;

/**
 * The options that the client knows and that change no meaning of an append, with what each may be, so that the client has
 * nothing to say about a value: it would quote it. Of others it only warns, on the console.
 */
const OPTIONS: Readonly<Record<string, readonly [must: string, be: RegExp]>> = {
  tls: ["true or false", /^(true|false)$/u],
  tlsCAFile: ANYTHING,
  userCertFile: ANYTHING,
  userKeyFile: ANYTHING,
  connectionName: ANYTHING,
  nodePreference: [
    "leader, follower, read_only_replica or random",
    /^(leader|follower|read[_-]?only[_-]?replica|random)$/iu,
  ],
  discoveryInterval: WHOLE,
  gossipTimeout: WHOLE,
  maxDiscoverAttempts: WHOLE,
  keepAliveInterval: WHOLE,
  keepAliveTimeout: WHOLE,
};
/** As the client compares them. */
const flat = (name: string) => name.trim().toLowerCase().replaceAll(/[_-]/g, "");
const NAMES = new Map(Object.keys(OPTIONS).map((name) => [flat(name), name]));

/**
 * Reads `esdb://user:password@host:port?option=value`, with several hosts or `esdb+discover://` for a cluster.
 * @throws when it is none, when it asks for plain text although `insecure` does not allow that, when it has no user
 * although the server will ask for one, and for options that this adapter does not take; over TLS also for a host that
 * is an IP address, because the client would send it as the server's name, which Node refuses. No message quotes the URL.
 */
export function readKurrentUrl(url: string, insecure: boolean): KurrentAddress {
  const parts = KURRENT_URL.exec(url.trim())?.groups;
  if (!parts)
    throw new TypeError(
      "the event store's URL must be esdb://user:password@host:port?options, with user and password percent-encoded",
    );
  const { scheme, user, password, hosts, options } = parts;
  let isPlain = false;
  for (const option of options?.split("&") ?? []) {
    const [, key = "", value = ""] = /^([^=]*)=?(.*)$/u.exec(option) ?? [];
    const name = NAMES.get(flat(key));
    const [must, be] = OPTIONS[name ?? ""] ?? [];
    if (!be)
      throw new TypeError(
        `the event store's URL has an option that is none of ${[...NAMES.values()].join(", ")}`,
      );
    if (!be.test(value.trim()))
      throw new TypeError(`the option ${name} of the event store's URL must be ${must}`);
    if (name === "tls" && value.trim() === "false") isPlain = true;
  }
  if (isPlain && !insecure)
    throw new TypeError("tls=false sends events in plain text: only where that is asked for");
  if (!isPlain && user === undefined)
    throw new TypeError("the event store's URL needs a user and a password");
  if (!isPlain && hosts?.split(",").some((host) => isIP(host.replace(/[:/].*$/u, "")) !== 0))
    throw new TypeError("over TLS the event store's host must be a name, not an IP address");
  return {
    connection: `${scheme}${hosts}${options === undefined ? "" : `?${options}`}`,
    // In plain text the client sends none; that some are given is what chooses the unary path.
    credentials: { username: decoded(user ?? "relai"), password: decoded(password ?? "relai") },
  };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new TypeError("user and password in the event store's URL must be percent-encoded");
  }
}
