import type { Gateway } from "#services/gateway/gateway.ts";
import type { InFlight } from "#services/gateway/http/in-flight.ts";
import type { Catalogue } from "#domain/catalogue/types.ts";
import type {
  AdmissionStore,
  Clock,
  EventStore,
  KeyDirectory,
  Random,
  Telemetry,
  Upstream,
} from "#services/ports.ts";

/** An upstream host as this gateway reaches it. The credential never leaves this object but in the header it is for. */
export interface HostEndpoint {
  readonly baseUrl: string;
  readonly credential: string;
  /** A name of the credential that may stand in events: never a part of it. */
  readonly hostKey: string;
}

export interface GatewayLimits {
  readonly bodyBytesMax: number;
  /** How deep a body's JSON may nest. */
  readonly bodyDepthMax: number;
  readonly answerBytesMax: number;
  readonly inFlightBytesMax: number;
  /** How long, and how far, an answer is read on after its client has left. */
  readonly readOnMs: number;
  readonly readOnBytesMax: number;
  /** A client that takes nothing for this long has left. */
  readonly clientIdleMs: number;
}

/** What a gateway is made of: ports, settings, and the snapshot of the catalogue. */
export interface GatewayParts {
  readonly region: string;
  /** Every region that a key may name; a key of any other is malformed. */
  readonly knownRegions: ReadonlySet<string>;
  readonly instance: string;
  readonly store: EventStore;
  readonly admission: AdmissionStore;
  readonly directory: KeyDirectory;
  readonly catalogue: Catalogue;
  readonly hosts: ReadonlyMap<string, HostEndpoint>;
  readonly upstream: Upstream;
  readonly clock: Clock;
  readonly random: Random;
  readonly telemetry: Telemetry;
  readonly limits: GatewayLimits;
}

/** Why there is no body. `too_slow`: it arrives slower than a body may. `gone`: its sender has left. */
export type Unread = "too_large" | "too_slow" | "no_room" | "gone";

/** A caller's request, as far as it has been read. Header names are in lower case. */
export interface GatewayRequest {
  readonly method: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly remoteAddress: string;
  /** Reads the body, at most `bytesMax`. What is kept takes room, piece by piece; on failure the room is given back. */
  body(bytesMax: number, room: InFlight): Promise<Buffer | Unread>;
}

/** Where the answer goes. Nothing is written after the client has left; `write` then takes and drops. */
export interface Sink {
  head(status: number, headers: Readonly<Record<string, string>>): void;
  /** False asks to wait for `drained`. */
  write(bytes: Uint8Array | string): boolean;
  end(bytes?: Uint8Array | string): void;
  /** Breaks the connection, so that what was sent cannot pass for a whole answer. */
  destroy(): void;
  /** Told at most once each; set before the first write. */
  listen(events: { drained: () => void; gone: () => void }): void;
  isGone(): boolean;
}

/** Serves the requests of one route. */
export type Handle = (gateway: Gateway, request: GatewayRequest, sink: Sink) => Promise<void>;
