import { describe, expect, test } from "vitest";
import {
  chat,
  completion,
  gatewayWorld,
  ORG,
  settled,
  type GatewayWorld,
  type RequestChanges,
} from "#test/worlds/gateway-world.ts";
import { handleChat } from "#test/worlds/chat-way.ts";

async function refused(world: GatewayWorld, changes: RequestChanges) {
  const answer = world.ask(handleChat, changes);
  await answer.done;
  const { error } = answer.json();
  return { status: answer.status, code: error["code"], error };
}

describe("who has nothing available is told so before a byte of the body is read", () => {
  const unread = () => {
    throw new Error("the body was read");
  };
  const account = { fundedMicro: 500, spentMicro: 500, heldMicro: 0, availableMicro: 0 };
  const full = { ...account, spentMicro: 0, availableMicro: 500 };
  const held = { ...account, spentMicro: 100, heldMicro: 400 };
  const told = { available_micro: 0, held_micro: 0 };
  test.each([
    ["no balance", { balance: account }, "insufficient_balance", { balance_micro: 0, ...told }],
    ["all of it held", { balance: held }, "balance_held", { balance_micro: 400, held_micro: 400 }],
    [
      "a budget used up",
      { balance: full, budget: account },
      "key_budget_exceeded",
      { budget_micro: 500, spent_micro: 500, ...told },
    ],
    ["neither", { balance: account, budget: account }, "key_budget_exceeded", told],
  ])("%s: 402, after what the headers decide", async (_name, figures, code, extra) => {
    const world = await gatewayWorld();
    world.admission.figures = ({ orgId, keyId }) => {
      expect([orgId, keyId]).toEqual([ORG, expect.stringMatching(/^key_/)]);
      return Promise.resolve({
        outcome: "figures",
        asOfMs: 1,
        unspentLots: 1,
        position: "start",
        ...figures,
      });
    };
    const { status, error } = await refused(world, { body: unread });
    expect([status, error["code"]]).toEqual([402, code]);
    expect(error).toMatchObject(extra);
    expect(Object.keys(error)).not.toContain("required_micro");
    expect((await refused(world, { more: { "content-type": "text/plain" } })).status).toBe(415);
    expect(await world.types()).toEqual([]);
  });

  test("by what admission itself knows: the last micro is spent, then there is a top-up", async () => {
    const world = await gatewayWorld();
    world.ask(handleChat, { text: chat({ max_tokens: 100, n: 1 }) });
    await settled();
    world.calls[0]?.answer(completion([60_000, 40_000]));
    await settled();
    expect((await world.balance()).available).toBe(0);
    // A moment ago there was something: whoever asks now is refused by admission, which has read what it asks.
    const asking = await refused(world, { text: chat({ max_tokens: 100, n: 1 }) });
    expect([asking.status, asking.code]).toEqual([402, "insufficient_balance"]);
    expect(asking.error["required_micro"]).toBeGreaterThan(0);
    await world.clock.advance(1_000);
    const { status, code } = await refused(world, { body: unread });
    expect([status, code]).toEqual([402, "insufficient_balance"]);
    await world.expectAtRest();
  });

  test("who had something is not looked at again for a second, the key by itself", async () => {
    const world = await gatewayWorld();
    const { figures } = world.admission;
    let looks = 0;
    world.admission.figures = (ask) => {
      looks += 1;
      return figures(ask);
    };
    const ask = async () => {
      const answer = world.ask(handleChat);
      await settled();
      world.calls.at(-1)?.answer(completion([1, 1]));
      await answer.done;
      expect(answer.status).toBe(200);
    };
    await ask();
    await ask();
    expect(looks).toBe(1);
    await world.clock.advance(1_000);
    await ask();
    expect(looks).toBe(2);
  });

  test("an organization that is fenced is asked for and waited for, for a second; then it is a 503", async () => {
    const world = await gatewayWorld();
    const { figures, want } = world.admission;
    const wanted: string[] = [];
    world.admission.want = (orgId) => {
      wanted.push(orgId);
      return want(orgId);
    };
    world.admission.figures = () => Promise.resolve({ outcome: "fenced", fenced: "absent" });
    const waiting = world.ask(handleChat, { body: unread });
    await world.clock.advance(1_500);
    expect([waiting.status, waiting.json().error["code"]]).toEqual([503, "ledger_unavailable"]);
    expect(new Set(wanted)).toEqual(new Set([ORG]));
    const other = world.ask(handleChat);
    await world.clock.advance(300);
    world.admission.figures = figures;
    await world.clock.advance(300);
    world.calls[0]?.answer(completion([1, 1]));
    await other.done;
    expect(other.status).toBe(200);
    await world.clock.advance(1_000);
    world.admission.figures = () => Promise.resolve({ outcome: "fenced", fenced: "fault" });
    expect((await refused(world, { body: unread })).status).toBe(503);
    world.admission.figures = figures;
    await world.expectAtRest();
  });

  test("an admission store that does not say is a 503 within a second", async () => {
    const world = await gatewayWorld();
    const answers = [new Promise<never>(() => {}), Promise.reject(new Error("no answer"))];
    for (const answer of answers) {
      world.admission.figures = () => answer;
      const asked = world.ask(handleChat, { body: unread });
      await world.clock.advance(1_001);
      expect([asked.status, asked.headers["retry-after"]]).toEqual([503, "1"]);
    }
  });
});
