import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { HOLD_TABLE } from "#domain/accounts/holds.ts";
import { EVENT_SCHEMAS } from "#domain/events/schemas.ts";
import { describeConfig, readConfig } from "#infra/config.ts";
import { PROJECTIONS } from "#projections/all.ts";
import { ERRORS } from "#services/errors.ts";
import { runCli } from "#services/cli/program.ts";
import type { CliWorld } from "#services/cli/world.ts";
import { filesIn, namesInCode, root, sectionsOf, tableWith, textOf } from "./documents.ts";

/** What the documents say is held to what the code says. */

describe("docs/errors.md", () => {
  const text = textOf("docs/errors.md");

  test("its table is the table in the code, both ways and in the same order", () => {
    const told = tableWith(text, ["code", "status", "type", "message", "again"]);
    const meant = Object.entries(ERRORS).map(([code, { status, type, message, again }]) => [
      `\`${code}\``,
      String(status),
      `\`${type}\``,
      message,
      again,
    ]);
    expect(told).toEqual(meant);
  });

  test("has a paragraph for each error, and for no other", () => {
    const sections = sectionsOf(text, "###");
    expect([...sections.keys()].toSorted()).toEqual(
      Object.keys(ERRORS)
        .map((code) => `\`${code}\``)
        .toSorted(),
    );
    const empty = [...sections].filter(([, body]) => body.trim() === "").map(([code]) => code);
    expect(empty).toEqual([]);
  });
});

describe("docs/events.md", () => {
  const sections = sectionsOf(textOf("docs/events.md"), "###");
  const fieldsIn = (body: string) =>
    [...body.matchAll(/^- `(\w+)`/gm)].map(([, name = ""]) => name);
  const shared = fieldsIn(sectionsOf(textOf("docs/events.md"), "##").get("Journals") ?? "");

  test("has every event, and no other", () => {
    expect([...sections.keys()].toSorted()).toEqual(Object.keys(EVENT_SCHEMAS).toSorted());
  });

  test.for(Object.entries(EVENT_SCHEMAS))("%s has its fields, and no other", ([type, schema]) => {
    const body = sections.get(type) ?? "";
    const told = fieldsIn(body);
    if (/^- \*\*request fields\*\*$/m.test(body)) told.push(...shared);
    expect(told.toSorted()).toEqual(Object.keys(schema.shape).toSorted());
  });
});

test("ARCHITECTURE.md: the hold table is the one in the code", () => {
  const verbs = Object.keys(HOLD_TABLE.absent);
  const told = tableWith(textOf("ARCHITECTURE.md"), ["state", ...verbs]);
  const meant = Object.entries(HOLD_TABLE).map(([state, acts]) => [state, ...Object.values(acts)]);
  expect(told).toEqual(meant);
});

test("ARCHITECTURE.md: the projections are those of the one list, in its order", () => {
  const told = namesInCode(tableWith(textOf("ARCHITECTURE.md"), ["projection", "feeds"]));
  expect(told).toEqual(PROJECTIONS.map(({ name }) => name));
});

test("ARCHITECTURE.md: what holds an invariant or a promise is there, by its name", () => {
  const [, books = "", path = ""] = textOf("ARCHITECTURE.md").split(/(?=^\| name \| says )/m);
  const rows = [books, path].flatMap((text) => tableWith(text, ["name", "says", "held by"]));
  const missing = rows.flatMap(([invariant = "", , heldBy = ""]) => {
    const places = [...heldBy.matchAll(/\[[^\]]+\]\(([^)]+)\): ("[^"]+"(?:, "[^"]+")*)/g)];
    if (places.length === 0) return [`${invariant} names nothing that holds it`];
    return places.flatMap(([, file = "", names = ""]) =>
      [...names.matchAll(/"([^"]+)"/g)]
        .filter(([, name = ""]) => !textOf(file).includes(name))
        .map(([name]) => `${invariant}: ${file} has no ${name}`),
    );
  });
  expect(missing).toEqual([]);
});

test("README.md: the settings are those of the schema, with their defaults", () => {
  const told = tableWith(textOf("README.md"), ["name", "default", "what it sets"]);
  const meant = describeConfig(readConfig({ env: {} })).map(({ name, value }) => [
    `\`${name}\``,
    value === null ? "none" : `\`${value}\``,
  ]);
  expect(told.map((row) => row.slice(0, 2))).toEqual(meant);
});

const documents = filesIn("", (path) => path.endsWith(".md"));

