import { expect, test } from "vitest";
import { completion, FUNDED_MICRO, gatewayWorld, settled } from "#test/worlds/gateway-world.ts";
import { handleChat } from "#test/worlds/chat-way.ts";

test("an extension that went unanswered may arrive behind everything else: the hold's end is then the ledger's", async () => {
  const world = await gatewayWorld();
  const { extend, apply } = world.admission;
  const late: (() => Promise<unknown>)[] = [];
  world.admission.extend = (ask) => {
    late.push(() => extend(ask));
    return new Promise(() => {});
  };
  const answer = world.ask(handleChat);
  await settled();
  // The ledger is behind, so that nothing has forgotten the hold yet.
  let goOn = () => {};
  const behind = new Promise<void>((resolve) => (goOn = resolve));
  world.admission.apply = (ask) => behind.then(() => apply(ask));
  world.calls[0]?.answer(completion([FUNDED_MICRO, 5]));
  await world.clock.advance(3_000);
  await answer.done;
  expect(answer.status).toBe(200);
  expect(late.length).toBeGreaterThan(0);
  for (const arrive of late) await arrive();
  expect(world.alarms).not.toContain("fault");
  goOn();
  await world.clock.advance(1_000);
  const { spent } = await world.balance();
  expect((await world.recorded()).at(-1)?.data).toMatchObject({ chargedMicro: spent });
  for (const arrive of late) await arrive();
  expect(world.alarms).not.toContain("fault");
  await world.expectAtRest();
});
