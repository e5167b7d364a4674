import { createServer, type Server } from "node:http";
import { APIError } from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { bookIn, eventsIn, eventsOf, only } from "./books.ts";
import {
  balanceOf,
  cli,
  command,
  jsonOf,
  leavesNothingRunning,
  newOrganization,
  openai,
  post,
  startRelai,
  type RelaiProcess,
} from "#test/e2e/relai.ts";

leavesNothingRunning();

let relai: RelaiProcess;
beforeAll(async () => {
  relai = await startRelai();
});
afterAll(() => relai.stop());

describe("the command line", () => {
  test("makes an organization, credits it once a text, and shows its balance", async () => {
    const { id } = await command(relai, "org", "create", "Acme");
    const credit = ["credit", "add", "0.30", "--org", String(id), "--idempotency-key", "inv-1"];
    const first = await command(relai, ...credit);
    expect(first).toMatchObject({ amount_micro: 300_000, amount_dollars: "0.30" });
    expect(await command(relai, ...credit)).toEqual(first);
    expect(await command(relai, "balance", String(id))).toMatchObject({
      organization: id,
      credits_micro: 300_000,
      credits_dollars: "0.30",
      held_micro: 0,
      available_micro: 300_000,
    });
    const other = ["credit", "add", "0.31", "--org", String(id), "--idempotency-key", "inv-1"];
    const refused = await cli(relai, ...other);
    expect([refused.code, refused.stdout]).toEqual([1, ""]);
    expect(refused.stderr).toMatch(/Idempotency-Key/);
    const topUps = (await eventsIn(relai)).filter(
      ({ type, data }) => type === "CreditToppedUp.v1" && data.orgId === id,
    );
    expect(topUps).toHaveLength(1);
  });

  test("never rounds dollars, and refuses what it would have to round", async () => {
    const { id } = await command(relai, "org", "create", "Exact");
    for (const dollars of ["0.1", "0.19", "0.010001"])
      await command(relai, "credit", "add", dollars, "--org", String(id));
    expect(await command(relai, "balance", String(id))).toMatchObject({
      credits_micro: 300_001,
      credits_dollars: "0.300001",
    });
    for (const dollars of ["0.0000001", "1e3", "-1", "0", "0.009999", "one"]) {
      const refused = await cli(relai, "credit", "add", "--org", String(id), "--", dollars);
      expect([dollars, refused.code]).toEqual([dollars, 2]);
    }
    expect(await command(relai, "balance", String(id))).toMatchObject({ credits_micro: 300_001 });
  });

  test("issues a key that works at once, and one it revokes is refused at once", async () => {
    const issued = await command(
      relai,
      "key",
      "create",
      "--name",
      "app",
      "--org",
      relai.organization,
    );
    const app = { ...relai, key: String(issued["key"]) };
    expect((await post(app, "[sim output=1]")).status).toBe(200);
    await command(relai, "key", "revoke", String(issued["key"]));
    for (const answer of [
      await post(app, "[sim output=1]"),
      await fetch(`${app.gateway}/v1/models`, { headers: { "x-api-key": app.key } }),
    ]) {
      expect(answer.status).toBe(401);
      expect(await answer.json()).toEqual({
        error: {
          message: "This API key has been revoked",
          type: "invalid_api_key",
          code: "key_revoked",
          param: null,
        },
      });
    }
    const { data } = await command(relai, "key", "list", "--org", relai.organization);
    const listed = (data as Record<string, unknown>[]).find(({ id }) => id === issued["id"]);
    expect(listed).toMatchObject({ name: "app" });
    expect(listed?.["revoked_at"]).toMatch(/^\d{4}-/);
    expect(JSON.stringify(data)).not.toContain(app.key.slice(-30));
  });

  test("has help for every command, and exits by its rules", async () => {
    for (const words of [[], ["start"], ["org", "create"], ["credit", "add"], ["key", "create"]]) {
      const help = await cli(relai, ...words, "--help");
      expect([words, help.code]).toEqual([words, 0]);
      expect(help.stdout).toMatch(/^Usage: relai/);
    }
    expect((await cli(relai, "bogus")).code).toBe(2);
    expect((await cli(relai, "balance", "org_00000000000000000000000000")).code).toBe(1);
    const shown = await cli(relai, "config", "--json");
    expect(shown.stdout).not.toContain(relai.adminToken);
  });
});

