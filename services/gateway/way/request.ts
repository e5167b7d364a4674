import type { Attempt } from "#domain/events/schemas.ts";
import type { Gateway } from "#services/gateway/gateway.ts";
import { authenticate } from "#services/gateway/http/authenticate.ts";
import { readBody } from "#services/gateway/http/body.ts";
import { openHold, releaseHold } from "#services/gateway/money/hold.ts";
import { makeOffer } from "#services/gateway/money/offer.ts";
import { rateHeaders, refusalOf } from "#services/gateway/money/refusals.ts";
import type { GatewayRequest, Handle } from "#services/gateway/parts.ts";
import type { Shape } from "#services/gateway/shapes/shape.ts";
import { answering, type Answer } from "./answer.ts";
import { BROKEN, conclude, GONE } from "./conclude.ts";
import { attempt, type Admitted } from "./forward.ts";

/**
 * The way of one request, in the nine steps of ARCHITECTURE.md: authenticate, read the body, resolve and price, reserve a
 * place, admit, record, forward, relay, record. Every step either goes on or ends with one refusal of the table in
 * services/errors.ts; the order of the refusals is the order of these steps.
 */
export function handleShape(shape: Shape): Handle {
  return answering(`/v1${shape.path}`, shape.errors, (gateway, request, answer) =>
    complete(gateway, shape, request, answer),
  );
}

async function complete(
  gateway: Gateway,
  shape: Shape,
  request: GatewayRequest,
  answer: Answer,
): Promise<void> {
  const { parts } = gateway;
  // 1 authenticate, by the headers only: no prompt is read for a key that is not at home here.
  const caller = await authenticate(gateway, request.headers);
  if ("code" in caller) return answer.fail(gateway.refusedLogin(request, caller));
  answer.caller = caller;
  // 2 read the body, within its limit and the room there is.
  const body = await readBody(gateway, caller, request);
  if ("code" in body) return answer.fail(gateway.refused(caller, body));
  if ("gone" in body) return answer.count(GONE);
  try {
    // 3 resolve and price: which bindings may serve it, and what is held for it.
    const { catalogue, region, limits } = parts;
    const offer = makeOffer(shape, catalogue, region, body.bytes(), limits.bodyDepthMax);
    if ("code" in offer) return answer.fail(gateway.refused(caller, offer));
    answer.model = offer.ask.model;
    // 4 reserve a place in the journal first, so that a full queue is a refusal that took nothing.
    const life = gateway.writer.life();
    if (!life?.journal.reserve()) {
      const code = life?.journal.isFull() ? "overloaded" : "ledger_unavailable";
      return answer.fail({ code, retryAfterSeconds: 1 });
    }
    let undoing: Promise<void> | undefined;
    try {
      // 5 admit and 6 record: the money is held and RequestAdmitted is durable before anything goes out.
      const { requestId, clientRequestId } = answer;
      const ask = { requestId, clientRequestId, ...caller, offer };
      const opened = await openHold(gateway.money, life, ask);
      if (opened.outcome === "unavailable") {
        undoing = opened.undoing;
        return answer.fail({ code: "ledger_unavailable", retryAfterSeconds: 1 });
      }
      if (opened.outcome === "refused") {
        answer.addHeaders(rateHeaders(opened.rate));
        const refusal = refusalOf(opened, offer);
        return answer.fail(gateway.refused(caller, refusal, opened.rate?.limit));
      }
      const { hold } = opened;
      answer.addHeaders(rateHeaders(hold.rate));
      // 7 forward, 8 relay, 9 record: the last bytes wait for the record.
      await serve(gateway, answer, { shape, offer, hold, life, body });
    } finally {
      // Places bound how many admissions are being undone, however long the admission store answers nothing.
      if (undoing) void undoing.catch(() => {}).then(() => life.journal.release());
      else life.journal.release();
    }
  } finally {
    body.give();
  }
}

/** Calls the candidates of an admitted request until one has it, and concludes. Whatever goes wrong in here ends the hold. */
async function serve(gateway: Gateway, answer: Answer, admitted: Admitted): Promise<void> {
  const { hold, offer } = admitted;
  if (answer.isGone()) {
    const facts = { forwarded: false, clientGone: true, attempts: [], unbilledMicro: 0 };
    await releaseHold(hold, { reason: "client_gone", ...facts });
    return answer.count(GONE);
  }
  const before: Attempt[] = [];
  try {
    for (const binding of offer.candidates) {
      answer.attempts += 1;
      const isLast = answer.attempts === offer.candidates.length;
      const tried = await attempt(gateway, answer, admitted, binding, isLast);
      // Only where it is certain that the upstream never had the request; and nobody else gets the prompt of a client
      // that has left.
      const { ended } = tried;
      const isUnreached = ended.how === "failed" && ended.why === "connect";
      if (isUnreached && !isLast && !answer.isGone()) {
        before.push({ ...tried.to, outcome: BROKEN.connect.outcome });
        continue;
      }
      try {
        return await conclude({ gateway, answer, admitted, tried, before });
      } finally {
        tried.forwarded.forget();
      }
    }
  } catch (error) {
    if (!hold.isEnding) {
      await releaseHold(hold, {
        reason: "internal_error",
        forwarded: true,
        clientGone: answer.isGone(),
        attempts: before,
        unbilledMicro: hold.totalCostMicro,
      });
    }
    throw error;
  }
}
