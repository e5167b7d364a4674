import { authenticate, type Caller } from "#services/gateway/http/authenticate.ts";
import { readBody, type Body } from "#services/gateway/http/body.ts";
import { conclude } from "./conclude.ts";
import { forward, type Forwarded } from "./forward.ts";
import type { Gateway } from "#services/gateway/gateway.ts";
import { openHold, releaseHold, type OpenHold } from "#services/gateway/money/hold.ts";
import { makeOffer, type Offer } from "#services/gateway/money/offer.ts";
import { upstreamBody } from "#services/gateway/shapes/openai-chat/upstream-body.ts";
import type { GatewayRequest, Sink } from "#services/gateway/parts.ts";
import { rateHeaders, refusalOf } from "#services/gateway/money/refusals.ts";
import { answering, clientRequestId, refuse, refuseLogin, startRun, type Run } from "./answer.ts";
import type { WriterLife } from "#services/gateway/money/writer.ts";

/**
 * The way of one chat completion, in the nine steps of ARCHITECTURE.md: authenticate, read the body, resolve and price,
 * reserve a place, admit, record, forward, relay, record. Every step either goes on or ends with one refusal of the table
 * in services/errors.ts.
 */
export function handleChat(gateway: Gateway, request: GatewayRequest, sink: Sink): Promise<void> {
  const run = startRun(gateway, "/v1/chat/completions", request, sink);
  return answering(gateway, run, () => complete(gateway, run, request));
}

async function complete(gateway: Gateway, run: Run, request: GatewayRequest): Promise<void> {
  const { parts } = gateway;
  // 1 authenticate, by the headers only: no prompt is read for a key that is not at home here.
  const authenticated = await authenticate(parts, request.headers);
  if (!authenticated.ok) return refuseLogin(gateway, run, request, authenticated.error);
  const { caller } = authenticated;
  // 2 read the body, within its limit and the room there is.
  const body = await readBody(gateway, caller, request);
  if ("code" in body) return refuse(gateway, run, caller, body);
  if ("gone" in body) return gateway.count(run, { status: 499, code: "client_gone" });
  try {
    // 3 resolve and price: which bindings may serve it, and what is held for it.
    const offer = makeOffer(parts.catalogue, parts.region, body.bytes(), parts.limits.bodyDepthMax);
    if ("code" in offer) return refuse(gateway, run, caller, offer);
    run.model = offer.ask.model;
    // 4 reserve a place in the journal first, so that a full queue is a refusal that took nothing.
    const life = gateway.writer.life();
    if (!life)
      return refuse(gateway, run, caller, { code: "ledger_unavailable", retryAfterSeconds: 1 });
    if (!life.journal.reserve()) {
      const code = life.journal.isFull() ? "overloaded" : "ledger_unavailable";
      return refuse(gateway, run, caller, { code, retryAfterSeconds: 1 });
    }
    let undoing: Promise<void> | undefined;
    try {
      // 5 admit and 6 record: the money is held and RequestAdmitted is durable before anything goes out.
      const opened = await openHold(gateway.money, life, holdAskOf(run, request, caller, offer));
      if (opened.outcome === "unavailable") {
        undoing = opened.undoing;
        return refuse(gateway, run, caller, { code: "ledger_unavailable", retryAfterSeconds: 1 });
      }
      if (opened.outcome === "refused") {
        Object.assign(run.headers, rateHeaders(opened.refused.rate));
        return refuse(
          gateway,
          run,
          caller,
          refusalOf(opened.refused, offer),
          opened.refused.rate?.limit,
        );
      }
      Object.assign(run.headers, rateHeaders(opened.hold.admitted.rate));
      // 7 forward, 8 relay, 9 record: the last bytes wait for the record.
      await serve(gateway, run, life, offer, opened.hold, body);
    } finally {
      // Places bound how many admissions are being undone, however long the admission store answers nothing.
      if (undoing) void undoing.catch(() => {}).then(() => life.journal.release());
      else life.journal.release();
    }
  } finally {
    body.give();
  }
}

/** Forwards an admitted request, relays its answer and settles it. Whatever goes wrong in here ends the hold. */
async function serve(
  gateway: Gateway,
  run: Run,
  life: WriterLife,
  offer: Offer,
  hold: OpenHold,
  body: Body,
): Promise<void> {
  if (run.sink.isGone()) {
    const facts = { forwarded: false, clientGone: true, attempts: [], unbilledMicro: 0 };
    await releaseHold(gateway.money, hold, { reason: "client_gone", ...facts });
    return gateway.count(run, { status: 499, code: "client_gone" });
  }
  let forwarded: Forwarded | undefined;
  try {
    forwarded = call(gateway, run, offer, hold, body);
    const ended = await gateway.whileRunning(life, forwarded);
    await conclude(gateway, run, { offer, hold, forwarded, ended });
  } catch (error) {
    if (!hold.isEnding) {
      const facts = { forwarded: true, clientGone: run.sink.isGone(), attempts: [] };
      await releaseHold(gateway.money, hold, {
        reason: "internal_error",
        ...facts,
        unbilledMicro: hold.totalCostMicro,
      });
    }
    throw error;
  } finally {
    forwarded?.forget();
  }
}

function call(gateway: Gateway, run: Run, offer: Offer, hold: OpenHold, body: Body): Forwarded {
  const { parts } = gateway;
  const { ask, candidates, outputCapTokens } = offer;
  const [binding] = candidates;
  const host = parts.hosts.get(binding.host.slug);
  if (!host) throw new Error(`host ${binding.host.slug} is in the catalogue but has no endpoint`);
  const { upstreamModel, outputCapName } = binding;
  const { pinsServiceTier } = binding.host;
  return forward({
    upstream: parts.upstream,
    clock: parts.clock,
    limits: parts.limits,
    inFlight: gateway.inFlight.answersOf(hold.ask.orgId),
    sink: run.sink,
    sent: body.give,
    readOn: () => gateway.readOns.begin(hold.ask.orgId),
    streaming: ask.stream
      ? { includeUsageAsked: ask.includeUsageAsked, headers: streamHeaders(run) }
      : undefined,
    call: {
      requestId: run.requestId,
      orgId: hold.ask.orgId,
      baseUrl: host.baseUrl,
      path: "/chat/completions",
      headers: {
        authorization: `Bearer ${host.credential}`,
        "content-type": "application/json",
        accept: ask.stream ? "text/event-stream" : "application/json",
        "x-client-request-id": run.requestId,
      },
      body: upstreamBody(body.take(), ask, {
        upstreamModel,
        outputCapName,
        outputCapTokens,
        pinsServiceTier,
      }),
    },
  });
}

function holdAskOf(run: Run, request: GatewayRequest, caller: Caller, offer: Offer) {
  const [binding] = offer.candidates;
  return {
    requestId: run.requestId,
    ...caller,
    processingArea: binding.host.processingArea,
    model: offer.ask.model,
    bindings: offer.candidates,
    priceVersion: binding.priceVersion,
    holdMicro: offer.holdMicro,
    holdCostMicro: offer.holdCostMicro,
    clientRequestId: clientRequestId(request),
  };
}

function streamHeaders(run: Run): Record<string, string> {
  return {
    ...run.headers,
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
    "x-relai-model": run.model,
    "x-relai-attempts": "1",
  };
}
