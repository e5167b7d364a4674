import type { FastifyInstance } from "fastify";
import type { ControlParts } from "#services/control/commands.ts";
import type { Gateway, StoppedGateway } from "#services/gateway/gateway.ts";
import { createGatewayServer, stopGateway } from "#services/gateway/http/server.ts";
import { openJournal } from "#services/journal.ts";
import type { Ledger } from "#services/ledger/ledger.ts";
import type { Author } from "#services/writers.ts";
import { openEmbedded, type RegionParts } from "./embedded.ts";
import { endOr, NOT_SEALED } from "./stopping.ts";

/** One region in one process: its ledger and its gateways. */
export interface Region {
  readonly ledger: Pick<Ledger, "isReady" | "filled" | "waiting"> &
    Pick<ControlParts, "applied"> & {
      /** False also while it stands by. */
      isServing(): boolean;
    };
  readonly gateways: readonly { readonly gateway: Gateway; readonly server: FastifyInstance }[];
  /** Stops accepting, lets what runs finish within `drainMs`, then ends the gateways' journals cleanly. */
  drain(drainMs: number): Promise<readonly StoppedGateway[]>;
  /** Ends the ledger and its journal, once nobody asks it any more; gives what is left undone after the limit. */
  stop(limitMs: number): Promise<string | undefined>;
}

/** Opens a region on embedded parts, whose data folder this process has locked. Nothing listens yet. */
export async function openRegion(parts: RegionParts): Promise<Region> {
  const { store, clock, region } = parts;
  const { ledger, ledgerEpoch, gateways: opened } = await openEmbedded(parts);
  const gateways = opened.map((gateway) => ({ gateway, server: createGatewayServer(gateway) }));
  return {
    ledger: { ...ledger, isServing: ledger.isReady },
    gateways,
    drain: (drainMs) =>
      Promise.all(gateways.map(({ gateway, server }) => stopGateway(gateway, server, drainMs))),
    stop: (limitMs) => endOr(clock, limitMs, endLedger(), () => NOT_SEALED),
  };

  async function endLedger(): Promise<void> {
    await ledger.stop();
    const { telemetry } = parts;
    const author: Author = { region, actor: "ledger" };
    const journal = await openJournal({
      store,
      telemetry,
      clock,
      author,
      writerEpoch: ledgerEpoch,
    });
    await journal.seal();
  }
}
