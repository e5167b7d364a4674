import { z } from "zod";
import { describeConfig } from "#infra/config.ts";
import type { SettingView } from "#services/control/views.ts";
import type { Client } from "./client.ts";
import { table } from "./print.ts";
import { CliError, configOf, type CliWorld, type Common } from "./world.ts";

export interface SettingsOptions extends Common {
  /** Those of the command's own environment, also where a process runs. */
  readonly local?: boolean;
}

const SETTING = z.object({ name: z.string(), value: z.string().nullable(), source: z.string() });
const ANSWER = z.looseObject({ object: z.literal("config"), data: z.array(SETTING) });

/**
 * Shows the settings of the running process; or, where none is found or `local` is asked for, those that a start from
 * here would have. It says which of the two. A process that refuses the token is found: then nothing is shown.
 */
export async function showSettings(
  world: CliWorld,
  clientFor: (options: Common) => Client,
  options: SettingsOptions,
): Promise<void> {
  const data: readonly SettingView[] = describeConfig(configOf(options));
  const own = { object: "config", data };
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