/** A document without its code. */
const prose = (text: string) =>
  text.replaceAll(/^```.*?^```$/gms, "").replaceAll(/`[^`\n]*`/g, "``");

/** How a heading is addressed within a page. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
    .trim()
    .replaceAll(" ", "-");
}

describe("links", () => {
  test("documents are found", () => expect(documents).toContain("README.md"));

  test.for(documents)("of %s lead to what is there", (document) => {
    for (const [, target = ""] of prose(textOf(document)).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      const [path = "", anchor] = target.split("#");
      const file = path === "" ? document : join(dirname(document), path);
      expect(existsSync(join(root, file)), `${document}: ${target}`).toBe(true);
      if (anchor === undefined) continue;
      const headings = [...textOf(file).matchAll(/^#+ (.*)$/gm)].map(([, text = ""]) => text);
      expect(headings.map(anchorOf), `${document}: ${target}`).toContain(anchor);
    }
  });
});

/** The commands that a document shows: in blocks of shell, and in running text. */
function commandsIn(text: string): string {
  const blocks = [...text.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, code = ""]) => code);
  const inline = [...text.replaceAll(/^```.*?^```$/gms, "").matchAll(/`([^`\n]+)`/g)];
  return [...blocks, ...inline.map(([, code = ""]) => code)].join("\n");
}

/** What `relai <words> --help` prints; nothing is carried out. */
async function helpOf(words: readonly string[]): Promise<string> {
  let text = "";
  const never = () => {
    throw new Error("help does nothing");
  };
  const out = { write: (more: string) => void (text += more), isTerminal: false };
  const clock = { now: never, elapsed: never, timer: never };
  const world: CliWorld = { out, err: out, clock, start: never, simulator: never };
  await runCli(world, [...words, "--help"]);
  return text;
}

/** Whether the help is that of exactly these words; an alias stands behind its name. */
const isHelpOf = (help: string, words: readonly string[]) =>
  new RegExp(`^Usage: relai ${words.map((word) => `\\S*\\b${word}\\b\\S*`).join(" ")}(\\s|$)`).test(
    help,
  );

async function unknownIn(words: readonly string[]): Promise<string | undefined> {
  const [first = "", second = ""] = words;
  const help = await helpOf([first]);
  if (!isHelpOf(help, [first])) return `relai ${first}`;
  if (!help.startsWith(`Usage: relai ${first} [options] [command]`)) return undefined;
  if (second === "") return `relai ${first}`;
  const known = isHelpOf(await helpOf([first, second]), [first, second]);
  return known ? undefined : `relai ${first} ${second}`;
}

describe("commands", () => {
  const { scripts } = JSON.parse(textOf("package.json")) as { scripts: Record<string, string> };
  const npmOwn = new Set(["ci", "install"]);

  test("a command that is not there is seen", async () => {
    expect(await unknownIn(["org", "create"])).toBeUndefined();
    expect(await unknownIn(["key", "issue"])).toBeUndefined();
    expect(await unknownIn(["balance", "create"])).toBeUndefined();
    expect(await unknownIn(["org", "destroy"])).toBe("relai org destroy");
    expect(await unknownIn(["org"])).toBe("relai org");
    expect(await unknownIn(["audit"])).toBe("relai audit");
  });

  test.for(documents)("of relai in %s are there", async (document) => {
    const shown = commandsIn(textOf(document)).matchAll(
      /(?:^|npx |\(|bin\/)relai(?:\.mjs)? ([a-z]+)(?: ([a-z]+))?/gm,
    );
    const unknown: string[] = [];
    for (const [, first = "", second = ""] of shown) {
      const found = await unknownIn([first, second]);
      if (found !== undefined) unknown.push(found);
    }
    expect(unknown).toEqual([]);
  });

  test.for(documents)("of npm in %s are there, with the files that they name", (document) => {
    const shown = commandsIn(textOf(document)).matchAll(/\bnpm (?:run (?:-s )?)?([a-z]+)\b/g);
    const unknown = [...shown].flatMap(([, name = ""]) => {
      if (npmOwn.has(name)) return [];
      const script = scripts[name];
      if (script === undefined) return [`npm run ${name}`];
      return [...script.matchAll(/\bnode (\S+)/g)]
        .filter(([, file = ""]) => !existsSync(join(root, file)))
        .map(([, file = ""]) => `npm run ${name}: ${file}`);
    });
    expect(unknown).toEqual([]);
  });

  test("README.md shows the commands that matter", () => {
    const shown = commandsIn(textOf("README.md"));
    for (const command of ["npm start", "npm test", "npx relai replay"])
      expect(shown).toContain(command);
  });
});
