import { createGateway, type Gateway } from "#services/gateway/gateway.ts";
import type { GatewayParts } from "#services/gateway/parts.ts";
import { openWriter, registerGateway, type WriterParts } from "#services/gateway/money/writer.ts";
import { startLedger, type Ledger } from "#services/ledger/ledger.ts";
import type { Projector } from "#services/ports.ts";
import { registerWriter, type Author } from "#services/writers.ts";

export interface RegionParts extends GatewayParts {
  readonly projector: Projector;
  /** How many gateways, each with a listener and a journal of its own. */
  readonly gatewayCount: number;
}

/** A region's ledger and gateways in one process, on a data folder that this process has locked. */
export interface EmbeddedRegion {
  readonly ledger: Ledger;
  readonly ledgerEpoch: number;
  readonly gateways: readonly Gateway[];
}

/**
 * Every writer registers first; then the ledger claims the admission store, seals what earlier starts left, fences
 * these writers, folds and adopts; then the gateways read who owns the store and open their journals. The simulation
 * and the tests of the gateway open their regions by this too.
 */
export async function openEmbedded(parts: RegionParts): Promise<EmbeddedRegion> {
  const { store, admission, clock, region, telemetry } = parts;
  const ledgerAuthor: Author = { region, actor: "ledger" };
  const author: Author = { region, actor: "gateway" };
  const ledgerEpoch = await registerWriter(store, clock, ledgerAuthor, {
    process: "ledger",
    instance: `${parts.instance}/ledger`,
  });
  const writers: { parts: WriterParts; writerEpoch: number }[] = [];
  for (let number = 1; number <= parts.gatewayCount; number++) {
    const instance = `${parts.instance}/gateway-${number}`;
    const writerParts = { store, admission, clock, telemetry, author, instance, beats: false };
    writers.push({ parts: writerParts, writerEpoch: await registerGateway(writerParts) });
  }
  const ledger = await startLedger({
    store,
    clock,
    telemetry,
    author: ledgerAuthor,
    admission,
    directory: parts.directory,
    projector: parts.projector,
    writerEpoch: ledgerEpoch,
    death: { by: "lock", firstEpoch: ledgerEpoch },
  });
  void ledger.superseded.then(() => telemetry.alarm("ledger_superseded", { region }));
  const gateways: Gateway[] = [];
  for (const { parts: writerParts, writerEpoch } of writers)
    gateways.push(createGateway(parts, await openWriter(writerParts, writerEpoch), author));
  return { ledger, ledgerEpoch, gateways };
}
