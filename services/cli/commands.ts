import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { parseDollars } from "#domain/money.ts";
import { boundsOf, COUNTS, eachCount, type Count } from "#services/control/bodies.ts";
import { TOP_UP_MICRO_MIN } from "#domain/organization.ts";
import { backUp, restore, type RegionOption } from "./backup.ts";
import { createClient } from "./client.ts";
import { keyIdOf, listAll, organizationOf } from "./finding.ts";
import { named, table } from "./print.ts";
import { replay, type ReplayOptions } from "./replay.ts";
import { showSettings, type SettingsOptions } from "./settings.ts";
import { read, type KeySeen } from "./readers.ts";
import { CliError, configOf, type CliWorld, type Common } from "./world.ts";

/** Those of a command that changes something. */
interface ChangeOptions extends Common {
  readonly org?: string;
  readonly idempotencyKey?: string;
}

interface KeyOptions extends ChangeOptions, Partial<Record<Count["limit"], string>> {
  readonly name?: string;
  readonly scope: string;
  readonly budget?: string;
  readonly expires?: string;
}

type Answer = Readonly<Record<string, unknown>>;

/** What each command does, in terms of the control API of the running process. */
export function createCommands(world: CliWorld) {
  const clientFor = (options: Common) => createClient(world.clock, configOf(options));

  /** Prints the control API's own object, or what a person reads of it. */
  function print(options: Common, answer: Answer, text: () => string): void {
    world.out.write(options.json ? `${JSON.stringify(answer)}\n` : text());
  }

  /** Makes something of the organization that is meant. */
  async function createIn(options: ChangeOptions, what: "credits" | "keys", body: Answer) {
    const client = clientFor(options);
    const org = await organizationOf(client, options.org);
    const sent = { body, idempotencyKey: options.idempotencyKey };
    return client.call("POST", `/v1/orgs/${encodeURIComponent(org)}/${what}`, sent);
  }

  return {
    async createOrganization(options: ChangeOptions, name: string) {
      const sent = { body: { name }, idempotencyKey: options.idempotencyKey };
      const answer = await clientFor(options).call("POST", "/v1/orgs", sent);
      const { id, name: stored } = read.organization(answer);
      print(options, answer, () => `Created organization ${stored}: ${id}\n`);
    },

    async listOrganizations(options: Common) {
      const answer = await listAll(clientFor(options), "/v1/orgs");
      const organizations = answer.data.map(read.organization);
      print(options, answer, () =>
        organizations.length === 0
          ? "no organizations yet: relai org create <name>\n"
          : table(organizations, [
              { title: "ID", of: ({ id }) => id },
              { title: "NAME", of: ({ name }) => name },
              { title: "HOME REGION", of: (one) => one.home_region },
              { title: "CREATED", of: (one) => one.created_at },
            ]),
      );
    },

    async addCredit(options: ChangeOptions, dollars: string) {
      const amount_dollars = dollarsOf(dollars, "<dollars>");
      if ((parseDollars(amount_dollars) ?? 0) < TOP_UP_MICRO_MIN)
        throw new CliError(2, "<dollars> must be at least 0.01; add more at once");
      const answer = await createIn(options, "credits", { amount_dollars });
      const credit = read.credit(answer);
      print(
        options,
        answer,
        () => `Added ${credit.amount_dollars} USD to ${credit.organization} (${credit.id})\n`,
      );
    },

    async createKey(options: KeyOptions) {
      if (options.scope === "global") {
        const why = "this version runs one region and issues regional keys";
        throw new CliError(2, `keys of scope global are not built yet: ${why}`);
      }
      if (options.scope !== "regional") throw new CliError(2, "--scope must be regional");
      const { name, budget, expires } = options;
      const body = {
        ...(name === undefined ? {} : { name }),
        ...eachCount((count) => countOf(options[count.limit], count)),
        ...(budget === undefined ? {} : { budget_dollars: dollarsOf(budget, "--budget") }),
        ...(expires === undefined ? {} : { expires_at: expires }),
      };
      const answer = await createIn(options, "keys", body);
      const issued = read.issuedKey(answer);
      print(options, answer, () => {
        const text =
          issued.key ?? "not shown again: this Idempotency-Key has issued the key before";
        const note = issued.key === null ? "" : "The key is shown this once: keep it now.\n";
        return named([["key", text], ...describeKey(issued)]) + note;
      });
    },

    async listKeys(options: Common & { org?: string }) {
      const path =
        options.org === undefined ? "/v1/keys" : `/v1/keys?org=${encodeURIComponent(options.org)}`;
      const answer = await listAll(clientFor(options), path);
      const keys = answer.data.map(read.key);
      const now = world.clock.now();
      print(options, answer, () =>
        keys.length === 0
          ? "no keys yet: relai key create\n"
          : table(keys, [
              { title: "ID", of: ({ id }) => id },
              { title: "KEY", of: (one) => one.display_prefix },
              { title: "NAME", of: ({ name }) => name ?? "-" },
              ...COUNTS.map(({ member }) => ({
                title: member.toUpperCase(),
                of: (one: KeySeen) => String(one[member] ?? "-"),
                right: true,
              })),
              { title: "BUDGET (USD)", of: (one) => one.budget_dollars ?? "-", right: true },
              { title: "STATE", of: (one) => stateOf(one, now) },
              { title: "EXPIRES", of: (one) => one.expires_at ?? "-" },
              { title: "CREATED", of: (one) => one.created_at },
            ]),
      );
    },

    async revokeKey(options: Common, which: string) {
      const client = clientFor(options);
      const id = await keyIdOf(client, which);
      const answer = await client.call("DELETE", `/v1/keys/${encodeURIComponent(id)}`);
      const revoked = read.key(answer);
      print(options, answer, () => `Revoked key ${revoked.display_prefix} (${revoked.id})\n`);
    },

    async balance(options: Common, org: string | undefined) {
      const client = clientFor(options);
      const id = await organizationOf(client, org);
      const answer = await client.call("GET", `/v1/orgs/${encodeURIComponent(id)}/balance`);
      const balance = read.balance(answer);
      print(
        options,
        answer,
        () =>
          named([["organization", balance.organization]]) +
          table(
            [
              ["credits", balance.credits_dollars],
              ["held", balance.held_dollars],
              ["available", balance.available_dollars],
            ] as const,
            [
              { title: "", of: ([name]) => name },
              { title: "USD", of: ([, dollars]) => dollars, right: true },
            ],
          ) +
          named([["as of", balance.as_of]]),
      );
    },

    replay: (options: ReplayOptions) => replay(world, clientFor(options), options),
    backUp: (options: RegionOption, file: string) => backUp(world, file, options),
    restore: (options: RegionOption, file: string) => restore(world, file, options),

    config: (options: SettingsOptions) => showSettings(world, clientFor, options),

    async simulator(options: Common & { port?: string; book?: string }) {
      const config = configOf(options);
      const port = options.port ?? String(config.simulatorPort);
      if (!/^\d{1,5}$/.test(port) || Number(port) > 65_535)
        throw new CliError(2, "--port must be a number from 0 to 65535");
      const bookPath = options.book ?? join(config.dataDir, "simulator-book.jsonl");
      mkdirSync(dirname(bookPath), { recursive: true, mode: 0o700 });
      const warn = (message: string) => world.err.write(`relai simulator: ${message}\n`);
      const running = await world.simulator({ port: Number(port), bookPath, warn });
      world.out.write(
        options.json
          ? `${JSON.stringify({ ready: true, url: running.url })}\n`
          : `The simulated upstream listens on ${running.url}/openai/v1\nIts book: ${bookPath}\n`,
      );
      let stopping: Promise<void> | undefined;
      for (const signal of ["SIGTERM", "SIGINT"])
        process.on(signal, () => void (stopping ??= running.close()));
    },
  };
}

