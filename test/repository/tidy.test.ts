import { readFileSync, readdirSync } from "node:fs";
import { describe, expect, test } from "vitest";
import {
  type Exemptions,
  type TextFile,
  clockAndRandomness,
  fileSizes,
  forbiddenSyntax,
  importLayers,
  linesMax,
  oneFilePerClient,
  staleExemptions,
  wordsOutOfPlace,
} from "./tidy-rules.ts";

const exempt: Exemptions = {
  wiring: new Map(),
  clock: new Map(),
  long: new Map([
    [
      "test/conformance/event-store/event-store-suite.ts",
      "the whole contract of one port, read from top to bottom",
    ],
    [
      "infra/upstream/undici.test.ts",
      "each failure of a connection provoked for real, on one server",
    ],
    [
      "services/gateway/shapes/openai-chat/stream.test.ts",
      "recorded streams and what becomes of each",
    ],
    ["services/gateway/way/chat.test.ts", "every ending of a plain answer, one after the other"],
    ["test/e2e/hostile/hostile.test.ts", "every kind of hostile input against one running relai"],
  ]),
};

const none: Exemptions = { wiring: new Map(), clock: new Map(), long: new Map() };

const skippedFolders = new Set([".git", "node_modules", ".relai", "coverage"]);

/** Every text file of the working tree, less what is made by tools and what is data in bytes. */
function repositoryFiles(folder = ""): TextFile[] {
  const root = new URL("../../", import.meta.url);
  return readdirSync(new URL(folder === "" ? "./" : folder, root), { withFileTypes: true }).flatMap(
    (entry) => {
      const path = folder + entry.name;
      if (entry.isDirectory())
        return skippedFolders.has(entry.name) ? [] : repositoryFiles(`${path}/`);
      if (!entry.isFile()) return [];
      const text = readFileSync(new URL(path, root), "utf8");
      return text.includes("\0") ? [] : [{ path, text }];
    },
  );
}

const files = repositoryFiles();

/** Findings in one planted file, as `line: sentence`. */
function plant(
  rule: (planted: readonly TextFile[], exemptions: Exemptions) => string[],
  path: string,
  text: string,
  exemptions = none,
): string[] {
  return rule([{ path, text }], exemptions);
}

describe("the repository", () => {
  test("is read: the rules look at real files", () => {
    const paths = files.map(({ path }) => path);
    expect(paths).toContain("test/repository/tidy.test.ts");
    expect(paths).toContain("bin/relai.mjs");
    expect(paths).toContain("package.json");
    expect(paths.filter((path) => path.startsWith("domain/"))).not.toEqual([]);
  });

  test("imports only along the layers", () => expect(importLayers(files, exempt)).toEqual([]));
  test("has one file per client library", () => expect(oneFilePerClient(files)).toEqual([]));
  test("takes time and randomness from ports", () =>
    expect(clockAndRandomness(files, exempt)).toEqual([]));
  test("has only erasable, checked syntax", () => expect(forbiddenSyntax(files)).toEqual([]));
  test("has no words out of place", () => expect(wordsOutOfPlace(files)).toEqual([]));
  test("has no long file without a reason", () => expect(fileSizes(files, exempt)).toEqual([]));
  test("names a key's limit where it is defined, checked and called by the API, and carries it whole elsewhere", () => {
    // The gateway names what admission's figures say of it.
    const product = /^(domain|projections|services(?!\/gateway\/))\/.*(?<!\.test)\.ts$/;
    const naming = files.filter(
      ({ path, text }) => product.test(path) && /(?<!-)\brpm\b/.test(text),
    );
    expect(naming.map(({ path }) => path).toSorted()).toEqual([
      "domain/accounts/checks.ts",
      "domain/key-limits.ts",
      "services/control/bodies.ts",
    ]);
  });
  test("has no exemption without a file", () => expect(staleExemptions(files, exempt)).toEqual([]));
});

