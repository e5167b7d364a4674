import { expect, test } from "vitest";
import { makeKeyText } from "#domain/key-text.ts";
import { gatewayWorld, settled } from "#test/worlds/gateway-world.ts";
import { handleModels } from "./reads.ts";

/** A key that is well formed and that nobody issued. */
const key = makeKeyText("us", (count) => new Uint8Array(count).fill(9));
const stranger = { method: "GET", more: { authorization: `Bearer ${key}` } };

test("while the directory says nothing, what strangers set going is bounded", async () => {
  const world = await gatewayWorld();
  const { directory, store } = world.gateway.parts;
  let [lookups, reads] = [0, 0];
  directory.lookup = () => {
    lookups += 1;
    return Promise.reject(new Error("the key directory has not been filled yet"));
  };
  const { read } = store;
  store.read = (...asked) => {
    reads += 1;
    return read(...asked);
  };
  const strangers = Array.from({ length: 1_000 }, () => world.ask(handleModels, stranger));
  await settled();
  const told = strangers.filter(({ status }) => status === 503);
  expect([told.length, told[0]?.headers["retry-after"]]).toEqual([1_000 - 256, "1"]);
  expect([lookups, reads]).toEqual([1_000, 1]);
  await world.clock.advance(1_000);
  expect(strangers.filter(({ status }) => status === 503)).toHaveLength(1_000);
  expect([lookups, reads]).toEqual([1_000 + 4 * 256, 1]);
  // A place is given back.
  const next = world.ask(handleModels, stranger);
  await settled();
  expect([next.status, lookups]).toEqual([undefined, 1_000 + 4 * 256 + 1]);
  await world.clock.advance(1_000);
  expect([next.status, reads]).toEqual([503, 2]);
});

test("a directory whose server hangs is waited for once, not five times", async () => {
  const world = await gatewayWorld();
  const { directory, clock } = world.gateway.parts;
  let lookups = 0;
  directory.lookup = () => {
    lookups += 1;
    return new Promise((_, reject) => {
      clock.timer(1_000, () => reject(new Error("no answer")));
    });
  };
  const answer = world.ask(handleModels, stranger);
  await world.clock.advance(1_000);
  expect([answer.status, lookups]).toEqual([503, 1]);
});
