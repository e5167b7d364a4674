import { createMemoryKeyDirectory } from "#infra/key-directory/memory.ts";
import type { ReadModels } from "#services/ports.ts";
import { CATALOGUE } from "./clients.ts";
import { checkForwarded } from "./checks.ts";
import type { Death, Faults } from "./faults.ts";
import { createLink } from "./link.ts";
import {
  simulatedAdmission,
  simulatedDirectory,
  simulatedReadModels,
  simulatedStore,
} from "./ports.ts";
import type { SimProcess } from "./process.ts";
import type { Alarm, GatewayWorldParts } from "./processes.ts";
import { randomFrom, type Dice } from "./random.ts";
import type { Servers } from "./servers.ts";
import type { Timeline } from "./timeline.ts";
import { simulatedUpstream, type BookEntry } from "./upstream.ts";
import type { Watch } from "./watch.ts";

const USUAL_MS = 6;

const LIMITS = {
  bodyBytesMax: 1 << 20,
  bodyDepthMax: 64,
  answerBytesMax: 8 << 20,
  inFlightBytesMax: 64 << 20,
  readOnMs: 20_000,
  readOnBytesMax: 1 << 20,
  clientIdleMs: 30_000,
};

export interface WiringParts {
  readonly death: Death;
  readonly timeline: Timeline;
  readonly faults: Faults;
  readonly servers: Servers;
  readonly watch: Watch;
  readonly alarm: Alarm;
  readonly book: BookEntry[];
  readonly dice: (purpose: string) => Dice;
  readonly heldBack: ((requestId: string) => Promise<void> | undefined) | undefined;
  readonly usualDelayMs: number | undefined;
}

/** What the processes of one world are given: every port as they reach it, with the delays and faults on the way. */
export function createWiring(world: WiringParts) {
  const { death, timeline, faults, servers, watch, book, dice, alarm } = world;
  const host = { baseUrl: "http://simulator", credential: "simulated", hostKey: "simulated" };
  /** Admission and keys are in the memory of the process that asks them. */
  const isWithin = death === "lock";

  const adopted = new Set<string>();
  /** 13 FENCE rests on it: what was taken where a state was put in place is not undone by putting it there again. */
  function adopts(ownerEpoch: number, orgId: string): void {
    const once = `${orgId} under owner ${ownerEpoch}`;
    if (adopted.has(once)) watch.broken("FENCE", `${once} is adopted twice`);
    adopted.add(once);
  }

  return {
    portsOf(process: SimProcess) {
      const usualMs = world.usualDelayMs ?? USUAL_MS;
      const link = (
        server: "store" | "admission" | "directory" | "disk",
        usual: number,
        through: Faults = faults,
      ) =>
        createLink({
          timeline,
          faults: through,
          process,
          server,
          usualMs: usual,
          dice: dice(`delay ${process.name} ${server}`),
          inProcess: isWithin || server === "disk",
        });
      // Calls within one memory are neither slow nor lost, late nor repeated; the process can end at each of them.
      const within: Faults = { ...faults, strikes: () => false };
      const memory = isWithin ? within : faults;
      const ownDice = dice(`ports ${process.name}`);
      const own = createMemoryKeyDirectory();
      const connection = servers.connect();
      const directory = () => {
        const at = connection.present();
        return isWithin ? () => own : () => at().directory;
      };
      const disk = link("disk", 1);
      return {
        readModels: (models: ReadModels) => simulatedReadModels(models, disk),
        store: simulatedStore({
          store: servers.store,
          link: link("store", usualMs),
          process,
          faults,
          dice: ownDice,
          isFull: servers.isFull,
        }),
        admission: simulatedAdmission({
          connection,
          link: link("admission", isWithin ? 0 : usualMs, memory),
          timeline,
          faults: memory,
          dice: ownDice,
          isAway: (orgId) => servers.isAway(orgId, process.kind),
          onAdopt: adopts,
        }),
        directory: simulatedDirectory(directory, link("directory", isWithin ? 0 : 1, memory)),
      };
    },

    gatewayParts(
      process: SimProcess,
      ports: Pick<GatewayWorldParts, "store" | "admission" | "directory">,
    ): GatewayWorldParts {
      const { store, admission, directory } = ports;
      const upstream = simulatedUpstream(
        {
          timeline,
          faults,
          book,
          dice: dice(`upstream ${process.name}`),
          onSend: ({ requestId }) => checkForwarded(watch.audit, requestId, watch),
          ...(world.heldBack ? { heldBack: world.heldBack } : {}),
        },
        process,
      );
      return {
        store,
        admission,
        directory,
        catalogue: CATALOGUE,
        upstream,
        limits: LIMITS,
        hosts: new Map([["simulator", host]]),
        random: randomFrom(dice(`random ${process.name}`)),
        telemetry: { alarm, requestDone: () => {} },
      };
    },
  };
}