describe("each rule sees a planted violation", () => {
  test.for<[path: string, text: string]>([
    ["domain/a.ts", `import { x } from "../services/x.ts";`],
    ["test/a.test.ts", `import { x } from "../services/x.ts";`],
    ["domain/a.ts", `import { x } from "#services/ports.ts";`],
    ["domain/a.ts", `import type { X } from "#projections/x.ts";`],
    ["domain/a.ts", `import { createHash } from "node:crypto";`],
    ["domain/hash.ts", `import { readFileSync } from "node:fs";`],
    ["domain/a.ts", `import fastify from "fastify";`],
    ["domain/a.ts", `export { x } from "#infra/x.ts";`],
    ["domain/a.ts", `export type X = import("#infra/x.ts").X;`],
    ["domain/a.ts", `export const load = () => import("#infra/x.ts");`],
    ["projections/a.ts", `import { z } from "zod";`],
    ["projections/a.ts", `import { x } from "#services/ports.ts";`],
    ["services/gateway/a.ts", `import { open } from "#infra/event-store/sqlite.ts";`],
    ["services/gateway/a.ts", `import { DatabaseSync } from "node:sqlite";`],
    ["services/gateway/a.ts", `import { x } from "#test/support.ts";`],
    ["services/gateway/a.ts", `import { run } from "./main.ts";`],
    ["services/gateway/a.ts", `import { run } from "#services/start/main.ts";`],
    ["infra/bus/a.ts", `import { x } from "#services/gateway/handle.ts";`],
    ["infra/bus/a.ts", `import { x } from "#projections/usage.ts";`],
  ])("import layers: %s has %s", ([path, text]) => {
    expect(plant(importLayers, path, `\n${text}\n`)).toEqual([
      expect.stringContaining(`${path}:2: `),
    ]);
  });

  test.for<[path: string, text: string]>([
    [
      "domain/a.ts",
      `import { z } from "zod"; import { x } from "#domain/x.ts"; import { y } from "./y.ts";`,
    ],
    [
      "domain/hash.ts",
      `import { createHash } from "node:crypto"; import { crc32 } from "node:zlib";`,
    ],
    ["domain/a.test.ts", `import fc from "fast-check"; import { x } from "#test/support.ts";`],
    ["projections/a.ts", `import type { X } from "#domain/x.ts";`],
    [
      "services/gateway/a.ts",
      `import fastify from "fastify"; import { x } from "#services/ports.ts";`,
    ],
    ["bin/relai.mjs", `await import("#services/cli/main.ts");`],
    ["services/gateway/main.ts", `import { open } from "#infra/event-store/sqlite.ts";`],
    ["services/cli/a.ts", `import { open } from "#infra/event-store/sqlite.ts";`],
    [
      "infra/bus/a.ts",
      `import type { X } from "#projections/usage.ts"; import { y } from "#services/errors.ts";`,
    ],
    [
      "domain/a.ts",
      `// import { x } from "../services/x.ts";\nexport const text = 'import "#infra/x.ts"';`,
    ],
  ])("import layers let pass: %s with %s", ([path, text]) => {
    expect(plant(importLayers, path, text)).toEqual([]);
  });

  test("one file per client library", () => {
    const a = { path: "infra/upstream/a.ts", text: `import { Pool } from "undici";` };
    const b = { path: "infra/rpc/b.ts", text: `import type { Pool } from "undici/types/pool.js";` };
    expect(oneFilePerClient([a, { ...b, path: "test/b.ts" }])).toEqual([]);
    expect(oneFilePerClient([a, b])).toHaveLength(2);
    expect(plant(oneFilePerClient, "infra/a.ts", `import fastify from "fastify";`)).toHaveLength(1);
  });

  test.for([
    "export const now = Date.now();",
    "export const clock = Date.now;",
    "export const now = new Date();",
    "export const now = new Date;",
    "export const now = Date();",
    "export const now = performance.now();",
    "export const now = process.hrtime.bigint();",
    "setTimeout(run, 5);",
    "setInterval(run, 5);",
    "setImmediate(run);",
    "export const start = setTimeout;",
    "globalThis.setTimeout(run, 5);",
    "export const signal = AbortSignal.timeout(5);",
    "export const dice = Math.random();",
    "export const id = crypto.randomUUID();",
    "export const now = `at ${Date.now()}`;",
    'import { randomBytes } from "node:crypto";',
    'import { setTimeout as sleep } from "node:timers/promises";',
    'import { performance } from "node:perf_hooks";',
  ])("clock and randomness: %s", (text) => {
    for (const path of ["domain/a.ts", "projections/a.ts", "services/gateway/main.ts"]) {
      expect(plant(clockAndRandomness, path, text)).not.toEqual([]);
      expect(
        plant(clockAndRandomness, path, text, { ...none, clock: new Map([[path, "planted"]]) }),
      ).toEqual([]);
    }
    expect(plant(clockAndRandomness, "infra/clock.ts", text)).toEqual([]);
  });

  test.for([
    "export const at = new Date(1000);",
    "export const wait = (clock: Clock) => clock.setTimeout(run, 5);",
    "// Date.now() is what Clock stands for\nexport const a = 'Math.random()';",
  ])("clock and randomness let pass: %s", (text) => {
    expect(plant(clockAndRandomness, "services/a.ts", text)).toEqual([]);
  });

  test.for([
    "enum Colour { Red }",
    "const enum Colour { Red }",
    "namespace Space { export const a = 1; }",
    "export const a = b as any;",
    "export function f(a: any[]): void {}",
    "export class A { constructor(private readonly b: string) {} }",
    "class A extends B {}",
    "@sealed class A {}",
  ])("syntax: %s", (text) => {
    expect(plant(forbiddenSyntax, "domain/a.ts", text)).toHaveLength(1);
  });

  test("syntax lets errors and words pass", () => {
    const text = "export class Broken extends Error {}\n// any enum\nexport const a = 'as any';";
    expect(plant(forbiddenSyntax, "domain/a.ts", text)).toEqual([]);
  });

  // Written in pieces, because the rule reads this file too.
  test.for([
    ["// TO", "DO: later"],
    ["// FIX", "ME"],
    ["see /wo", "rk/main/domain"],
    ["cd /ro", "ot/project"],
    ["the pages in .", "./shared/design"],
    ['"resolved": "https:/', '/registry.example.org/zod.tgz"'],
    ["// oxlint-dis", "able-next-line no-console"],
  ])("words: %s%s", (pieces) => {
    expect(plant(wordsOutOfPlace, "docs/a.md", pieces.join(""))).toHaveLength(1);
  });

  test("words let reasons and other paths pass", () => {
    const text = `// oxlint-disable-next-line no-console -- the command prints its answer\nimport "./work/a.ts"; "/v1/models"`;
    expect(plant(wordsOutOfPlace, "services/cli/a.ts", text)).toEqual([]);
  });

  test("file sizes", () => {
    const path = "domain/a.ts";
    const listed = { ...none, long: new Map([[path, "planted"]]) };
    const text = "export {};\n".repeat(linesMax);
    expect(plant(fileSizes, path, text)).toEqual([]);
    expect(plant(fileSizes, path, text, listed)).toHaveLength(1);
    expect(plant(fileSizes, path, `${text}export {};\n`)).toHaveLength(1);
    expect(plant(fileSizes, path, `${text}export {};\n`, listed)).toEqual([]);
  });

  test("stale exemptions", () => {
    const gone = { ...none, wiring: new Map([["services/gone.ts", "planted"]]) };
    expect(plant(staleExemptions, "domain/a.ts", "", gone)).toHaveLength(1);
  });

  test("a file that cannot be parsed is an error", () => {
    expect(() => plant(forbiddenSyntax, "domain/a.ts", "const = 1;")).toThrow("domain/a.ts");
  });
});