function dollarsOf(text: string, what: string): string {
  if (parseDollars(text) !== undefined) return text.trim();
  throw new CliError(
    2,
    `${what} must be an amount in dollars such as 25.00: digits with at most six decimals, without sign or exponent`,
  );
}

/** The number that was given for a limit; undefined, which is no member of JSON, where none was. */
function countOf(text: string | undefined, count: Count): number | undefined {
  if (text === undefined) return undefined;
  const { schema, rule } = boundsOf(count);
  const given = /^[1-9]\d*$/.test(text) ? Number(text) : 0;
  if (!schema.safeParse(given).success) throw new CliError(2, `${count.flag} ${rule}`);
  return given;
}

function describeKey(key: KeySeen): (readonly [string, string])[] {
  return [
    ["id", key.id],
    ["name", key.name ?? "-"],
    ["organization", key.organization],
    ...COUNTS.map(({ member }) => [member, String(key[member] ?? "no limit")] as const),
    ["budget", key.budget_dollars === null ? "no limit" : `${key.budget_dollars} USD`],
    ["expires", key.expires_at ?? "never"],
  ];
}

function stateOf(key: KeySeen, nowMs: number): string {
  if (key.revoked_at !== null) return "revoked";
  return key.expires_at !== null && Date.parse(key.expires_at) <= nowMs ? "expired" : "live";
}
