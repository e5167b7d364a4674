import { Command, CommanderError } from "commander";
import { COUNTS } from "#services/control/bodies.ts";
import { createCommands } from "./commands.ts";
import { regionOf, type RegionOption } from "./backup.ts";
import { CliError, configOf, type CliWorld, type Common } from "./world.ts";

/** Runs one command line and gives the exit code: 0 done, 1 refused by the server, 2 wrong usage or nothing running. */
export async function runCli(world: CliWorld, args: readonly string[]): Promise<0 | 1 | 2> {
  try {
    await createProgram(world).parseAsync(args, { from: "user" });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    const message = error instanceof Error ? error.message : String(error);
    world.err.write(`relai: ${message}\n`);
    return error instanceof CliError ? error.exitCode : 2;
  }
}

type Flag = readonly [flag: string, says: string, value?: string];

const IDEMPOTENCY: Flag = [
  "--idempotency-key <text>",
  "a text of your own for this change: a repeat with the same one changes nothing",
];
const ORG: Flag = ["--org <id>", "the organization; may be left out when there is only one"];
const REGION: Flag = ["--region <name>", "whose events (default: the first of RELAI_REGIONS)"];

/** The processes of a region that can run by themselves. */
const PROCESSES = [
  ["gateway", "a gateway, by itself, on the servers that the settings name"],
  ["ledger", "a ledger, by itself, on servers; a second one stands by and takes over"],
  ["control", "the control API, by itself, on servers"],
] as const;

interface StartOptions extends Common {
  readonly servers?: boolean;
}

interface Parts<Options extends Common> {
  readonly flags?: readonly Flag[];
  readonly examples: readonly string[];
  /** With the program's options too; the argument is undefined where the command takes none, or was given none. */
  readonly run?: (options: Options, argument: string) => Promise<void>;
}

/** It has from its parent how it tells help and errors, and how it exits. */
function define<Options extends Common>(command: Command, says: string, parts: Parts<Options>) {
  const { flags = [], examples, run } = parts;
  command.description(says);
  for (const flag of flags) command.option(...flag);
  const lines = examples.map((line) => `  $ relai ${line}\n`);
  command.addHelpText("after", `\nExamples:\n${lines.join("")}`);
  if (run) command.action(() => run(command.optsWithGlobals(), command.args[0] as string));
  return command;
}

function createProgram(world: CliWorld): Command {
  const commands = createCommands(world);
  const program = new Command("relai")
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: (text) => world.out.write(text),
      writeErr: (text) => world.err.write(text),
      outputError: (text, write) => write(text.replace(/^error: /, "relai: ")),
    })
    .exitOverride()
    .showSuggestionAfterError();
  define(program, "An LLM gateway whose books are its truth.", {
    flags: [
      ["--json", "print JSON: what the control API itself answered"],
      ["--config <file>", "a JSON file with settings; the environment wins"],
    ],
    examples: ["start", "org create Acme", "credit add 25.00", "key create --name app", "balance"],
  });
  define(program.command("start"), "run relai on this machine, until it is told to stop", {
    flags: [
      [
        "--servers",
        "on Redis, and an event store where there is one: those of the settings, else found on this machine",
      ],
    ],
    examples: ["start", "start --servers", "start --json", "start --config relai.json"],
    run: ({ servers = false, ...options }: StartOptions) =>
      world.start({ config: configOf(options), json: options.json ?? false, servers }),
  });
  for (const [name, says] of PROCESSES)
    define(program.command(name), `run ${says}`, {
      flags: [["--region <name>", "the region (default: the first of RELAI_REGIONS)"]],
      examples: [name, `${name} --region us --json`],
      run(options: RegionOption) {
        regionOf(options);
        return world.start({ config: configOf(options), json: options.json ?? false }, name);
      },
    });
  define(program.command("simulator"), "run the simulated upstream with its usage book", {
    flags: [
      ["--port <number>", "0 takes a free one (default: RELAI_SIMULATOR_PORT)"],
      ["--book <file>", "where it notes every call (default: in the data folder)"],
    ],
    examples: ["simulator", "simulator --port 8099 --book book.jsonl"],
    run: commands.simulator,
  });
  define(program.command("config"), "show the settings of the running relai, secrets hidden", {
    flags: [
      ["--local", "those of this command's own environment, which a start from here would have"],
      ["--at <url>", "those of the process with this internal address, such as a gateway's"],
    ],
    examples: ["config", "config --at http://127.0.0.1:8070", "config --local --config relai.json"],
    run: commands.config,
  });

  const org = define(program.command("org"), "organizations: the customers", {
    examples: ["org create Acme", "org list"],
  });
  define(org.command("create <name>"), "create an organization", {
    flags: [IDEMPOTENCY],
    examples: ["org create Acme", "org create Acme --json"],
    run: commands.createOrganization,
  });
  define(org.command("list"), "list the organizations, the newest first", {
    examples: ["org list", "org list --json"],
    run: commands.listOrganizations,
  });

  const credit = define(program.command("credit"), "an organization's credit", {
    examples: ["credit add 25.00"],
  });
  define(credit.command("add <dollars>"), "add credit, in dollars with at most six decimals", {
    flags: [ORG, IDEMPOTENCY],
    examples: ["credit add 25.00", "credit add 0.50 --idempotency-key invoice-1042"],
    run: commands.addCredit,
  });

  const key = define(program.command("key"), "API keys", { examples: ["key create", "key list"] });
  define(key.command("create"), "issue a key; its text is shown this once", {
    flags: [
      ["--name <text>", "what the key is for"],
      ["--scope <scope>", "regional: works in its home region", "regional"],
      ...COUNTS.map(({ flag, says }): Flag => [`${flag} <number>`, `at most so many ${says}`]),
      ["--budget <dollars>", "at most so much may be spent with it in total"],
      ["--expires <time>", "ISO 8601, such as 2027-01-31 or 2027-01-31T12:00:00Z"],
      ORG,
      IDEMPOTENCY,
    ],
    examples: ["key create", "key create --name app --rpm 60 --budget 5.00 --expires 2027-01-31"],
    run: commands.createKey,
  }).alias("issue");
  define(key.command("list"), "list the keys, the newest first", {
    flags: [["--org <id>", "only those of one organization"]],
    examples: ["key list", "key list --json"],
    run: commands.listKeys,
  });
  define(
    key.command("revoke <key>"),
    "revoke a key, by its id, by how lists show it, or by its text",
    {
      examples: ["key revoke key_01J9Z3W8Q4T2M6B1N5C7D0E9FG", "key revoke relai_sk_us_live_ab12"],
      run: commands.revokeKey,
    },
  );

  define(program.command("balance [org]"), "show an organization's balance", {
    examples: ["balance", "balance org_01J9Z3W8Q4T2M6B1N5C7D0E9FG --json"],
    run: commands.balance,
  });
  define(program.command("replay"), "make the read models anew from the events", {
    flags: [
      ["--projection <name>", "only one of them (default: all)"],
      ["--from <position>", "where to begin: start or 0, the first event"],
    ],
    examples: ["replay", "replay --projection usage"],
    run: commands.replay,
  });
  define(
    program.command("backup <file>"),
    "copy the events into a new file, also while relai runs",
    {
      flags: [REGION],
      examples: ["backup /backup/relai-2027-01-31.sqlite"],
      run: commands.backUp,
    },
  );
  define(
    program.command("restore <file>"),
    "put a backup in the place of the events, while relai is stopped; a server must have none",
    {
      flags: [REGION],
      examples: ["restore /backup/relai-2027-01-31.sqlite"],
      run: commands.restore,
    },
  );
  return program;
}