describe("a key's budget", () => {
  test("ends with a 402 of its own, on top of the balance", async () => {
    // Hold: 8 + 16 tokens and the text's half for the input, 10 for the output; one micro a token.
    const text = "[sim input=20 output=10]";
    const holdMicro = 8 + 16 + text.length / 2 + 10;
    const key = { budget_micro: holdMicro + 30 };
    const org = await newOrganization(relai, { creditMicro: 1_000_000, key });
    for (const spent of [30, 60]) {
      expect((await post(org, text, { max_tokens: 10 })).status).toBe(200);
      expect((await balanceOf(org)).key_budget).toMatchObject({
        spent_micro: spent,
        available_micro: key.budget_micro - spent,
        held_micro: 0,
      });
    }
    const refused = await post(org, text, { max_tokens: 10 });
    expect(refused.status).toBe(402);
    const available = key.budget_micro - 60;
    expect(await refused.json()).toEqual({
      error: {
        message: "The budget of this key does not cover this request",
        type: "insufficient_balance",
        code: "key_budget_exceeded",
        param: null,
        budget_micro: key.budget_micro,
        spent_micro: 60,
        held_micro: 0,
        available_micro: available,
        required_micro: holdMicro,
        // The input's bound is 36; what is left pays for nothing less than that.
        ...(available > 36 ? { would_fit: `max_tokens ≤ ${available - 36}` } : {}),
      },
    });
    expect((await balanceOf(org)).credits_micro).toBe(1_000_000 - 60);
  });

  test("set on the command line is held the same way", async () => {
    const budget = ["--budget", "0.00006", "--rpm", "100", "--org", relai.organization];
    const issued = await command(relai, "key", "create", ...budget);
    expect(issued).toMatchObject({ budget_micro: 60, budget_dollars: "0.00006", rpm: 100 });
    const small = { ...relai, key: String(issued["key"]) };
    const answer = await post(small, "[sim input=20 output=10]", { max_tokens: 10 });
    expect([answer.status, answer.headers.get("x-ratelimit-limit-requests")]).toEqual([200, "100"]);
    expect((await post(small, "Hello", { max_tokens: 10 })).status).toBe(402);
  });
});

describe("a balance that does not reach", () => {
  test("says what is required, available, and would fit; and that fits indeed", async () => {
    const org = await newOrganization(relai, { creditMicro: 100 });
    const refused = await post(org, "Hello!", { max_tokens: 200 });
    expect(refused.status).toBe(402);
    // 3 tokens for six bytes, 8 for the message, 16 for the request.
    expect(await refused.json()).toEqual({
      error: {
        message: "Insufficient credit balance",
        type: "insufficient_balance",
        code: "insufficient_balance",
        param: null,
        balance_micro: 100,
        required_micro: 227,
        available_micro: 100,
        held_micro: 0,
        would_fit: "max_tokens ≤ 73",
      },
    });
    expect((await post(org, "Hello!", { max_tokens: 74 })).status).toBe(402);
    expect((await post(org, "Hello!", { max_tokens: 73 })).status).toBe(200);
  });

  test("without any credit, or with less than the input takes, nothing would fit", async () => {
    const org = await newOrganization(relai, { creditMicro: 0 });
    const error = (await jsonOf(await post(org, "Hello!", { max_tokens: 1 })))["error"];
    expect(error).toMatchObject({ code: "insufficient_balance", available_micro: 0 });
    expect(error).not.toHaveProperty("would_fit");
  });

  test("beside a running request is another code, and fits once that has ended", async () => {
    const org = await newOrganization(relai, { creditMicro: 100 });
    const running = post(org, "[sim hold=one output=1 input=1]", { max_tokens: 40 });
    await expect
      .poll(() => balanceOf(org).then(({ held_micro }) => held_micro), { timeout: 30_000 })
      .toBe(40 + 24 + 16);
    const refused = await post(org, "Hello!", { max_tokens: 20 });
    expect(refused.status).toBe(402);
    expect((await jsonOf(refused))["error"]).toMatchObject({
      code: "balance_held",
      balance_micro: 100,
      held_micro: 80,
      available_micro: 20,
      required_micro: 47,
    });
    await fetch(`${relai.simulator}/release/one`, { method: "POST" });
    await (await running).text();
    expect((await post(org, "Hello!", { max_tokens: 20 })).status).toBe(200);
  });

  test("is the client's own error, which it does not try again", async () => {
    // What stands before the gateway counts the calls, for a refusal leaves no event behind.
    let calls = 0;
    const proxy: Server = createServer((message, response) => {
      calls += 1;
      const pieces: Buffer[] = [];
      message.on("data", (piece: Buffer) => pieces.push(piece));
      message.on("end", () => {
        const { authorization = "", "content-type": type = "" } = message.headers;
        void fetch(`${relai.gateway}${message.url}`, {
          method: "POST",
          headers: { authorization, "content-type": type },
          body: Buffer.concat(pieces),
        }).then(async (answer) => {
          response.writeHead(answer.status, Object.fromEntries(answer.headers));
          response.end(Buffer.from(await answer.arrayBuffer()));
        });
      });
    });
    await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
    const address = proxy.address();
    const port = typeof address === "object" ? address?.port : undefined;
    const org = await newOrganization(relai, { creditMicro: 10 });
    const calledBefore = bookIn(relai).length;
    const client = openai(org, { baseURL: `http://127.0.0.1:${port}/v1`, maxRetries: 3 });
    const asked = client.chat.completions.create({
      model: "sim-flat",
      messages: [{ role: "user", content: "Hello" }],
    });
    const error: unknown = await asked.catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(APIError);
    expect(error).toMatchObject({ status: 402, code: "insufficient_balance" });
    expect(calls).toBe(1);
    expect(bookIn(relai).length).toBe(calledBefore);
    await new Promise((resolve) => proxy.close(resolve).closeAllConnections());
  });
});

