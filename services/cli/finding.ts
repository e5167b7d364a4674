import { sha256Hex } from "#domain/hash.ts";
import { parseKeyText } from "#domain/key-text.ts";
import { listView } from "#services/control/views.ts";
import type { Client } from "./client.ts";
import { read, type KeySeen } from "./readers.ts";
import { CliError } from "./world.ts";

/** How commands find what is meant: whole lists, the only organization, one key. */

type Answer = Readonly<Record<string, unknown>>;

const PAGES_MAX = 1_000;

/** All pages of a list, as one list. */
export async function listAll(
  client: Client,
  path: string,
): Promise<Answer & { readonly data: readonly Answer[] }> {
  const data: ({ readonly id: string } & Answer)[] = [];
  const parameters = `${path.includes("?") ? "&" : "?"}limit=100`;
  let after = "";
  for (let page = 0; page < PAGES_MAX; page++) {
    const list = read.list(await client.call("GET", path + parameters + after));
    data.push(...list.data);
    if (!list.has_more || list.last_id === null) return listView(data, false);
    after = `&after=${encodeURIComponent(list.last_id)}`;
  }
  throw new CliError(1, "the list is too long to show");
}

/** The organization that is meant: the one named, or the only one there is. */
export async function organizationOf(client: Client, named: string | undefined): Promise<string> {
  if (named !== undefined) return named;
  const { data } = read.list(await client.call("GET", "/v1/orgs?limit=2"));
  const [only, another] = data;
  if (only === undefined) throw new CliError(2, "no organizations yet: relai org create <name>");
  if (another !== undefined)
    throw new CliError(2, "there are several organizations: say which (relai org list shows them)");
  return only.id;
}

/** The id of the key that is meant by an id, by the form that lists show or its beginning, or by the key's own text. */
export async function keyIdOf(client: Client, which: string): Promise<string> {
  if (/^key_[0-9A-Z]+$/i.test(which))
    return which.slice(0, 4).toLowerCase() + which.slice(4).toUpperCase();
  // The text of the key stays here: only its digest is sent, which is all that relai knows of it.
  if (parseKeyText(which).ok) {
    const found = await listAll(client, `/v1/keys?token_sha256=${sha256Hex(which)}`);
    return onlyKey(found.data.map(read.key));
  }
  const [shown = "", last = ""] = which.split("…");
  const found = await listAll(client, "/v1/keys");
  const keys = found.data.map(read.key);
  return onlyKey(
    keys.filter(
      ({ display_prefix: prefix }) =>
        shown.length > 0 && (prefix.split("…")[0] ?? "").startsWith(shown) && prefix.endsWith(last),
    ),
  );
}

/** A whole key with a slip in it could be quoted by accident, so no message says what was asked for. */
function onlyKey(keys: readonly KeySeen[]): string {
  const [only, another] = keys;
  if (only === undefined) throw new CliError(1, "no such key (relai key list shows them)");
  if (another !== undefined) {
    const ids = keys
      .slice(0, 5)
      .map(({ id }) => id)
      .join(", ");
    throw new CliError(2, `several keys match: say which by its id (${ids})`);
  }
  return only.id;
}
