import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { newEvent, readEvent, UnreadableEvent } from "#domain/events/events.ts";
import { EVENT_SCHEMAS, type EventType } from "#domain/events/schemas.ts";

/**
 * Golden samples: every event that a release of relai ever wrote, as its text stood in the store. A sample is never
 * changed and never removed; a new version of an event gets a file of its own.
 */
interface Sample {
  readonly id: string;
  readonly stream: string;
  /** The fact within the stream that the id is computed from. */
  readonly key: string;
  readonly data: string;
  readonly metadata: string;
}

const folder = new URL("golden/events/", import.meta.url);
const files = readdirSync(folder);
const types = Object.keys(EVENT_SCHEMAS) as EventType[];

function samplesOf(type: string): Sample[] {
  return JSON.parse(readFileSync(new URL(`${type}.json`, folder), "utf8")) as Sample[];
}

function read(type: string, { id, stream, data, metadata }: Sample) {
  const stored = { id, type, stream, revision: 3n, position: 41n, recordedAt: 1_790_000_000_001 };
  return readEvent(stored, data, metadata);
}

test("there are samples of every event, and of no other", () => {
  expect(files.toSorted()).toEqual(types.map((type) => `${type}.json`).toSorted());
});

describe.for(types)("%s", (type) => {
  test("has at least one sample", () => expect(samplesOf(type)).not.toEqual([]));

  test("reads back as it was written, field by field", () => {
    for (const sample of samplesOf(type)) {
      const event = read(type, sample);
      expect(JSON.stringify(event.data)).toBe(sample.data);
      expect(JSON.stringify(event.metadata)).toBe(sample.metadata);
      expect(event).toMatchObject({ id: sample.id, type, stream: sample.stream, position: 41n });
    }
  });

  test("is what would be written today: same fields, same text, same id", () => {
    for (const sample of samplesOf(type)) {
      const { data, metadata } = read(type, sample);
      // A field that the schema no longer knows would be dropped here.
      expect(EVENT_SCHEMAS[type].parse(data)).toEqual(data);
      const again = newEvent(sample.stream, sample.key, type, data, metadata);
      expect(again).toMatchObject({
        id: sample.id,
        dataJson: sample.data,
        metadataJson: sample.metadata,
      });
    }
  });

  test("keeps fields that it does not know, and refuses a broken number", () => {
    for (const sample of samplesOf(type)) {
      const more = (text: string) =>
        `${sample.data.slice(0, -1)}${sample.data === "{}" ? "" : ","}${text}}`;
      expect(read(type, { ...sample, data: more('"later":{"a":[1]}') }).data).toMatchObject({
        later: { a: [1] },
      });
      for (const number of ["9007199254740993", "0.5", "1e400", "-1.25"])
        expect(() => read(type, { ...sample, data: more(`"later":[{"a":${number}}]`) })).toThrow(
          UnreadableEvent,
        );
    }
  });
});
