import { describe, expect, test } from "vitest";
import { admitted, usage } from "#test/conformance/event-store/event-samples.ts";
import {
  journalEpoch,
  newEvent,
  readEvent,
  STREAM_PREFIXES,
  streams,
  UnreadableEvent,
} from "./events.ts";
import { EVENT_SCHEMAS, type EventData, type EventType } from "./schemas.ts";

const STREAM = "journal-us-4";
/** Stands where a caller's text could stand; no error may ever quote it. */
const CANARY = "CANARY-prompt-text";
const metadata = { at: 1, region: "us", actor: "gateway", $correlationId: "c", schema: 1 } as const;

type Path = (string | number)[];

/** Every place in a value, from the outside in. */
function placesOf(value: unknown, at: Path = []): Path[] {
  if (typeof value !== "object" || value === null) return [at];
  return [at, ...Object.entries(value).flatMap(([name, inner]) => placesOf(inner, [...at, name]))];
}

/** A copy with another value in one place. */
function changedAt(value: unknown, [name, ...rest]: Path, to: unknown): unknown {
  if (name === undefined) return to;
  const copy = structuredClone(value) as Record<string | number, unknown>;
  copy[name] = changedAt(copy[name], rest, to);
  return copy;
}

function refusal(type: EventType, data: unknown): Error | undefined {
  try {
    newEvent(STREAM, "key", type, data as EventData, metadata);
    return undefined;
  } catch (error) {
    return error as Error;
  }
}

describe.each([
  ["RequestAdmitted.v1", { ...admitted(STREAM, 1).data, clientRequestId: "mine" }],
  ["UsageRecorded.v1", usage(STREAM, 1).data],
] as const)("%s", (type, data) => {
  const places = placesOf(data).filter((place) => place.length > 0);

  test("is taken as it is", () => expect(refusal(type, data)).toBeUndefined());

  test.each(places.map((place) => [place.join("."), place] as const))(
    "refuses what is wrong at %s, and says where but never what",
    (name, place) => {
      let value: unknown = data;
      for (const step of place) value = (value as Record<string | number, unknown>)[step];
      const wrong: unknown[] = [[CANARY], { [CANARY]: CANARY }, null];
      if (typeof value === "number") wrong.push(CANARY, 0.5, Number.NaN, 2 ** 53, "12");
      if (typeof value === "number" && place.at(-1) !== "residualPico" && place.at(-1) !== "status")
        wrong.push(-1);
      if (typeof value === "string") wrong.push(7, CANARY.repeat(40));
      if (typeof value === "boolean") wrong.push(1, "true");
      if (typeof value === "object") wrong.push(CANARY, 1);
      // A list of strings takes another string in place of itself nowhere else.
      for (const bad of wrong) {
        if (Array.isArray(value) && Array.isArray(bad) && name === "bindingIds") continue;
        if (
          typeof value === "object" &&
          !Array.isArray(value) &&
          typeof bad === "object" &&
          bad !== null &&
          isByClass(name)
        )
          continue;
        const error = refusal(type, changedAt(data, place, bad));
        expect(error).toBeInstanceOf(TypeError);
        expect(error?.message).toMatch(new RegExp(`^${type} is not valid at ${toldAt(name)}`));
        expect(error?.message).not.toContain("CANARY");
      }
    },
  );

  test("refuses every required field that is missing", () => {
    for (const name of Object.keys(data)) {
      if (name === "clientRequestId") continue;
      const { [name]: _gone, ...rest } = data as Record<string, unknown>;
      expect(refusal(type, rest)?.message).toMatch(new RegExp(`is not valid at ${name}: `));
    }
  });
});

/** Counts by class are looked at as one. */
function toldAt(name: string): string {
  const [first = ""] = name.split(".");
  return isByClass(first) ? first : name;
}

/** An object of counts by class has no required member, so another object is one without counts. */
function isByClass(name: string): boolean {
  return name === "tokens" || name === "salePico" || name === "costPico";
}

