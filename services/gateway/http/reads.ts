import type { Binding } from "#domain/catalogue/types.ts";
import { formatDollars } from "#domain/money.ts";
import { TOKEN_CLASSES, type ContextTier } from "#domain/prices.ts";
import type { ApiError } from "#services/errors.ts";
import { figuresOnceIn } from "#services/figures.ts";
import { authenticate, type Caller } from "./authenticate.ts";
import { answering } from "#services/gateway/way/answer.ts";
import { MODEL_NOT_FOUND } from "#services/gateway/money/offer.ts";
import { budgetExtra } from "#services/gateway/money/refusals.ts";
import type { Gateway } from "#services/gateway/gateway.ts";
import { SHAPES } from "#services/gateway/shapes/all.ts";
import { OPENAI_ERRORS } from "#services/gateway/shapes/openai/errors.ts";
import type { Handle } from "#services/gateway/parts.ts";

const SERVED = `${SHAPES.map(({ path }) => `/v1${path}`).join(", ")}, /v1/models and /v1/balance`;

/** What a reading route answers: a JSON body, or a refusal. */
type Read = (gateway: Gateway, caller: Caller) => Promise<object | ApiError>;

/**
 * A route that only reads: the key must be valid; nothing is held, counted against a limit, or charged. It is asked by GET
 * unless `anyMethod` says that its answer is the same for all.
 */
function reading(route: string, read: Read, anyMethod = false): Handle {
  return answering(route, OPENAI_ERRORS, async (gateway, request, answer) => {
    const caller = await authenticate(gateway, request.headers);
    if ("code" in caller) return answer.fail(gateway.refusedLogin(request, caller));
    answer.caller = caller;
    if (request.method !== "GET" && !anyMethod)
      return answer.fail(gateway.refused(caller, NOT_GET));
    const found = await read(gateway, caller);
    if ("code" in found) return answer.fail(gateway.refused(caller, found));
    answer.count({ status: 200, code: "ok" });
    await answer.deliver(Buffer.from(JSON.stringify(found)));
  });
}

const NOT_GET: ApiError = { code: "method_not_allowed", extra: { allow: "GET" } };

/** `GET /v1/models`: what can be asked for here, in OpenAI's shape, with what relai knows beside it. */
export const handleModels = reading("/v1/models", ({ parts: { catalogue, region } }) => {
  const data = [...catalogue.bindings.keys()]
    .sort()
    .flatMap((id) => catalogue.bindings.get(id)?.[0] ?? [])
    .map((binding) => modelObject(binding, region));
  return Promise.resolve({ object: "list", data });
});

/** `GET /v1/models/{id}`. */
export const handleModel = (id: string): Handle =>
  reading("/v1/models/{id}", ({ parts: { catalogue, region } }) => {
    const binding = catalogue.bindings.get(id)?.[0];
    return Promise.resolve(binding ? modelObject(binding, region) : MODEL_NOT_FOUND);
  });

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
export const handleBalance = reading("/v1/balance", async ({ parts }, { orgId, keyId }) => {
  const found = await figuresOnceIn(parts, { orgId, keyId }).catch(() => undefined);
  if (found?.outcome !== "figures") return { code: "ledger_unavailable", retryAfterSeconds: 1 };
  const { balance, budget, asOfMs } = found;
  const creditsMicro = balance.fundedMicro - balance.spentMicro;
  return {
    object: "balance",
    credits_micro: creditsMicro,
    credits_dollars: formatDollars(creditsMicro),
    held_micro: balance.heldMicro,
    available_micro: balance.availableMicro,
    leased: {},
    ...(budget && { key_budget: budgetExtra(budget) }),
    as_of: new Date(asOfMs).toISOString(),
  };
});

const UNKNOWN: ApiError = {
  code: "not_found",
  message: `Unknown request URL; relai serves ${SERVED}`,
};

/** Any other path: who asks is looked at first, so that a stranger learns nothing of the routes. */
export const handleUnknown = reading("unknown", () => Promise.resolve(UNKNOWN), true);
