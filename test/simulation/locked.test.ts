import { describe, expect, test } from "vitest";
import { ASKING, atRest, hasSealed, oneCustomer, SEEDS, sumOf } from "./scenario.ts";

/** A region in one process that has locked its data folder, as the product runs. */
const locked = (seed: number) => oneCustomer({ seed, death: "lock" }, 100_000);

describe("a region in one process that is killed with calls running", () => {
  test.each(SEEDS)("is sealed and expired by the next start, at once, seed %i", async (seed) => {
    const { world, org, key } = await locked(seed);
    const directives = "[sim output=5 first=60000]";
    for (let place = 0; place < 4; place++)
      world.ask(place % 2, { ...ASKING, keyText: key.text, directives });
    await world.until("the upstream has the calls", () => world.book.length === 4, 5_000);
    const before = world.servers.admission().state;
    world.ledger().process.end();
    expect(sumOf(world, org).heldMicro).toBeGreaterThan(0);
    await world.until(
      "the next start serves",
      () => world.ledger().ledger()?.isReady() === true,
      15_000,
    );
    await atRest(world);
    // Another memory, filled from the events; nobody waited for anybody's silence.
    expect(world.servers.admission().state).not.toBe(before);
    const types = world.watch.events.map((event) => event.type);
    expect(types.filter((type) => type === "RequestExpired.v1").length).toBe(4);
    expect(sumOf(world, org)).toMatchObject({ heldMicro: 0, chargedMicro: 0 });
    const next = world.ask(1, { ...ASKING, keyText: key.text });
    await world.until("the next request is served", () => next.over, 30_000);
    expect(next.complete).toBe(true);
    await world.close();
  });
});

describe("a region in one process that was stopped for an hour and goes on", () => {
  test.each(SEEDS)("is the same writer as before and serves at once, seed %i", async (seed) => {
    const { world, key } = await locked(seed);
    const gateway = world.gateways[0];
    const journal = gateway?.serving()?.writer.life()?.journal;
    const served = world.ask(0, { ...ASKING, keyText: key.text });
    await world.until("a request is served", () => served.over, 10_000);
    gateway?.process.pause();
    const asked = Array.from({ length: 5 }, () => world.ask(0, { ...ASKING, keyText: key.text }));
    await world.pass(3_600_000);
    expect(hasSealed(world)).toBe(false);
    gateway?.process.resume();
    await world.until("all are served", () => asked.every((one) => one.over), 10_000);
    expect(asked.every((one) => one.complete)).toBe(true);
    expect(world.gateways[0]?.serving()?.writer.life()?.journal).toBe(journal);
    await atRest(world);
    await world.close();
  });
});
