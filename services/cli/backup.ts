import { mkdirSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { backUpEventStore, restoreEventStore, type StoreCopy } from "#infra/event-store/backup.ts";
import { lockFolder } from "#infra/folder-lock.ts";
import { CliError, configOf, type CliWorld, type Common } from "./world.ts";

export interface RegionOption extends Common {
  readonly region?: string;
}

/** Copies a region's events into a file, beside the running process or without one. */
export async function backUp(world: CliWorld, file: string, options: RegionOption): Promise<void> {
  const { events, region } = placeOf(options);
  const to = resolve(file);
  const copied = await backUpEventStore(events, to);
  const text = `Backed up ${told(copied)} to ${to}\n`;
  world.out.write(options.json ? jsonOf(to, region, copied) : text);
}

/** Puts a backup in the place of a region's events. Refused while a process runs on the data folder. */
export async function restore(world: CliWorld, file: string, options: RegionOption): Promise<void> {
  const { dataDir, events, region } = placeOf(options);
  const from = resolve(file);
  // The lock says that no relai runs on the folder, and keeps one from starting meanwhile.
  const lock = lockFolder(dataDir);
  try {
    mkdirSync(dirname(events), { recursive: true, mode: 0o700 });
    const suffix = `.before-restore-${new Date(world.clock.now()).toISOString().replaceAll(/[:.]/g, "-")}`;
    const { aside, ...copied } = await restoreEventStore(from, events, suffix);
    if (options.json) {
      world.out.write(jsonOf(from, region, copied, { aside: aside ?? null }));
      return;
    }
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
  } finally {
    lock.release();
  }
}

/** The region that is meant: the one named, or the first that is configured. Throws for one that is not configured. */
export function regionOf(options: RegionOption): string {
  const { regions } = configOf(options);
  const region = options.region ?? regions[0];
  if (region === undefined || !regions.includes(region))
    throw new CliError(2, `--region must be one of those in RELAI_REGIONS: ${regions.join(", ")}`);
  return region;
}

function placeOf(options: RegionOption) {
  const dataDir = resolve(configOf(options).dataDir);
  const region = regionOf(options);
  return { dataDir, events: resolve(dataDir, region, "events.sqlite"), region };
}

function told({ events, position, bytes }: StoreCopy): string {
  return `${events} events, up to position ${position}, ${bytes} bytes,`;
}

function jsonOf(file: string, region: string, copied: StoreCopy, more = {}): string {
  const { events, position, bytes } = copied;
  return `${JSON.stringify({ file, region, events, position: String(position), bytes, ...more })}\n`;
}
