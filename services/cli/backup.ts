import { resolve } from "node:path";
import type { Common } from "./commands.ts";
import { CliError, type CliWorld, type StoreCopied } from "./world.ts";

export interface RegionOption extends Common {
  readonly region?: string;
}

/** Copies a region's events into a file, beside the running process or without one. */
export async function backUp(world: CliWorld, file: string, options: RegionOption): Promise<void> {
  const { dataDir, region } = placeOf(world, options);
  const to = resolve(file);
  const copied = await world.backUp({ dataDir, region, to });
  if (options.json) return printJson(world, to, region, copied);
  world.out.write(`Backed up ${told(copied)} to ${to}\n`);
}

/** Puts a backup in the place of a region's events. Refused while a process runs on the data folder. */
export async function restore(world: CliWorld, file: string, options: RegionOption): Promise<void> {
  const { dataDir, region } = placeOf(world, options);
  const from = resolve(file);
  const { aside, ...copied } = await world.restore({ dataDir, region, from });
  if (options.json) return printJson(world, from, region, copied, { aside: aside ?? null });
  world.out.write(
    [
      `Restored ${told(copied)} from ${from}`,
      ...(aside === undefined ? [] : [`The events that were there are kept in ${aside}`]),
      "Next: relai start. It makes the read models again, with an alarm for each. What was recorded after the backup",
      "is gone: usage and credit of that time are not in the books, keys issued then do not work, and keys revoked",
      "then work until they are revoked once more.",
      "",
    ].join("\n"),
  );
}

function placeOf(world: CliWorld, options: RegionOption): { dataDir: string; region: string } {
  const { dataDir, regions } = world.config(options.config);
  const region = options.region ?? regions[0];
  if (region === undefined || !regions.includes(region))
    throw new CliError(2, `--region must be one of those in RELAI_REGIONS: ${regions.join(", ")}`);
  return { dataDir: resolve(dataDir), region };
}

function told({ events, position, bytes }: StoreCopied): string {
  return `${events} events, up to position ${position}, ${bytes} bytes,`;
}

function printJson(
  world: CliWorld,
  file: string,
  region: string,
  { events, position, bytes }: StoreCopied,
  more: Readonly<Record<string, unknown>> = {},
): void {
  const answer = { file, region, events, position: String(position), bytes, ...more };
  world.out.write(`${JSON.stringify(answer)}\n`);
}
