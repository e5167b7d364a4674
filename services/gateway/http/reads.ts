import { bindingsFor } from "#domain/catalogue/lookup.ts";
import type { Binding } from "#domain/catalogue/types.ts";
import { formatDollars } from "#domain/money.ts";
import { TOKEN_CLASSES, type ContextTier } from "#domain/prices.ts";
import type { ApiError } from "#services/errors.ts";
import { authenticate, type Caller } from "./authenticate.ts";
import { answering, openAnswer, type Answer } from "#services/gateway/way/answer.ts";
import { refuse, refuseLogin } from "./refuse.ts";
import type { Gateway } from "#services/gateway/gateway.ts";
import { SHAPES } from "#services/gateway/shapes/all.ts";
import type { GatewayRequest, Sink } from "#services/gateway/parts.ts";

const SERVED = `${SHAPES.map(({ path }) => `/v1${path}`).join(", ")}, /v1/models and /v1/balance`;

/** What a reading route answers: a JSON body, or a refusal. */
type Read = (
  gateway: Gateway,
  caller: Caller,
  request: GatewayRequest,
) => Promise<object | ApiError>;

/** A route that only reads: the key must be valid; nothing is held, counted against a limit, or charged. */
function handleRead(
  gateway: Gateway,
  route: string,
  request: GatewayRequest,
  sink: Sink,
  read: Read,
): Promise<void> {
  const answer = openAnswer(gateway, route, request, sink);
  return answering(answer, () => answerRead(gateway, answer, request, read));
}

async function answerRead(
  gateway: Gateway,
  answer: Answer,
  request: GatewayRequest,
  read: Read,
): Promise<void> {
  const authenticated = await authenticate(gateway.parts, request.headers);
  if (!authenticated.ok) return refuseLogin(gateway, answer, request, authenticated.error);
  const { caller } = authenticated;
  if (request.method !== "GET") {
    return refuse(gateway, answer, caller, { code: "method_not_allowed", extra: { allow: "GET" } });
  }
  const found = await read(gateway, caller, request);
  if ("code" in found) return refuse(gateway, answer, caller, found);
  answer.count({ status: 200, code: "ok" });
  await answer.deliver(Buffer.from(JSON.stringify(found)));
}

/** `GET /v1/models`: what can be asked for here, in OpenAI's shape, with what relai knows beside it. */
export function handleModels(gateway: Gateway, request: GatewayRequest, sink: Sink): Promise<void> {
  return handleRead(gateway, "/v1/models", request, sink, () => {
    const { catalogue, region } = gateway.parts;
    const data = [...catalogue.models.keys()]
      .sort()
      .flatMap((id) => bindingsFor(catalogue, id, region)[0] ?? [])
      .map((binding) => modelObject(binding, region));
    return Promise.resolve({ object: "list", data });
  });
}

/** `GET /v1/models/{id}`. */
export function handleModel(
  gateway: Gateway,
  id: string,
  request: GatewayRequest,
  sink: Sink,
): Promise<void> {
  return handleRead(gateway, "/v1/models/{id}", request, sink, () => {
    const { catalogue, region } = gateway.parts;
    const binding = bindingsFor(catalogue, id, region)[0];
    if (binding) return Promise.resolve(modelObject(binding, region));
    const message = "The model does not exist here; GET /v1/models lists what this key can use";
    return Promise.resolve({ code: "model_not_found", param: "model", message } satisfies ApiError);
  });
}

function modelObject({ model, price }: Binding, region: string) {
  return {
    id: model.id,
    object: "model",
    created: model.createdUnix,
    owned_by: model.ownedBy,
    relai: {
      operation: model.operation,
      context_window_tokens: model.contextWindowTokens,
      output_tokens_max: model.outputTokensMax,
      output_tokens_default: model.outputTokensDefault,
      regions: [region],
      prices_pico_per_token: Object.fromEntries(
        Object.entries(price).map(([serviceTier, tiers]) => [serviceTier, tiers?.map(priceObject)]),
      ),
    },
  };
}

/** The sale side only: what the provider charges us is not the caller's. */
function priceObject({ fromInputTokens, salePico }: ContextTier) {
  const prices: Record<string, number> = { from_input_tokens: fromInputTokens };
  for (const name of TOKEN_CLASSES) {
    prices[name.replaceAll(/[A-Z]/g, (capital) => `_${capital.toLowerCase()}`)] = salePico[name];
  }
  return prices;
}

/** `GET /v1/balance`: the organization's credit as admission sees it at this moment. */
export function handleBalance(
  gateway: Gateway,
  request: GatewayRequest,
  sink: Sink,
): Promise<void> {
  return handleRead(gateway, "/v1/balance", request, sink, async (_gateway, { orgId, keyId }) => {
    const found = await gateway.parts.admission.figures({ orgId, keyId });
    if (found.outcome === "fenced") return { code: "ledger_unavailable", retryAfterSeconds: 1 };
    const { balance, budget, asOfMs } = found;
    const creditsMicro = balance.fundedMicro - balance.spentMicro;
    return {
      object: "balance",
      credits_micro: creditsMicro,
      credits_dollars: formatDollars(creditsMicro),
      held_micro: balance.heldMicro,
      available_micro: balance.availableMicro,
      leased: {},
      ...(budget
        ? {
            key_budget: {
              budget_micro: budget.fundedMicro,
              spent_micro: budget.spentMicro,
              held_micro: budget.heldMicro,
              available_micro: budget.availableMicro,
            },
          }
        : {}),
      as_of: new Date(asOfMs).toISOString(),
    };
  });
}

/** Any other path: who asks is looked at first, so that a stranger learns nothing of the routes. */
export function handleUnknown(
  gateway: Gateway,
  request: GatewayRequest,
  sink: Sink,
): Promise<void> {
  return handleRead(gateway, "unknown", { ...request, method: "GET" }, sink, () =>
    Promise.resolve({
      code: "not_found",
      message: `Unknown request URL; relai serves ${SERVED}`,
    } satisfies ApiError),
  );
}
