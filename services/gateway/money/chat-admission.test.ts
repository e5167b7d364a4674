import { describe, expect, test } from "vitest";
import type { AppendOutcome } from "#services/ports.ts";
import { completion, gatewayWorld, settled } from "#test/worlds/gateway-world.ts";
import { handleChat } from "#test/worlds/chat-way.ts";

/** The way of a request when the admission store fails under it. */

const REFUSED: AppendOutcome = { outcome: "refused", reason: "disk_full" };

describe("an admission store that does not answer", () => {
  test("is a 503 within its limit, and the admission is undone when it answers again", async () => {
    const world = await gatewayWorld();
    const { admit, drop } = world.admission;
    let isBack = false;
    // The money is taken, the answer lost, and nothing answers for a while.
    world.admission.admit = (ask) => admit(ask).then(() => new Promise(() => {}));
    world.admission.drop = (ask) => (isBack ? drop(ask) : Promise.reject(new Error("no answer")));
    const answer = world.ask(handleChat);
    await world.clock.advance(1_001);
    await answer.done;
    expect(answer.status).toBe(503);
    expect((await world.balance()).held).toBeGreaterThan(0);
    isBack = true;
    await world.clock.advance(5_000);
    await world.expectAtRest();
  });

  test.each(["its answer is lost", "the taking is not recorded"])(
    "bounds what is to be undone: each keeps its request's place until it is, when %s",
    async (why) => {
      const world = await gatewayWorld();
      const { admit, drop } = world.admission;
      const journal = world.gateway.writer.life()?.journal;
      if (why === "its answer is lost")
        world.admission.admit = (ask) => admit(ask).then(() => new Promise(() => {}));
      else world.judge = () => REFUSED;
      world.admission.drop = () => Promise.reject(new Error("no answer"));
      // All places but one are taken.
      let others = 0;
      while (journal?.reserve()) others += 1;
      journal?.release();
      const codes: unknown[] = [];
      for (let request = 0; request < 3; request++) {
        const answer = world.ask(handleChat);
        await world.clock.advance(2_000);
        await answer.done;
        codes.push(answer.json().error["code"]);
      }
      expect(codes).toEqual(["ledger_unavailable", "overloaded", "overloaded"]);
      Object.assign(world.admission, { admit, drop });
      world.judge = undefined;
      await world.clock.advance(5_000);
      const next = world.ask(handleChat);
      await settled();
      world.calls[0]?.answer(completion([7, 5]));
      await next.done;
      expect(next.status).toBe(200);
      for (let other = 1; other < others; other++) journal?.release();
      await world.expectAtRest();
    },
  );

  test("does not keep a caller waiting whose taking was not recorded", async () => {
    const world = await gatewayWorld();
    world.admission.drop = () => Promise.reject(new Error("no answer"));
    world.judge = () => REFUSED;
    const answer = world.ask(handleChat);
    await world.clock.advance(2_000);
    await answer.done;
    expect(answer.status).toBe(503);
  });

  test("is away, which is known before anything is sent: a 503 at once, and nothing is to be undone", async () => {
    const world = await gatewayWorld();
    const { admit } = world.admission;
    world.admission.admit = () => Promise.resolve({ outcome: "fenced", fenced: "away" });
    world.admission.drop = () => Promise.reject(new Error("there is nothing to drop"));
    const answer = world.ask(handleChat);
    await settled();
    await answer.done;
    expect([answer.status, answer.headers["retry-after"]]).toEqual([503, "1"]);
    await world.expectAtRest();
    world.admission.admit = admit;
    const next = world.ask(handleChat);
    await settled();
    world.calls[0]?.answer(completion([7, 5]));
    await next.done;
    expect(next.status).toBe(200);
  });

  test("at the close changes nothing for the caller: the ledger sets it right", async () => {
    const world = await gatewayWorld();
    const answer = world.ask(handleChat);
    await settled();
    world.admission.close = () => new Promise(() => {});
    world.calls[0]?.answer(completion([7, 5]));
    await world.clock.advance(1_001);
    await answer.done;
    expect(answer.status).toBe(200);
    await world.expectAtRest();
    expect((await world.balance()).spent).toBe(12);
  });
});
