import { statusOf, type ApiError } from "#services/errors.ts";
import { TIMED_OUT, within } from "#services/waiting.ts";
import type { Author } from "#services/writers.ts";
import type { Caller } from "#services/gateway/http/authenticate.ts";
import { createMeansSeen } from "#services/gateway/http/body.ts";
import { createRoom } from "#services/gateway/http/in-flight.ts";
import type { MoneyParts } from "#services/gateway/money/hold.ts";
import type { GatewayParts, GatewayRequest } from "./parts.ts";
import { createRefusalCaps } from "#services/gateway/http/refusal-caps.ts";
import { createReadOns } from "#services/gateway/way/read-ons.ts";
import type { Writer, WriterLife } from "#services/gateway/money/writer.ts";

/** Failed logins per caller address and minute, and refusals per key and minute for a key without a rate limit. */
const LOGINS_MAX = 60;
const REFUSALS_MAX = 600;
const REFUSALS_PER_RPM = 10;
/** So many logins wait at once for a key directory that cannot answer yet; whoever comes then is told to come again. */
const WAITING_LOGINS_MAX = 256;
const TOO_MANY = "Too many refused requests; look at what is refused before you try again";
/** After the drain, running calls are cut and have this long to be settled and told to their clients. */
const CUT_MS_MAX = 4_500;
/** Then all connections are closed, and whoever served one has this long to notice. */
const HUNG_UP_MS_MAX = 500;
const SEAL_MS_MAX = 1_000;
/** The longest that a stop takes beyond its drain. */
export const STOP_MS_MAX = CUT_MS_MAX + HUNG_UP_MS_MAX + SEAL_MS_MAX;

/** A call that runs, as the gateway may end it. */
interface Running {
  cut(why: "journal_sealed" | "stopping"): void;
}

/** How a gateway ended. */
export interface StoppedGateway {
  /** False: a ledger, or the next start, seals its journal, and frees what is held. Nothing is lost by that. */
  readonly isSealed: boolean;
  /** Answered requests whose end is in no journal: nobody is charged for them, whatever the provider bills. */
  readonly unrecorded: number;
}

/** A gateway: its parts, its writer, and what it keeps count of. */
export type Gateway = ReturnType<typeof createGateway>;

/** Puts a gateway together around its writer. */
export function createGateway(parts: GatewayParts, writer: Writer, author: Author) {
  const { clock, telemetry } = parts;
  const { inFlightBytesMax, bodyBytesMax, answerBytesMax } = parts.limits;
  const inFlight = createRoom({ bytesMax: inFlightBytesMax, bodyBytesMax, answerBytesMax });
  const caps = createRefusalCaps(clock, TOO_MANY);
  const running = new Set<Running>();
  const active = new Set<Promise<void>>();
  const charging = new Set<Promise<unknown>>();
  let waitingLogins = 0;
  let stopping = false;
  let cutting = false;

  /** Counts a request as active until it is through. */
  function track(work: Promise<void>): Promise<void> {
    const tracked = work.finally(() => active.delete(tracked));
    active.add(tracked);
    return tracked;
  }

  const money: MoneyParts = {
    admission: parts.admission,
    clock,
    telemetry,
    writer,
    author,
    untilRecorded(charge) {
      charging.add(charge);
      return charge.finally(() => charging.delete(charge));
    },
    background(work) {
      track(work).catch((error: unknown) =>
        telemetry.alarm("background_work_failed", { error: String(error) }),
      );
    },
  };
  return {
    parts,
    writer,
    inFlight,
    meansSeen: createMeansSeen(clock),
    readOns: createReadOns(),
    money,
    /** Waits for a forwarded call; when the writer's life ends meanwhile, the call is cut. */
    async whileRunning<T>(life: WriterLife, call: Running & { ended: Promise<T> }): Promise<T> {
      const cut = () => call.cut("journal_sealed");
      running.add(call);
      if (life.over.aborted) cut();
      if (cutting) call.cut("stopping");
      life.over.addEventListener("abort", cut);
      try {
        return await call.ended;
      } finally {
        life.over.removeEventListener("abort", cut);
        running.delete(call);
      }
    },
    /** Takes a place to wait before it is known who asks; undefined when as many wait already. Call what it gives once. */
    waitAsStranger(): (() => void) | undefined {
      if (waitingLogins >= WAITING_LOGINS_MAX) return undefined;
      waitingLogins += 1;
      return () => void (waitingLogins -= 1);
    },
    /** What is told to whoever is refused before its key is known. A failed login is counted per caller address. */
    refusedLogin({ remoteAddress }: GatewayRequest, error: ApiError): ApiError {
      if (statusOf(error) !== 401) return error;
      return caps.told(`address ${remoteAddress}`, LOGINS_MAX, error);
    },
    /** What is told after the login. Counted per key; a fault of the server (any 5xx) is nobody's doing and never counts. */
    refused({ keyId }: Caller, error: ApiError, rpm?: number): ApiError {
      if (statusOf(error) >= 500) return error;
      return caps.told(keyId, rpm === undefined ? REFUSALS_MAX : rpm * REFUSALS_PER_RPM, error);
    },
    track,
    isStopping: () => stopping,
    /**
     * Lets what runs finish within `drainMs`, then cuts it; waits for the records, closes with `hangUp` the connections of
     * clients that go on all the same, and seals the journal: {@link STOP_MS_MAX} beyond the drain at most.
     */
    async stop(drainMs: number, hangUp = () => {}): Promise<StoppedGateway> {
      stopping = true;
      const all = async () => {
        while (active.size > 0) await Promise.allSettled(active);
      };
      if ((await within(clock, drainMs, all())) === TIMED_OUT) {
        cutting = true;
        for (const call of running) call.cut("stopping");
        await within(clock, CUT_MS_MAX, all());
        hangUp();
      }
      // A journal with work that is not through stays unsealed: the next start seals it and expires what is open.
      const isSettled = (await within(clock, HUNG_UP_MS_MAX, all())) !== TIMED_OUT;
      const isSealed = isSettled && (await within(clock, SEAL_MS_MAX, writer.stop())) !== TIMED_OUT;
      return { isSealed, unrecorded: running.size + charging.size };
    },
  };
}
