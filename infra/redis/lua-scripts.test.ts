import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, expect, test } from "vitest";
import { HOLD_TABLE } from "#domain/accounts/holds.ts";
import { admissionScripts } from "#infra/admission/redis-scripts.ts";
import { loadScripts } from "./lua-scripts.ts";

const folder = mkdtempSync(join(tmpdir(), "relai-lua-"));
const url = pathToFileURL(`${folder}/`);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const contract = { keys: ["state"], args: ["orgId", "micro"] };
const header = "-- Does it.\n--\n-- keys: state\n-- args: orgId micro\n-- returns: done\n";

function load(text: string) {
  writeFileSync(join(folder, "do.lua"), text);
  return loadScripts(url, { do: contract }, (of) => `-- before ${of("uses").join(" and ")}\n`).do;
}

test("a script gets its keys and arguments by the names in its header", () => {
  const { text, sha1, args } = load(`${header}-- uses: time owner\nreturn { 'done' }\n`);
  expect(args).toEqual(["orgId", "micro"]);
  expect(sha1).toMatch(/^[0-9a-f]{40}$/);
  expect(text).toContain("local state = KEYS[1]\n");
  expect(text).toContain("local orgId = ARGV[1]\nlocal micro = ARGV[2]\n");
  expect(text).toContain("-- before time and owner\n");
});

test.for([
  ["other arguments", header.replace("orgId micro", "micro orgId"), /takes the args "micro orgId"/],
  ["other keys", header.replace("keys: state", "keys: state free"), /takes the keys "state free"/],
  ["no answer", header.replace("-- returns: done", ""), /does not say what it returns/],
] as const)("a header with %s is an error at the start", ([, text, error]) => {
  expect(() => load(text)).toThrow(error);
});

test("the scripts of admission carry the columns of the one hold table", () => {
  const { apply, admit, figures } = admissionScripts();
  const { absent, provisional } = HOLD_TABLE;
  expect(admit.text).toContain(`admit = { absent = "${absent.admit}", `);
  expect(apply.text).toContain(`provisional = "${provisional.apply_open}"`);
  expect(figures.text).not.toContain("sweep");
});
