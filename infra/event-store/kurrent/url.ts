import { isIP } from "node:net";

/** The address of an event store server, taken apart so that no text with a password in it goes any further. */
export interface KurrentAddress {
  /** What the client is given: the URL without user and password. */
  readonly connection: string;
  readonly credentials: { readonly username: string; readonly password: string };
}

const SHAPE =
  /^(?<scheme>esdb(\+discover)?:\/\/)((?<user>[^:@/?]+):(?<password>[^:@/?]*)@)?(?<hosts>[^@?]+)(\?(?<options>.*))?$/u;

/** The options that the client knows and that change no meaning of an append. It only warns of others, on the console. */
const OPTIONS = new Set([
  "tls",
  "tlscafile",
  "usercertfile",
  "userkeyfile",
  "connectionname",
  "nodepreference",
  "discoveryinterval",
  "gossiptimeout",
  "maxdiscoverattempts",
  "keepaliveinterval",
  "keepalivetimeout",
]);

/**
 * Reads `esdb://user:password@host:port?option=value`, with several hosts or `esdb+discover://` for a cluster.
 * @throws when it is none, when it asks for plain text although `insecure` does not allow that, when it has no user
 * although the server will ask for one, and for options that this adapter does not take; over TLS also for a host that
 * is an IP address, because the client would send it as the server's name, which Node refuses. No message quotes the URL.
 */
export function readKurrentUrl(url: string, insecure: boolean): KurrentAddress {
  const parts = SHAPE.exec(url.trim())?.groups;
  if (!parts)
    throw new TypeError("the event store's URL must be esdb://user:password@host:port?options");
  const { scheme, user, password, hosts, options } = parts;
  let isPlain = false;
  for (const option of options?.split("&") ?? []) {
    const [key = "", value] = option.split("=");
    // As the client compares them.
    const name = key.trim().toLowerCase().replaceAll(/[_-]/g, "");
    if (!OPTIONS.has(name)) throw new TypeError(`the event store's URL takes no option ${key}`);
    if (name === "tls" && value?.trim() === "false") isPlain = true;
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
