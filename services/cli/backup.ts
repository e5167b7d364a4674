import { mkdirSync } from "node:fs";
import { dirname, resolve } from "node:path";
import type { Config } from "#infra/config.ts";
import { backUpEventStore, restoreEventStore, type StoreCopy } from "#infra/event-store/backup.ts";
import { lockFolder } from "#infra/folder-lock.ts";
import { systemRandom } from "#infra/random.ts";
import { createBar } from "./print.ts";
import { CliError, configOf, type CliWorld, type Common } from "./world.ts";

export interface RegionOption extends Common {
  readonly region?: string;
}

/** Copies a region's events into a file, beside the running processes or without one. */
export async function backUp(world: CliWorld, file: string, options: RegionOption): Promise<void> {
  const { events, region, server } = placeOf(options);
  const to = resolve(file);
  const copied = server ? await backUpFrom(server, world, to) : await backUpEventStore(events, to);
  const text = `Backed up ${told(copied)} to ${to}\n`;
  world.out.write(options.json ? jsonOf(to, region, copied) : text);
}

/** Puts a backup in the place of a region's events. Refused while a process runs on the data folder. */
export async function restore(world: CliWorld, file: string, options: RegionOption): Promise<void> {
  const { dataDir, events, region, server } = placeOf(options);
  const from = resolve(file);
  if (server) {
    const copied = await restoreInto(server, world, from);
    const text = `Restored ${told(copied)} from ${from} into the event store\n${NEXT_ON_SERVERS}`;
    world.out.write(options.json ? jsonOf(from, region, copied) : text);
    return;
  }
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
    const kept = aside === undefined ? "" : `The events that were there are kept in ${aside}\n`;
    world.out.write(`Restored ${told(copied)} from ${from}\n${kept}${NEXT}`);
  } finally {
    lock.release();
  }
}

const GONE = `What was recorded after the backup
is gone: usage and credit of that time are not in the books, keys issued then do not work, and keys revoked
then work until they are revoked once more.
`;
const NEXT = `Next: relai start. It makes the read models again, with an alarm for each. ${GONE}`;
const NEXT_ON_SERVERS = `Next: start the ledgers, then the others. They make the read models again, with an alarm for each, and
fill Redis anew, whatever it holds. ${GONE}`;

type Server = { readonly url: string; readonly insecure: boolean };

async function backUpFrom(server: Server, world: CliWorld, to: string): Promise<StoreCopy> {
  // Loaded only here: its client is larger than all the rest.
  const { openKurrentEventStore } = await import("#infra/event-store/kurrent/store.ts");
  const { backUpServer } = await import("#infra/event-store/kurrent/backup.ts");
  const { clock } = world;
  const store = await openKurrentEventStore({ ...server, clock, random: systemRandom() });
  try {
    return await withBar(world, "backup", (onProgress) => backUpServer(store, to, onProgress));
  } finally {
    await store.close();
  }
}

async function restoreInto(server: Server, world: CliWorld, from: string): Promise<StoreCopy> {
  const { restoreToServer } = await import("#infra/event-store/kurrent/restore.ts");
  const parts = { from, ...server, clock: world.clock, random: systemRandom() };
  return withBar(world, "restore", (onProgress) => restoreToServer({ ...parts, onProgress }));
}

/** Shows on a terminal how far the work is. */
async function withBar<T>(
  world: CliWorld,
  label: string,
  work: (onProgress: (events: number, fraction: number) => void) => Promise<T>,
): Promise<T> {
  const bar = createBar(world.err);
  try {
    return await work((events, fraction) => bar.show(label, fraction, `${events} events`));
  } finally {
    bar.clear();
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
  const config = configOf(options);
  const dataDir = resolve(config.dataDir);
  const region = regionOf(options);
  return {
    dataDir,
    events: resolve(dataDir, region, "events.sqlite"),
    region,
    server: serverOf(config),
  };
}

/** The server that has the events; undefined where they are in a file of the data folder. */
function serverOf({
  eventstoreUrl: url,
  eventstoreInsecure: insecure,
}: Config): Server | undefined {
  return url === undefined ? undefined : { url, insecure };
}

function told({ events, position, bytes }: StoreCopy): string {
  return `${events} events, up to position ${position}, ${bytes} bytes,`;
}

function jsonOf(file: string, region: string, copied: StoreCopy, more = {}): string {
  const { events, position, bytes } = copied;
  return `${JSON.stringify({ file, region, events, position: String(position), bytes, ...more })}\n`;
}