describe("ids", () => {
  const id = (prefix: string, tail: string) => `${prefix}_${tail}`;
  const good = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
  test.each([
    good.slice(1),
    `${good}0`,
    good.toLowerCase(),
    good.replace("A", "I"),
    good.replace("A", "L"),
    good.replace("A", "O"),
    good.replace("A", "U"),
    ` ${good}`,
    `${good}\n`,
  ])("%j is no id", (tail) => {
    const data = { requestId: id("req", tail), orgId: id("org", good) };
    expect(refusal("UsageUndelivered.v1", data)?.message).toContain("requestId");
    expect(
      refusal("UsageUndelivered.v1", { ...data, requestId: id("org", good) })?.message,
    ).toContain("requestId");
    expect(refusal("UsageUndelivered.v1", { ...data, requestId: id("req", good) })).toBeUndefined();
  });
});

describe("reading back", () => {
  const stored = {
    id: "i",
    type: "RequestReleased.v1",
    stream: STREAM,
    revision: 0n,
    position: 41n,
    recordedAt: 1,
  };
  const read = (dataJson: string, type = stored.type) =>
    readEvent({ ...stored, type }, dataJson, JSON.stringify(metadata));

  test.each([
    `{"a":9007199254740992}`,
    `{"a":-9007199254740993}`,
    `{"a":0.5}`,
    `{"a":[{"b":1e400}]}`,
    `{"a":[1,2,12345678901234567890]}`,
    `{"a":1.0000001}`,
    `{"__proto__":1.5}`,
    `0.5`,
  ])("%s lost precision and is refused with its position", (json) => {
    expect(() => read(json)).toThrow(UnreadableEvent);
    expect(() => read(json)).toThrow("position 41");
  });

  test.each([
    `{"a":"9007199254740992"}`,
    `{"a":":99999999999999999999","b":"[1.5,2e9"}`,
    `{"a":9007199254740991,"b":-9007199254740991}`,
    `{"a":1e2,"b":1.0}`,
    `{"unknown":{"field":["kept",null,true]}}`,
  ])("%s is kept as it is", (json) => {
    expect(read(json).data).toEqual(JSON.parse(json));
    expect(read(json)).toMatchObject({ ...stored, metadata });
  });

  test.each([
    "RequestReleased.v2",
    "RequestReleased",
    "Unheard.v1",
    "toString",
    "__proto__",
    "constructor",
    "",
  ])("the unknown type %j is a clear error", (type) => {
    expect(() => read("{}", type)).toThrow(UnreadableEvent);
    expect(() => read("{}", type)).toThrow(/newer relai/);
  });
});

test("an event's id is computed from its stream and key alone", () => {
  const one = admitted(STREAM, 1);
  expect(admitted(STREAM, 1, { model: "another" }).id).toBe(one.id);
  expect(admitted("journal-us-5", 1).id).not.toBe(one.id);
  expect(admitted(STREAM, 2).id).not.toBe(one.id);
  expect(one.id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});

test("a journal's name carries its writer's epoch, whatever its region is called", () => {
  expect(journalEpoch(streams.journal("us", 0))).toBe(0);
  expect(journalEpoch(streams.journal("ap-south-1", 27))).toBe(27);
  for (const stream of [
    streams.writers("us"),
    streams.org("org_1"),
    streams.key("key_1"),
    "journal-us-x",
  ])
    expect(journalEpoch(stream)).toBeUndefined();
});

test("every type of event has a version", () => {
  for (const type of Object.keys(EVENT_SCHEMAS))
    expect(type).toMatch(/^[A-Z][A-Za-z]+\.v[1-9]\d*$/);
});

test("every stream's name begins as one of the prefixes, so that a server gives it to followers", () => {
  const names = Object.values(streams).map((name) => name("a", 1));
  expect(names.map((name) => STREAM_PREFIXES.filter((one) => name.startsWith(one)).length)).toEqual(
    STREAM_PREFIXES.map(() => 1),
  );
});
