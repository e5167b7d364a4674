import type { Client } from "./client.ts";
import { createBar, table } from "./print.ts";
import { read } from "./readers.ts";
import { CliError, type CliWorld, type Common } from "./world.ts";

export interface ReplayOptions extends Common {
  /** One read model; all of them without it. */
  readonly projection?: string;
  readonly from?: string;
}

/** Has read models made anew, and shows how far that is. */
export async function replay(
  world: CliWorld,
  client: Client,
  options: ReplayOptions,
): Promise<void> {
  const { projection, from } = options;
  const body = {
    ...(projection === undefined ? {} : { projection }),
    ...(from === undefined ? {} : { from: from === "0" ? 0 : from }),
  };
  const bar = createBar(world.err);
  let done = false;
  try {
    for await (const line of client.lines("POST", "/v1/replay", { body })) {
      if (options.json) world.out.write(`${JSON.stringify(line)}\n`);
      const said = read.replayLine(line);
      if ("done" in said) {
        done = true;
        bar.clear();
        if (!options.json) world.out.write(replayed(said.data));
      } else if (!options.json) {
        const { position, head, events_done } = said;
        bar.show(said.projection, fractionOf(position, head), `${events_done} events`);
        if (!world.err.isTerminal) world.out.write(`${said.projection}: ${events_done} events\n`);
      }
    }
  } finally {
    bar.clear();
  }
  if (!done) throw new CliError(1, "the replay ended before it was done");
}

function replayed(
  rebuilt: readonly { projection: string; events_done: number; position: string }[],
) {
  return table(rebuilt, [
    { title: "READ MODEL", of: ({ projection }) => projection },
    { title: "EVENTS", of: (one) => String(one.events_done), right: true },
    { title: "POSITION", of: ({ position }) => position, right: true },
  ]);
}

/** How far a replay is, for the bar only. */
function fractionOf(position: string, head: string): number {
  const [at, end] = [position, head].map((place) => (place === "start" ? 0 : Number(place)));
  return end === undefined || end === 0 ? 1 : (at ?? 0) / end;
}
