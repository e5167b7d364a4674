#!/usr/bin/env node
// Starts relai's command line on a Node that runs TypeScript as it is. Where the machine's own Node is
// older, the Node that npm installed beside relai takes over: same arguments, terminal and exit code.
// This file is plain JavaScript, so that an old Node can read it.
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { run } from "./child.mjs";

const nodeMajorMin = 24;

/** Path of the packaged Node that fits this machine, or undefined if none is installed. */
function packagedNode() {
  const { optionalDependencies } = JSON.parse(
    readFileSync(new URL("../package.json", import.meta.url), "utf8"),
  );
  const platform = `-${process.platform}-${process.arch}`;
  for (const name of Object.keys(optionalDependencies)) {
    const path = fileURLToPath(new URL(`../node_modules/${name}/bin/node`, import.meta.url));
    if (name.endsWith(platform) && existsSync(path)) return path;
  }
  return undefined;
}

const major = Number(process.versions.node.split(".")[0]);
if (major >= nodeMajorMin) {
  await import("#services/cli/main.ts");
} else {
  const node = packagedNode();
  if (node === undefined) {
    process.stderr.write(
      `relai: needs Node ${nodeMajorMin} or newer, this is ${process.version}; run npm ci to install the packaged one\n`,
    );
    process.exitCode = 2;
  } else {
    process.exit((await run(node, process.argv.slice(1))).code);
  }
}
