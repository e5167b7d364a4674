import { expect, test } from "vitest";
import { histories, recorded } from "#test/samples/histories.ts";
import { packRows } from "#test/samples/pack-rows.ts";
import { keyDirectoryProjection } from "./key-directory.ts";
import { unpackRows } from "./rows.ts";

const events = recorded(histories(3, 2_000));

test("each key stands under its hash, and a revoked one says so", () => {
  const fold = keyDirectoryProjection.open(
    () => [],
    () => undefined,
  );
  const issued = new Map<string, unknown>();
  for (const event of events) {
    if (keyDirectoryProjection.handles.has(event.type)) fold.apply(event);
    if (event.type !== "KeyIssued.v1" && event.type !== "KeyRevoked.v1") continue;
    const { tokenHash, keyId, orgId } = event.data;
    const ends =
      event.type === "KeyIssued.v1" && event.data.expiresAt !== undefined
        ? { expiresAt: event.data.expiresAt }
        : {};
    issued.set(tokenHash, { keyId, orgId, revoked: event.type === "KeyRevoked.v1", ...ends });
  }
  const rows = [...unpackRows(packRows(fold.takeWrites()))];
  expect(new Map(rows.map(({ key, value }) => [key, value]))).toEqual(issued);
  expect(rows.some(({ value }) => value?.revoked)).toBe(true);
  expect(rows.some(({ value }) => !value?.revoked)).toBe(true);
  expect(fold.takeWrites()).toEqual([]);
});
