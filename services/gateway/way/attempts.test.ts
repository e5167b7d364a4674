import { expect, test } from "vitest";
import { buildCatalogue } from "#domain/catalogue/build.ts";
import type { Binding, Catalogue } from "#domain/catalogue/types.ts";
import { handleChat } from "#test/worlds/chat-way.ts";
import { completion, FUNDED_MICRO, gatewayWorld, settled } from "#test/worlds/gateway-world.ts";

/** One model at two hosts, the second of which has a price of its own. */
function atTwoHosts(): Catalogue {
  const built = buildCatalogue({ openai: false, simulator: true, processingArea: "us" });
  const [first] = built.bindings.get("sim-flat") ?? [];
  const [dear] = built.bindings.get("sim-large") ?? [];
  if (!first || !dear) throw new Error("the simulator's models are not there");
  const second: Binding = {
    ...first,
    id: "sim-flat@second",
    host: { ...first.host, slug: "second" },
    priceVersion: "test:sim-flat@second",
    price: dear.price,
  };
  return { ...built, bindings: new Map([["sim-flat", [first, second]]]) };
}

async function asked() {
  const endpoint = (port: number, hostKey: string) => ({
    baseUrl: `http://127.0.0.1:${port}/v1`,
    credential: `credential-${hostKey}`,
    hostKey,
  });
  const world = await gatewayWorld({
    parts: {
      catalogue: atTwoHosts(),
      hosts: new Map([
        ["simulator", endpoint(1, "one")],
        ["second", endpoint(2, "two")],
      ]),
    },
  });
  const answer = world.ask(handleChat);
  await settled();
  const lastEvent = async () => (await world.recorded()).at(-1)?.data;
  return { world, answer, lastEvent };
}

const COULD_NOT_CONNECT = { host: "simulator", hostKey: "one", outcome: "unreachable" };

test("where no connection comes about the next host is called, with the same body, and charged once at its price", async () => {
  const { world, answer, lastEvent } = await asked();
  world.calls[0]?.fail("connect");
  await settled();
  const [first, second] = world.calls;
  expect(world.calls).toHaveLength(2);
  expect(second?.call.baseUrl).toBe("http://127.0.0.1:2/v1");
  expect(second?.call.headers["authorization"]).toBe("Bearer credential-two");
  expect(second?.call.body).toEqual(first?.call.body);
  second?.answer(completion([10, 2]));
  await answer.done;
  expect(answer.status).toBe(200);
  expect(answer.headers).toMatchObject({ "x-relai-attempts": "2", "x-relai-cost-micro": "60" });
  expect(await world.types()).toEqual(["RequestAdmitted.v1", "UsageRecorded.v1"]);
  expect(await lastEvent()).toMatchObject({
    bindingId: "sim-flat@second",
    chargedMicro: 60,
    attempts: [
      COULD_NOT_CONNECT,
      { host: "second", hostKey: "two", outcome: "answered", status: 200 },
    ],
  });
  expect(await world.balance()).toEqual({ available: FUNDED_MICRO - 60, held: 0, spent: 60 });
  await world.expectAtRest();
});

test.each(["reset", "refused"])(
  "what may have been taken up is not sent to another: %s",
  async (how) => {
    const { world, answer, lastEvent } = await asked();
    if (how === "reset") world.calls[0]?.fail("reset");
    else world.calls[0]?.answer({ error: { message: "overloaded" } }, 503);
    await answer.done;
    expect(world.calls).toHaveLength(1);
    expect(answer.status).toBe(502);
    expect(await lastEvent()).toMatchObject({ attempts: [{ host: "simulator" }] });
    await world.expectAtRest();
  },
);

test("where nobody can be reached the caller gets one error, and every try is in the books", async () => {
  const { world, answer, lastEvent } = await asked();
  world.calls[0]?.fail("connect");
  await settled();
  world.calls[1]?.fail("connect");
  await answer.done;
  expect(answer.status).toBe(502);
  expect(await lastEvent()).toMatchObject({
    reason: "upstream_error",
    unbilledMicro: 0,
    attempts: [COULD_NOT_CONNECT, { host: "second", outcome: "unreachable" }],
  });
  expect(await world.balance()).toMatchObject({ available: FUNDED_MICRO });
  await world.expectAtRest();
});

test("nobody else gets the prompt of a client that has left", async () => {
  const { world, answer, lastEvent } = await asked();
  world.calls[0]?.fail("connect");
  answer.leave();
  await answer.done;
  expect(world.calls).toHaveLength(1);
  expect(await lastEvent()).toMatchObject({
    clientGone: true,
    forwarded: false,
    unbilledMicro: 0,
    attempts: [COULD_NOT_CONNECT],
  });
  expect(world.counted).toMatchObject([{ status: 499, code: "client_gone" }]);
  await world.expectAtRest();
});
