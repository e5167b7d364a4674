import { findServer, type Environment, type Kind, type Source } from "#infra/backing/find.ts";

/**
 * Finds a server for tests; one that is there already is named by RELAI_TEST_REDIS_URL, RELAI_TEST_VALKEY_URL or
 * RELAI_TEST_EVENTSTORE_URL. Rejects where REQUIRE_SERVERS asks for a server and there is none, so that no machine skips what
 * it should prove.
 */
export async function findForTests(kind: Kind, env: Environment): Promise<Source> {
  const variable = `RELAI_TEST_${kind.toUpperCase()}_URL`;
  const source = await findServer(kind, env, { url: env[variable] });
  const required = (env["REQUIRE_SERVERS"] ?? "").split(",").map((name) => name.trim());
  if (source.from !== "nowhere" || !required.includes(kind)) return source;
  throw new Error(`REQUIRE_SERVERS asks for ${kind}: ${source.reason} (${variable} names one)`);
}
