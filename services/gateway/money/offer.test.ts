import { describe, expect, test } from "vitest";
import { buildCatalogue } from "#domain/catalogue/build.ts";
import { pricesAt } from "#domain/catalogue/lookup.ts";
import { holdFor } from "#domain/hold.ts";
import { chat, completion, gatewayWorld, settled } from "#test/worlds/gateway-world.ts";
import { handleChat, offerOf } from "#test/worlds/chat-way.ts";
import type { Offer } from "./offer.ts";

const OPENAI = { processingArea: "us", pinsServiceTier: true };
const catalogue = buildCatalogue({ openai: OPENAI, simulator: true, processingArea: "us" });

function offer(body: object): Offer {
  const made = offerOf(catalogue, Buffer.from(chat(body)));
  if ("code" in made) throw new Error(made.message);
  return made;
}

describe("an output cap", () => {
  test.each(["max_tokens", "max_completion_tokens"])(
    "%s above the model's own maximum is a 400 that names it, whatever it would cost",
    (name) => {
      const body = { max_tokens: undefined, [name]: 65_537 };
      expect(offerOf(catalogue, Buffer.from(chat(body)))).toEqual({
        code: "invalid_request",
        param: name,
        message: `'${name}' is 65537, and sim-flat writes at most 65536 tokens.`,
      });
      expect(offer({ ...body, [name]: 65_536 }).outputCapTokens).toBe(65_536);
    },
  );

  test("is named as the caller named it, also beside the other name with null", () => {
    const body = { max_tokens: null, max_completion_tokens: 1_000_000 };
    expect(offerOf(catalogue, Buffer.from(chat(body)))).toMatchObject({
      param: "max_completion_tokens",
    });
  });
});

describe("the service tier of a request that names none", () => {
  const asked = [{}, { service_tier: null }, { service_tier: "auto" }];

  test("holds the dearest tier of the binding where the upstream chooses", () => {
    for (const body of asked) {
      const made = offer({ model: "sim-tiers", ...body });
      const price = made.candidates[0]?.price;
      if (!price) throw new Error("the model has a binding");
      const dearest = pricesAt(price, "priority", made.bounds.inputTokensBound);
      expect(made.holdMicro).toBe(holdFor(made.bounds, dearest).holdMicro);
      expect(made.holdMicro).toBeGreaterThan(
        offer({ model: "sim-tiers", service_tier: "default" }).holdMicro,
      );
    }
  });

  test("holds the default tier at OpenAI, for there it is asked for by name", () => {
    for (const body of asked) {
      const made = offer({ model: "gpt-5.4", ...body });
      expect(made.holdMicro).toBe(offer({ model: "gpt-5.4", service_tier: "default" }).holdMicro);
      expect(made.holdMicro).toBeLessThan(
        offer({ model: "gpt-5.4", service_tier: "priority" }).holdMicro,
      );
    }
  });

  test("is default in what goes to OpenAI, and is billed as it was served", async () => {
    const world = await gatewayWorld({
      parts: {
        catalogue,
        hosts: new Map([["openai", { baseUrl: "http://o/v1", credential: "c", hostKey: "k" }]]),
      },
    });
    const answer = world.ask(handleChat, {
      text: chat({ model: "gpt-5.4", service_tier: "auto" }),
    });
    await settled();
    const [call] = world.calls;
    expect(JSON.parse(String(call?.call.body))).toMatchObject({ service_tier: "default" });
    call?.answer({ ...completion([100, 10]), model: "gpt-5.4", service_tier: "priority" });
    await answer.done;
    const ended = (await world.recorded()).at(-1)?.data;
    expect(ended).toMatchObject({ serviceTier: "priority", tokens: { input: 100, output: 10 } });
    await world.expectAtRest();
  });
});