describe("usage above the hold", () => {
  const text = "[sim input=500 output=60]";
  const holdMicro = 8 + 16 + 13 + 10;

  test("is taken like any money while there is some", async () => {
    const org = await newOrganization(relai, { creditMicro: 1000 });
    const answer = await post(org, text, { max_tokens: 10 });
    expect(answer.headers.get("x-relai-cost-micro")).toBe("560");
    const events = await eventsOf(relai, answer.headers.get("x-request-id") ?? "");
    expect(events.map(({ type }) => type)).toEqual([
      "RequestAdmitted.v1",
      "HoldExtended.v1",
      "UsageRecorded.v1",
    ]);
    expect(only(events, "RequestAdmitted.v1").holdMicro).toBe(holdMicro);
    const extended = only(events, "HoldExtended.v1");
    expect(extended).toMatchObject({ holdTotalMicro: 560, holdCostTotalMicro: 448 });
    expect(extended.accounts).toMatchObject([{ micro: 560, lots: [{ pot: "paid", micro: 560 }] }]);
    expect(only(events, "UsageRecorded.v1")).toMatchObject({
      holdMicro: 560,
      chargedMicro: 560,
      overHoldMicro: 0,
      providerCostMicro: 448,
      accounts: extended.accounts,
    });
    expect(await balanceOf(org)).toMatchObject({ credits_micro: 440, held_micro: 0 });
  });

  test("is the company's expense as far as there is none", async () => {
    const org = await newOrganization(relai, { creditMicro: 100 });
    const answer = await post(org, text, { max_tokens: 10, stream: true });
    expect((await answer.text()).endsWith("data: [DONE]\n\n")).toBe(true);
    const events = await eventsOf(relai, answer.headers.get("x-request-id") ?? "");
    expect(only(events, "HoldExtended.v1").holdTotalMicro).toBe(100);
    expect(only(events, "UsageRecorded.v1")).toMatchObject({
      holdMicro: 100,
      chargedMicro: 100,
      overHoldMicro: 460,
      providerCostMicro: 448,
    });
    expect(await balanceOf(org)).toMatchObject({ credits_micro: 0, held_micro: 0 });
  });

  test("with not a micro beyond the hold there is nothing to extend", async () => {
    const org = await newOrganization(relai, { creditMicro: holdMicro });
    const answer = await post(org, text, { max_tokens: 10 });
    expect(answer.headers.get("x-relai-cost-micro")).toBe(String(holdMicro));
    const events = await eventsOf(relai, answer.headers.get("x-request-id") ?? "");
    expect(events.map(({ type }) => type)).toEqual(["RequestAdmitted.v1", "UsageRecorded.v1"]);
    expect(only(events, "UsageRecorded.v1")).toMatchObject({
      chargedMicro: holdMicro,
      overHoldMicro: 560 - holdMicro,
    });
    expect(await balanceOf(org)).toMatchObject({ credits_micro: 0, held_micro: 0 });
  });

  test("stops at the key's budget too", async () => {
    const key = { budget_micro: 90 };
    const org = await newOrganization(relai, { creditMicro: 1000, key });
    await (await post(org, text, { max_tokens: 10 })).text();
    expect(await balanceOf(org)).toMatchObject({
      credits_micro: 910,
      key_budget: { spent_micro: 90, available_micro: 0, held_micro: 0 },
    });
  });
});
