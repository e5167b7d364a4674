import { expect, test } from "vitest";
import { newEvent, streams, type RecordedEvent } from "#domain/events/events.ts";
import type { EventData } from "#domain/events/schemas.ts";
import { packRows } from "#test/samples/pack-rows.ts";
import {
  keyRows,
  managementProjection,
  organizationRows,
  type ManagementRow,
} from "./management.ts";

const id = (prefix: string, letter: string) => `${prefix}_${letter.repeat(26)}`;
const SHA = "a".repeat(64);
const metadata = { at: 0, region: "us", actor: "control", $correlationId: "x", schema: 1 } as const;

function recorded(
  position: number,
  event: { stream: string } & (
    | { type: "OrganizationCreated.v1"; data: EventData<"OrganizationCreated.v1"> }
    | { type: "KeyIssued.v1"; data: EventData<"KeyIssued.v1"> }
    | { type: "KeyRevoked.v1"; data: EventData<"KeyRevoked.v1"> }
  ),
): RecordedEvent {
  const { stream, type, data } = event;
  return {
    ...newEvent(stream, String(position), type, data, metadata),
    stream,
    revision: 0n,
    position: BigInt(position),
    recordedAt: position * 1000,
  } as RecordedEvent;
}

const organizationCreated = (position: number, letter: string) =>
  recorded(position, {
    stream: streams.org(id("org", letter)),
    type: "OrganizationCreated.v1",
    data: { orgId: id("org", letter), name: `name ${letter}`, homeRegion: "us", bodySha256: SHA },
  });
const keyIssued = (
  position: number,
  letter: string,
  rest: Partial<EventData<"KeyIssued.v1">> = {},
) =>
  recorded(position, {
    stream: streams.key(id("key", letter)),
    type: "KeyIssued.v1",
    data: {
      keyId: id("key", letter),
      orgId: id("org", "A"),
      scope: "regional",
      homeRegion: "us",
      name: "app",
      tokenHash: SHA,
      displayPrefix: "relai_sk_us_live_ab12…wxyz",
      limits: {},
      bodySha256: SHA,
      ...rest,
    },
  });
const keyRevoked = (position: number, letter: string) =>
  recorded(position, {
    stream: streams.key(id("key", letter)),
    type: "KeyRevoked.v1",
    data: { keyId: id("key", letter), orgId: id("org", "A"), tokenHash: SHA },
  });

/** The rows after events that come in batches of a size; each batch goes to a fold that was opened anew. */
function rowsOf(events: readonly RecordedEvent[], batch: number): ManagementRow[] {
  const rows = new Map<string, ManagementRow>();
  for (let at = 0; at < events.length; at += batch) {
    const fold = managementProjection.open(
      () => [],
      () => {},
    );
    for (const event of events.slice(at, at + batch)) fold.apply(event);
    for (const { table, key, value } of fold.takeWrites()) {
      if (value === null) rows.delete(`${table}/${key}`);
      else rows.set(`${table}/${key}`, { table, key, value } as ManagementRow);
    }
  }
  return [...rows].sort(([one], [other]) => (one < other ? -1 : 1)).map(([, row]) => row);
}

const history = [
  organizationCreated(9, "B"),
  organizationCreated(10, "A"),
  keyIssued(11, "Z", { limits: { rpm: 60 }, budget: { period: "total", micro: 5 }, expiresAt: 7 }),
  keyIssued(100, "C"),
  keyRevoked(101, "Z"),
];

test("lists stand in the order of recording, with all that they show", () => {
  const rows = packRows(rowsOf(history, 100));
  expect(
    organizationRows(rows).map(({ orgId, name, createdAtMs }) => [orgId, name, createdAtMs]),
  ).toEqual([
    [id("org", "B"), "name B", 9000],
    [id("org", "A"), "name A", 10_000],
  ]);
  expect(keyRows(rows)).toMatchObject([
    {
      keyId: id("key", "Z"),
      limits: { rpm: 60, budgetMicro: 5, expiresAtMs: 7 },
      issuedAtMs: 11_000,
      revokedAtMs: 101_000,
    },
    { keyId: id("key", "C"), limits: {}, revokedAtMs: null },
  ]);
});

test("the rows are the same for every size of batch", () => {
  const whole = JSON.stringify(rowsOf(history, history.length));
  for (let batch = 1; batch < history.length; batch++)
    expect(JSON.stringify(rowsOf(history, batch))).toBe(whole);
});

test("it handles what it folds, and nothing that it would have to look up", () => {
  expect([...managementProjection.handles].sort()).toEqual(
    [...new Set(history.map(({ type }) => type))].sort(),
  );
});
