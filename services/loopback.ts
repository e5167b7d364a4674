import type { IncomingMessage, RequestListener, Server, ServerResponse } from "node:http";
import { BlockList, isIPv6 } from "node:net";
import type { ApiError } from "./errors.ts";

/** 127.0.0.0/8 and ::1, in every way that they can be written. */
const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

const HOST = /^(localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/i;

const REFUSED = {
  Host: "A listener on loopback serves its own machine only: the Host must be localhost, 127.… or [::1]",
  Origin: "A listener on loopback serves its own machine only: no web page of another Origin",
} as const;

/**
 * Lets a server that listens on loopback serve this machine only. A page of the web can make a browser on this machine
 * call it, under a name of the page's own that leads to loopback (then Host is that name) or as itself (then Origin is
 * the page's). Both are handed to `refuse`, before anything else is done with the request. A server that listens on
 * another address is left as it is: whoever reaches it was meant to.
 */
export function guardLoopback(
  server: Server,
  address: string,
  refuse: (response: ServerResponse, error: ApiError) => void,
): void {
  const isV6 = isIPv6(address);
  if (!LOOPBACK.check(address, isV6 ? "ipv6" : "ipv4")) return;
  const ownName = new URL(`http://${isV6 ? `[${address}]` : address}`).hostname;
  // Almost every request names the same host and no origin: that is one comparison.
  let knownHost: string | undefined;
  const serve = server.listeners("request") as RequestListener[];
  server.removeAllListeners("request");
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    const { host, origin } = request.headers;
    if (host !== knownHost || origin !== undefined) {
      const foreign = foreignHeader(ownName, host, origin);
      if (foreign) return refuse(response, { code: "loopback_only", message: REFUSED[foreign] });
      knownHost = host;
    }
    for (const listener of serve) listener(request, response);
  });
}

/** A client of HTTP/1.0 may name no host; a browser always does. */
function foreignHeader(
  ownName: string,
  host: string | undefined,
  origin: string | undefined,
): keyof typeof REFUSED | undefined {
  if (host !== undefined && !HOST.test(host) && host.replace(/:\d{1,5}$/, "") !== ownName)
    return "Host";
  const isOwn = origin === undefined || (host !== undefined && origin === `http://${host}`);
  return isOwn ? undefined : "Origin";
}
