import * as fc from "fast-check";
import { describe, expect, it } from "vitest";

import { readChatRequest } from "./request.ts";
import { upstreamBody } from "./upstream-body.ts";
import type { UpstreamNames } from "#services/gateway/shapes/shape.ts";

const NAMES: UpstreamNames = {
  upstreamModel: "m",
  outputCapName: "max_tokens",
  outputCapTokens: 9,
  pinsServiceTier: false,
};

function sent(body: string, names: Partial<UpstreamNames> = {}): string {
  const bytes = Buffer.from(body);
  const result = readChatRequest(bytes);
  if ("code" in result) throw new Error(result.message);
  return upstreamBody(bytes, result, { ...NAMES, ...names }).toString();
}

describe("upstreamBody", () => {
  it("is the caller's own buffer when nothing differs", () => {
    const body = Buffer.from(
      '{ "model":"m","messages":[1], "max_tokens" : 9, "big":12345678901234567890 }',
    );
    const result = readChatRequest(body);
    expect("code" in result || upstreamBody(body, result, NAMES)).toBe(body);
  });

  it.each<[string, string, string, Partial<UpstreamNames>]>([
    [
      "the model",
      '{"model" : "m","messages":[1],"max_tokens":9}',
      '{"model" : "up/é","messages":[1],"max_tokens":9}',
      { upstreamModel: "up/é" },
    ],
    [
      "an escaped key",
      '{"mod\\u0065l":"m","messages":[1],"max_tokens":9}',
      '{"mod\\u0065l":"u","messages":[1],"max_tokens":9}',
      { upstreamModel: "u" },
    ],
    [
      "a missing cap",
      '{ "model":"m","messages":[1]}',
      '{"max_tokens":9, "model":"m","messages":[1]}',
      {},
    ],
    [
      "a cap of null",
      '{"model":"m","messages":[1],"max_tokens":null}',
      '{"model":"m","messages":[1],"max_tokens":9}',
      {},
    ],
    [
      "a cap of another size",
      '{"model":"m","messages":[1],"max_tokens":10}',
      '{"model":"m","messages":[1],"max_tokens":9}',
      {},
    ],
    [
      "the other name",
      '{"model":"m","messages":[1],"max_completion_tokens":9}',
      '{"model":"m","messages":[1],"max_tokens":9}',
      {},
    ],
    [
      "the other name of null",
      '{"max_completion_tokens": null,"model":"m","messages":[1]}',
      '{"max_tokens": 9,"model":"m","messages":[1]}',
      {},
    ],
    [
      "both names, its own null",
      '{"max_completion_tokens":9,"model":"m","messages":[1],"max_tokens":null}',
      '{"model":"m","messages":[1],"max_tokens":9}',
      {},
    ],
    [
      "both names, the other null",
      '{"model":"m","messages":[1],"max_tokens":9,"max_completion_tokens":null}',
      '{"model":"m","messages":[1],"max_tokens":9}',
      {},
    ],
    [
      "a region at the end",
      '{"model":"m","messages":[1],"max_tokens":9 , "model_region":"eu"}',
      '{"model":"m","messages":[1],"max_tokens":9 }',
      {},
    ],
    [
      "a region at the start",
      '{"model_region":null,"model":"m","messages":[1],"max_tokens":9}',
      '{"model":"m","messages":[1],"max_tokens":9}',
      {},
    ],
    [
      "store",
      '{"model":"m","messages":[1],"max_tokens":9,"store":true}',
      '{"model":"m","messages":[1],"max_tokens":9,"store":false}',
      {},
    ],
    [
      "store as another truth",
      '{"model":"m","messages":[1],"max_tokens":9,"store":"yes"}',
      '{"model":"m","messages":[1],"max_tokens":9,"store":false}',
      {},
    ],
  ])("edits %s", (_, body, expected, names) => {
    expect(sent(body, names)).toBe(expected);
  });

  const pinned = '{"model":"m","service_tier": "default" ,"messages":[1],"max_tokens":9}';
  it.each<[string, string, string | undefined]>([
    ["no tier", '{"model":"m","messages":[1],"max_tokens":9}', undefined],
    ["a tier of null", pinned.replace('"default"', "null"), pinned],
    ["auto", pinned.replace('"default"', '"auto"'), pinned],
    ["auto in escapes", pinned.replace('"default"', '"\\u0061uto"'), pinned],
    ["the default tier by name", pinned, pinned],
    ...["flex", "priority", "scale", "AUTO", ""].map((name): [string, string, string] => {
      const named = pinned.replace("default", name);
      return [`the tier "${name}"`, named, named];
    }),
  ])("pins %s to default at a host that pins, and leaves it elsewhere", (_, body, expected) => {
    const inserted = `{"service_tier":"default",${body.slice(1)}`;
    expect(sent(body, { pinsServiceTier: true })).toBe(expected ?? inserted);
    expect(sent(body)).toBe(body);
  });

  it.each([
    ['"stream_options":null', '"stream_options":{"include_usage":true}'],
    ['"stream_options":{}', '"stream_options":{"include_usage":true}'],
    ['"stream_options":{ "x" : 1e2 }', '"stream_options":{"include_usage":true, "x" : 1e2 }'],
    [
      '"stream_options":{"x":1, "include_usage" : false}',
      '"stream_options":{"x":1, "include_usage" : true}',
    ],
    ['"stream_options":{"include_usage": null}', '"stream_options":{"include_usage": true}'],
    [
      '"stream_options":{"include_usage": true ,"x":1}',
      '"stream_options":{"include_usage": true ,"x":1}',
    ],
  ])("asks for usage in a stream with %s", (options, expected) => {
    const body = (inside: string): string =>
      `{"model":"m","stream":true,${inside},"messages":[1],"max_tokens":9}`;
    expect(sent(body(options))).toBe(body(expected));
  });

  it("asks for usage where there are no options, and only in a stream", () => {
    expect(sent('{"model":"m","messages":[1],"max_tokens":9,"stream":true}')).toBe(
      '{"stream_options":{"include_usage":true},"model":"m","messages":[1],"max_tokens":9,"stream":true}',
    );
    const plain =
      '{"model":"m","messages":[1],"max_tokens":9,"stream_options":{"include_usage":false}}';
    expect(sent(plain)).toBe(plain);
  });

  it("means what the edit of the parsed body means, whatever stands beside", () => {
    const body = fc.record(
      {
        model_region: fc.constantFrom("eu", null),
        stream: fc.boolean(),
        stream_options: fc.constantFrom(
          null,
          {},
          { include_usage: true },
          { include_usage: false, x: [1] },
          { x: 1 },
        ),
        cap: fc.constantFrom<[string, number | null]>(
          ["max_tokens", 5],
          ["max_completion_tokens", 5],
          ["max_tokens", null],
        ),
        store: fc.constantFrom(true, false, null),
        service_tier: fc.constantFrom("auto", "flex", "default", null),
        other: fc.jsonValue(),
        user: fc.string(),
      },
      { requiredKeys: [] },
    );
    const space = fc.constantFrom(undefined, 1, "\t");
    const names = fc.record({
      upstreamModel: fc.constantFrom("m", "longer/model"),
      outputCapName: fc.constantFrom<UpstreamNames["outputCapName"]>(
        "max_tokens",
        "max_completion_tokens",
      ),
      pinsServiceTier: fc.boolean(),
    });
    fc.assert(
      fc.property(body, space, names, fc.nat(), ({ cap, ...fields }, indent, binding, turn) => {
        const members = Object.entries({
          model: "m",
          messages: [{}],
          ...fields,
          ...(cap ? { [cap[0]]: cap[1] } : {}),
        });
        const turned = Object.fromEntries([
          ...members.slice(turn % members.length),
          ...members.slice(0, turn % members.length),
        ]);
        const outputCapTokens = cap?.[1] ?? 77;
        const out = JSON.parse(
          sent(JSON.stringify(turned, null, indent), { ...binding, outputCapTokens }),
        ) as object;

        const {
          model_region: _r,
          max_tokens: _a,
          max_completion_tokens: _b,
          ...rest
        } = turned as Record<string, unknown>;
        const expected: Record<string, unknown> = {
          ...rest,
          model: binding.upstreamModel,
          [binding.outputCapName]: outputCapTokens,
        };
        if (fields.stream)
          expected["stream_options"] = { ...fields.stream_options, include_usage: true };
        if (fields.store) expected["store"] = false;
        if (binding.pinsServiceTier && [undefined, null, "auto"].includes(fields.service_tier))
          expected["service_tier"] = "default";
        // Written and read once more, as the body was: JSON has no -0.
        expect(out).toEqual(JSON.parse(JSON.stringify(expected)));
      }),
      { numRuns: 1000 },
    );
  });
});
