import { describe, expect, test } from "vitest";
import { chat, chunk, completion, gatewayWorld, settled } from "#test/worlds/gateway-world.ts";
import { handleChat } from "#test/worlds/chat-way.ts";
import { STOP_MS_MAX } from "./gateway.ts";

describe("a stop", () => {
  test("lets what runs finish, and seals the journal last", async () => {
    const world = await gatewayWorld();
    const answer = world.ask(handleChat);
    await settled();
    let isStopped = false;
    const stopping = world.gateway.stop(10_000).then(() => (isStopped = true));
    await world.clock.advance(5_000);
    expect(isStopped).toBe(false);
    world.calls[0]?.answer(completion([7, 5]));
    await answer.done;
    await stopping;
    expect(answer.status).toBe(200);
    expect(await world.types()).toEqual([
      "RequestAdmitted.v1",
      "UsageRecorded.v1",
      "JournalSealed.v1",
    ]);
    await world.expectAtRest();
  });

  test("cuts what runs too long, settles it, and seals the journal last", async () => {
    const world = await gatewayWorld();
    const plain = world.ask(handleChat);
    const stream = world.ask(handleChat, { text: chat({ stream: true }) });
    await settled();
    world.calls[1]?.head();
    world.calls[1]?.data(chunk({ content: "Hello" }));
    const stopping = world.gateway.stop(1_000);
    await world.clock.advance(1_100);
    await Promise.all([plain.done, stream.done, stopping]);
    expect([plain.status, plain.json().error["code"]]).toEqual([503, "overloaded"]);
    expect(stream.text).not.toContain("[DONE]");
    const types = await world.types();
    expect(types.at(-1)).toBe("JournalSealed.v1");
    expect(types.slice(2, -1).sort()).toEqual(["RequestReleased.v1", "UsageRecorded.v1"]);
    await world.expectAtRest();
  });

  test("cuts a request too that is forwarded only after the cut", async () => {
    const world = await gatewayWorld();
    world.stall();
    const answer = world.ask(handleChat);
    const stopping = world.gateway.stop(1_000);
    await world.clock.advance(1_100);
    world.release();
    await world.clock.advance(1_000);
    await Promise.all([answer.done, stopping]);
    expect([answer.status, answer.json().error["code"]]).toEqual([503, "overloaded"]);
    expect((await world.types()).at(-1)).toBe("JournalSealed.v1");
    await world.expectAtRest();
  });

  test("leaves a journal unsealed whose work could not be recorded, within its limits, and counts whom nobody is charged for", async () => {
    const world = await gatewayWorld();
    for (const _ of [1, 2]) world.ask(handleChat);
    await settled();
    world.stall();
    world.ask(handleChat);
    await settled();
    world.calls[0]?.answer(completion([7, 5]));
    const stopped = await stopsIn(world, 1_000);
    // One was answered, the other is cut before anything of use came, and the third was never forwarded.
    expect(stopped).toEqual({ isSealed: false, unrecorded: 1 });
    expect(await world.types()).toEqual(["RequestAdmitted.v1", "RequestAdmitted.v1"]);
  });

  test("that has settled everything and cannot seal its journal has lost nothing", async () => {
    const world = await gatewayWorld();
    world.stall();
    expect(await stopsIn(world, 1_000)).toEqual({ isSealed: false, unrecorded: 0 });
    world.release();
  });
});

/** How a gateway stops while its store may stand still. */
async function stopsIn(world: Awaited<ReturnType<typeof gatewayWorld>>, drainMs: number) {
  const stopping = world.gateway.stop(drainMs);
  await world.clock.advance(drainMs + STOP_MS_MAX);
  return stopping;
}
