import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";

/** Reading V8's CPU profiles, one of each thread of a process that ran with `--cpu-prof`. */

const TOP = 30;

const cpuProfile = z.object({
  nodes: z.array(
    z.object({
      id: z.number(),
      callFrame: z.object({ functionName: z.string(), url: z.string(), lineNumber: z.number() }),
    }),
  ),
  samples: z.array(z.number()),
  timeDeltas: z.array(z.number()),
});

/** A file's place as a reader would write it: packages by their name, ours from the repository's root. */
function shortUrl(url: string): string {
  const inPackage = url.lastIndexOf("/node_modules/");
  if (inPackage >= 0) return url.slice(inPackage + "/node_modules/".length);
  return url.replace(new URL("../../", import.meta.url).href, "");
}

/** The group that a function's time is also added to: a package, `node:…`, a top folder of ours, or V8's own. */
function groupOf(url: string): string {
  if (url === "") return "(native and V8)";
  if (url.startsWith("node:")) return url.split("/")[0] + "/…";
  const parts = shortUrl(url).split("/");
  return parts
    .slice(0, url.includes("/node_modules/") && !parts[0]?.startsWith("@") ? 1 : 2)
    .join("/");
}

function table(
  title: string,
  timesUs: ReadonlyMap<string, number>,
  totalUs: number,
  top: number,
): string {
  const rows = [...timesUs].sort((one, other) => other[1] - one[1]).slice(0, top);
  const lines = rows.map(([name, us]) => {
    const share = ((100 * us) / totalUs).toFixed(1).padStart(5);
    return `${share} % ${(us / 1000).toFixed(0).padStart(7)} ms  ${name}`;
  });
  return `${title}\n${lines.join("\n")}\n`;
}

/** The functions with the most time of their own in one profile, and the same by package or folder. */
function summarize(file: string): string {
  const { nodes, samples, timeDeltas } = cpuProfile.parse(JSON.parse(readFileSync(file, "utf8")));
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
  const functions = new Map<string, number>();
  const groups = new Map<string, number>();
  let totalUs = 0;
  let idleUs = 0;
  for (const [index, id] of samples.entries()) {
    const frame = frames.get(id);
    // A sample's time is what passes until the next one.
    const us = timeDeltas[index + 1] ?? 0;
    if (frame === undefined || frame.functionName === "(idle)") {
      idleUs += us;
      continue;
    }
    totalUs += us;
    const place = frame.url === "" ? "" : `  ${shortUrl(frame.url)}:${frame.lineNumber + 1}`;
    const name = `${frame.functionName === "" ? "(anonymous)" : frame.functionName}${place}`;
    functions.set(name, (functions.get(name) ?? 0) + us);
    const group = groupOf(frame.url);
    groups.set(group, (groups.get(group) ?? 0) + us);
  }
  const busy = `${(totalUs / 1000).toFixed(0)} ms busy, ${(idleUs / 1000).toFixed(0)} ms idle`;
  return `${table(`functions (${busy})`, functions, totalUs, TOP)}\n${table("packages and folders", groups, totalUs, 15)}`;
}

/** Summaries of all profiles in a folder, the main thread first. Throws when there are none. */
export function summarizeProfiles(folder: string): string {
  const thread = (file: string): number => Number(file.split(".")[4] ?? 0);
  const files = readdirSync(folder)
    .filter((file) => file.endsWith(".cpuprofile"))
    .sort((one, other) => thread(one) - thread(other));
  if (files.length === 0)
    throw new Error(`no .cpuprofile in ${folder}: the process did not end by itself`);
  return files
    .map(
      (file) =>
        `== thread ${thread(file)}${thread(file) === 0 ? " (main)" : ""}\n${summarize(join(folder, file))}`,
    )
    .join("\n");
}
