import { Command, CommanderError } from "commander";
import { backUp, restore } from "./backup.ts";
import { COUNTS } from "#services/control/bodies.ts";
import { createCommands, type Common, type KeyOptions } from "./commands.ts";
import { CliError, type CliWorld } from "./world.ts";

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

const IDEMPOTENCY = [
  "--idempotency-key <text>",
  "a text of your own for this change: a repeat with the same one changes nothing",
] as const;
const ORG = ["--org <id>", "the organization; may be left out when there is only one"] as const;

function examples(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  $ relai ${line}\n`).join("")}`;
}

function createProgram(world: CliWorld): Command {
  const program = new Command("relai")
    .description("An LLM gateway whose books are its truth.")
    .option("--json", "print JSON: what the control API itself answered")
    .option("--config <file>", "a JSON file with settings; the environment wins")
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: (text) => world.out.write(text),
      writeErr: (text) => world.err.write(text),
      outputError: (text, write) => write(text.replace(/^error: /, "relai: ")),
    })
    .exitOverride()
    .showSuggestionAfterError()
    .addHelpText(
      "after",
      examples("start", "org create Acme", "credit add 25.00", "key create --name app", "balance"),
    );
  addProcesses(program, world);
  addOrganizations(program, world);
  addKeys(program, world);
  addReads(program, world);
  addBackups(program, world);
  return program;
}

/** A command of ours takes part in what the program says about help, output and exits. */
function sub(parent: Command, nameAndArguments: string, description: string): Command {
  return parent
    .command(nameAndArguments)
    .description(description)
    .configureHelp({ showGlobalOptions: true });
}

function addProcesses(program: Command, world: CliWorld): void {
  const commands = createCommands(world);
  sub(program, "start", "run relai on this machine, until it is told to stop")
    .addHelpText("after", examples("start", "start --json", "start --config relai.json"))
    .action((_options, command: Command) => {
      const { config, json = false } = command.optsWithGlobals<Common>();
      return world.start({ file: config, json });
    });
  sub(program, "simulator", "run the simulated upstream with its usage book")
    .option("--port <number>", "0 takes a free one (default: RELAI_SIMULATOR_PORT)")
    .option("--book <file>", "where it notes every call (default: in the data folder)")
    .addHelpText("after", examples("simulator", "simulator --port 8099 --book book.jsonl"))
    .action((_options, command: Command) => commands.simulator(command.optsWithGlobals()));
  sub(program, "config", "show the settings of the running relai, secrets hidden")
    .option(
      "--local",
      "those of this command's own environment, which a start from here would have",
    )
    .addHelpText("after", examples("config", "config --json", "config --local --config relai.json"))
    .action((_options, command: Command) => commands.config(command.optsWithGlobals()));
}

function addOrganizations(program: Command, world: CliWorld): void {
  const commands = createCommands(world);
  const org = sub(program, "org", "organizations: the customers");
  org.addHelpText("after", examples("org create Acme", "org list"));
  sub(org, "create <name>", "create an organization")
    .option(...IDEMPOTENCY)
    .addHelpText("after", examples("org create Acme", "org create Acme --json"))
    .action((name: string, _options, command: Command) =>
      commands.createOrganization(name, command.optsWithGlobals()),
    );
  sub(org, "list", "list the organizations, the newest first")
    .addHelpText("after", examples("org list", "org list --json"))
    .action((_options, command: Command) => commands.listOrganizations(command.optsWithGlobals()));

  const credit = sub(program, "credit", "an organization's credit");
  credit.addHelpText("after", examples("credit add 25.00"));
  sub(credit, "add <dollars>", "add credit, in dollars with at most six decimals")
    .option(...ORG)
    .option(...IDEMPOTENCY)
    .addHelpText(
      "after",
      examples("credit add 25.00", "credit add 0.50 --idempotency-key invoice-1042"),
    )
    .action((dollars: string, _options, command: Command) =>
      commands.addCredit(dollars, command.optsWithGlobals()),
    );
}

function addKeys(program: Command, world: CliWorld): void {
  const commands = createCommands(world);
  const key = sub(program, "key", "API keys");
  key.addHelpText("after", examples("key create", "key list"));
  const create = sub(key, "create", "issue a key; its text is shown this once")
    .alias("issue")
    .option("--name <text>", "what the key is for")
    .option("--scope <scope>", "regional: works in its home region", "regional");
  for (const { flag, says } of COUNTS) create.option(`${flag} <number>`, `at most so many ${says}`);
  create
    .option("--budget <dollars>", "at most so much may be spent with it in total")
    .option("--expires <time>", "ISO 8601, such as 2027-01-31 or 2027-01-31T12:00:00Z")
    .option(...ORG)
    .option(...IDEMPOTENCY)
    .addHelpText(
      "after",
      examples("key create", "key create --name app --rpm 60 --budget 5.00 --expires 2027-01-31"),
    )
    .action((_options, command: Command) =>
      commands.createKey(command.optsWithGlobals<KeyOptions>()),
    );
  sub(key, "list", "list the keys, the newest first")
    .option("--org <id>", "only those of one organization")
    .addHelpText("after", examples("key list", "key list --json"))
    .action((_options, command: Command) => commands.listKeys(command.optsWithGlobals()));
  sub(key, "revoke <key>", "revoke a key, by its id, by how lists show it, or by its text")
    .addHelpText(
      "after",
      examples("key revoke key_01J9Z3W8Q4T2M6B1N5C7D0E9FG", "key revoke relai_sk_us_live_ab12"),
    )
    .action((which: string, _options, command: Command) =>
      commands.revokeKey(which, command.optsWithGlobals()),
    );
}

function addReads(program: Command, world: CliWorld): void {
  const commands = createCommands(world);
  sub(program, "balance [org]", "show an organization's balance")
    .addHelpText("after", examples("balance", "balance org_01J9Z3W8Q4T2M6B1N5C7D0E9FG --json"))
    .action((org: string | undefined, _options, command: Command) =>
      commands.balance(org, command.optsWithGlobals()),
    );
  sub(program, "replay", "make the read models anew from the events")
    .option("--projection <name>", "only one of them (default: all)")
    .option("--from <position>", "where to begin: start or 0, the first event")
    .addHelpText("after", examples("replay", "replay --projection usage"))
    .action((_options, command: Command) => commands.replay(command.optsWithGlobals()));
}

const REGION = ["--region <name>", "whose events (default: the first of RELAI_REGIONS)"] as const;

function addBackups(program: Command, world: CliWorld): void {
  sub(program, "backup <file>", "copy the events into a new file, also while relai runs")
    .option(...REGION)
    .addHelpText("after", examples("backup /backup/relai-2027-01-31.sqlite"))
    .action((file: string, _options, command: Command) =>
      backUp(world, file, command.optsWithGlobals()),
    );
  sub(program, "restore <file>", "put a backup in the place of the events, while relai is stopped")
    .option(...REGION)
    .addHelpText("after", examples("restore /backup/relai-2027-01-31.sqlite"))
    .action((file: string, _options, command: Command) =>
      restore(world, file, command.optsWithGlobals()),
    );
}
