import { z } from "zod";
import { describeConfig } from "#infra/config.ts";
import type { SettingView } from "#services/control/views.ts";
import { createClient, type Client } from "./client.ts";
import { table } from "./print.ts";
import { CliError, configOf, type CliWorld, type Common } from "./world.ts";

export interface SettingsOptions extends Common {
  /** Those of the command's own environment, also where a process runs. */
  readonly local?: boolean;
  /** The internal address of the process to ask. */
  readonly at?: string;
}

const SETTING = z.object({ name: z.string(), value: z.string().nullable(), source: z.string() });
const ANSWER = z.looseObject({ object: z.literal("config"), data: z.array(SETTING) });

/**
 * Shows the settings of the running process: of the one at an internal address, or of the one whose control API is found;
 * or, where none is found or `local` is asked for, those that a start from here would have. It says whose they are. Where
 * nobody answers at an address that was given, and where a process refuses the token, nothing is shown.
 */
export async function showSettings(
  world: CliWorld,
  clientFor: (options: Common) => Client,
  options: SettingsOptions,
): Promise<void> {
  const config = configOf(options);
  const data: readonly SettingView[] = describeConfig(config);
  const own = { object: "config", data };
  if (options.at !== undefined) {
    const client = createClient(world.clock, config, { url: originOf(options.at), from: "--at" });
    const read = ANSWER.safeParse(await client.call("GET", "/config"));
    if (read.success) return print(read.data, client.url, `the process at ${client.url}`);
    throw new CliError(2, `what answers at ${client.url} is of another version`);
  }
  let why = "";
  if (!options.local) {
    try {
      const client = clientFor(options);
      const read = ANSWER.safeParse(await client.call("GET", "/v1/config"));
      if (read.success) return print(read.data, client.url, `the relai that runs at ${client.url}`);
      why = ` (what answers at ${client.url} is of another version)`;
    } catch (error) {
      if (!(error instanceof CliError) || error.exitCode === 1) throw error;
      why = ` (${error.message})`;
    }
  }
  print(own, null, `this command's own environment${why}`);

  function print(config: Pick<typeof own, "data">, url: string | null, whose: string): void {
    const shown = url === null ? "local" : "running";
    const text = () =>
      table(config.data, [
        { title: "SETTING", of: ({ name }) => name },
        { title: "VALUE", of: ({ value }) => value ?? "-" },
        { title: "FROM", of: ({ source }) => source },
      ]);
    world.out.write(
      options.json
        ? `${JSON.stringify({ ...config, shown, url })}\n`
        : `Settings of ${whose}:\n${text()}`,
    );
  }
}

/** Any address will do: nothing is sent there. */
function originOf(text: string): string {
  const url = URL.parse(text);
  if (url !== null && /^https?:$/u.test(url.protocol)) return url.origin;
  throw new CliError(2, "--at takes an address such as http://127.0.0.1:8070");
}
