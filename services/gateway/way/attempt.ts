import type { Binding } from "#domain/catalogue/types.ts";
import type { Attempt } from "#domain/events/schemas.ts";
import type { Gateway } from "#services/gateway/gateway.ts";
import type { Body } from "#services/gateway/http/body.ts";
import type { OpenHold } from "#services/gateway/money/hold.ts";
import type { Offer } from "#services/gateway/money/offer.ts";
import type { WriterLife } from "#services/gateway/money/writer.ts";
import type { AnswerStream, Shape } from "#services/gateway/shapes/shape.ts";
import type { Answer } from "./answer.ts";
import { forward, type Ended, type Forwarded } from "./forward.ts";

/** An admitted request, and all that is needed to call an upstream for it. */
export interface Admitted {
  readonly shape: Shape;
  readonly offer: Offer;
  readonly hold: OpenHold;
  readonly life: WriterLife;
  readonly body: Body;
}

/** One call of an upstream, which has ended. */
export interface Tried {
  readonly binding: Binding;
  /** Whom it went to, as the event names it. */
  readonly to: Pick<Attempt, "host" | "hostKey">;
  /** The credential it went with, which may not be repeated to anybody. */
  readonly credential: string;
  readonly stream: AnswerStream | undefined;
  readonly forwarded: Forwarded;
  readonly ended: Ended;
}

/** Whether another candidate may be tried: only where it is certain that the upstream never had the request. */
export function mayTryAnother({ ended }: Tried): boolean {
  return ended.how === "failed" && ended.why === "connect";
}

/**
 * Calls one candidate for an admitted request and comes back when that has ended. Does not throw. Behind the last one the
 * body's bytes are of no more use, and are kept no longer than their call needs them.
 */
export async function attempt(
  gateway: Gateway,
  answer: Answer,
  { shape, offer, hold, life, body }: Admitted,
  binding: Binding,
  isLast: boolean,
): Promise<Tried> {
  const { parts } = gateway;
  const { ask, outputCapTokens } = offer;
  const { upstreamModel, outputCapName } = binding;
  const { slug, pinsServiceTier } = binding.host;
  const endpoint = parts.hosts.get(slug);
  if (!endpoint) throw new Error(`host ${slug} is in the catalogue but has no endpoint`);
  const { orgId } = hold.ask;
  const stream = ask.stream ? shape.openStream(ask) : undefined;
  const forwarded = forward({
    upstream: parts.upstream,
    clock: parts.clock,
    limits: parts.limits,
    inFlight: gateway.inFlight.answersOf(orgId),
    answer,
    stream,
    sent: body.give,
    readOn: () => gateway.readOns.begin(orgId),
    call: {
      requestId: answer.requestId,
      orgId,
      baseUrl: endpoint.baseUrl,
      path: shape.path,
      headers: {
        authorization: `Bearer ${endpoint.credential}`,
        "content-type": "application/json",
        accept: ask.stream ? "text/event-stream" : "application/json",
        "x-client-request-id": answer.requestId,
      },
      body: shape.upstreamBody(isLast ? body.take() : body.bytes(), ask, {
        upstreamModel,
        outputCapName,
        outputCapTokens,
        pinsServiceTier,
      }),
    },
  });
  const ended = await gateway.whileRunning(life, forwarded);
  const { credential, hostKey } = endpoint;
  return { binding, to: { host: slug, hostKey }, credential, stream, forwarded, ended };
}
