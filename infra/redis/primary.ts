/** What a Redis server says of itself, as far as it decides where money is taken. */
export interface ServerFacts {
  readonly isPrimary: boolean;
  /** Its replication id: another one whenever it may have lost writes. A replica says its primary's. */
  readonly id: string;
  /** The id that it had before: of a replica that was promoted, the id of the primary whose place it took. */
  readonly idBefore: string | undefined;
  readonly evictionPolicy: string | undefined;
}

/** Reads `INFO replication memory`. Throws where no replication id is in it. */
export function serverFacts(info: string): ServerFacts {
  const valueOf = (name: string) => new RegExp(`^${name}:(\\S+)`, "m").exec(info)?.[1];
  const id = valueOf("master_replid");
  if (id === undefined) throw new Error("the Redis server does not say its replication id");
  return {
    isPrimary: valueOf("role") === "master",
    id,
    idBefore: valueOf("master_replid2"),
    evictionPolicy: valueOf("maxmemory_policy"),
  };
}

/**
 * Of the servers that answer the one to speak to, where the newest owner has named `meant`: the primary that was promoted
 * in the place of one of these, else the primary that is one of these, else the only primary whose place no other took;
 * undefined where none of it holds. Everybody who asks the same servers finds the same one, in whatever order the addresses
 * are given.
 */
export function primaryAmong<Of extends ServerFacts>(
  servers: readonly Of[],
  meant: readonly string[],
): Of | undefined {
  const primaries = servers
    .filter(({ isPrimary }) => isPrimary)
    .sort((one, other) => (one.id < other.id ? -1 : Number(one.id > other.id)));
  const last = primaries.filter(({ id }) => primaries.every(({ idBefore }) => idBefore !== id));
  return (
    primaries.find(({ idBefore }) => idBefore !== undefined && meant.includes(idBefore)) ??
    primaries.find(({ id }) => meant.includes(id)) ??
    // Two addresses may lead to one server.
    (last.every(({ id }) => id === last[0]?.id) ? last[0] : undefined)
  );
}

/** Throws where a server may throw keys away when it is full: what it threw away would look as if it had never been. */
export function assertKeepsAll({ evictionPolicy = "not said" }: ServerFacts): void {
  if (evictionPolicy !== "noeviction")
    throw new Error(
      `the Redis server's maxmemory-policy is ${evictionPolicy}; it must be noeviction`,
    );
}
