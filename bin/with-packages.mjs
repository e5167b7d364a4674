#!/usr/bin/env node
// What `npm start` and `npm test` do first: where the packages are missing or are not those of the lock
// file, `npm ci` runs. With arguments, relai then runs with them; without any, the script goes on by itself.
// This file is plain JavaScript without packages, so that any Node can read it in a fresh clone.
import { readFileSync } from "node:fs";
import { constants } from "node:os";
import { fileURLToPath } from "node:url";
import { run } from "./child.mjs";

const root = fileURLToPath(new URL("../", import.meta.url));
const program = fileURLToPath(new URL("relai.mjs", import.meta.url));
const words = process.argv.slice(2);
/** A start needs nothing that only tests use: an installation by `npm ci --omit=dev` is enough for it. */
const isForTests = words.length === 0;

/** The JSON of a file; empty where it cannot be read. */
function read(file) {
  try {
    return JSON.parse(readFileSync(root + file, "utf8"));
  } catch {
    return {};
  }
}

/**
 * Why `npm ci` has to run, or undefined. What the lock file names is compared with what lies there: versions with those
 * of the packages themselves, hashes with those that npm noted as it installed (it notes versions too, but also some that
 * it did not install). Times are not compared: git gives every file that it writes the present one.
 */
function whyInstall() {
  const { packages: named = {} } = read("package-lock.json");
  const { packages: noted } = read("node_modules/.package-lock.json");
  if (noted === undefined) return "the packages are not installed yet";
  const nameOf = (path) => path.slice("node_modules/".length);
  for (const [path, { version, integrity, optional, dev }] of Object.entries(named)) {
    // The first is this repository itself; what is made for another platform is left out by npm.
    const mayBeMissing = optional || (dev && !isForTests);
    if (path === "" || (noted[path] === undefined && mayBeMissing)) continue;
    const here = read(`${path}/package.json`).version;
    if (here === undefined) return `${nameOf(path)} is not installed`;
    if (here !== version || noted[path]?.integrity !== integrity)
      return `${nameOf(path)} ${here} is not what package-lock.json names`;
  }
  // One that lies within another would be taken in the place of the one that is named.
  const more = Object.keys(noted).find((path) => named[path] === undefined);
  return more && `${nameOf(more)} is installed and not in package-lock.json`;
}

/** Runs `npm ci`: by the npm that runs this script and on its Node, not on the one that is about to be replaced. */
function install() {
  const { npm_execpath: npm = "", npm_node_execpath: node = process.execPath } = process.env;
  // The machine's own Node may be older than relai wants, and that is no matter: no warnings.
  const args = ["ci", "--loglevel=error", ...(isForTests ? ["--include=dev"] : [])];
  // What npm prints is not what relai prints, which scripts read.
  const options = { cwd: root, stdio: ["ignore", 2, 2] };
  return /\bnpm-cli\.js$/.test(npm)
    ? run(node, [npm, ...args], options)
    : run("npm", args, options);
}

const why = whyInstall();
if (why !== undefined) {
  process.stderr.write(`relai: ${why}, so npm ci runs first\n`);
  const { code, signalled } = await install();
  if (signalled !== undefined) process.exit(128 + constants.signals[signalled]);
  if (code !== 0) {
    process.stderr.write(
      `relai: npm ci failed with exit code ${code}, so nothing was started: it says above why, mostly that the npm registry cannot be reached; then try again\n`,
    );
    process.exit(code);
  }
}
if (!isForTests) {
  process.argv[1] = program;
  if (why === undefined) await import("./relai.mjs");
  // The Node that was installed just now is found in the path, where npm put its folder.
  else process.exit((await run("node", [program, ...words])).code);
}
