import { readFileSync, readdirSync, realpathSync } from "node:fs";

/** What Linux says about processes, disks and the machine. */

// The unit of CPU times in /proc: USER_HZ, 100 on every architecture that Node runs on.
const TICK_US = 10_000;

function statFields(pid: number | string): string[] {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The name in the second field may hold spaces and parentheses; what follows the last one does not.
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
}

/** A process and all its descendants that live. */
function treeOf(rootPid: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      parents.set(Number(name), Number(statFields(name)[1]));
    } catch {
      // It ended between the listing and the look at it.
    }
  }
  const tree = [rootPid];
  for (const parent of tree) {
    for (const [pid, of] of parents) if (of === parent) tree.push(pid);
  }
  return tree;
}

/** CPU that a process tree has used so far, all threads, user and system, in µs (in steps of 10 ms). */
export function cpuUs(rootPid: number): number {
  let ticks = 0;
  for (const pid of treeOf(rootPid)) {
    const fields = statFields(pid);
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks * TICK_US;
}

/**
 * CPU that all other programs of the machine have used since it started, in µs. Its growth over a run says how far
 * the run can be trusted.
 */
export function othersUs(): number {
  const [, user, nice, system] = readFileSync("/proc/stat", "utf8").split(/\s+/, 4).map(Number);
  const fields = statFields(process.pid);
  const endedChildren = Number(fields[13]) + Number(fields[14]);
  return ((user ?? 0) + (nice ?? 0) + (system ?? 0) - endedChildren) * TICK_US - cpuUs(process.pid);
}

/** Resident memory of a process tree in MiB: its peak so far, or what it has now. */
export function memoryMiB(rootPid: number, which: "peak" | "now"): number {
  const line = which === "peak" ? /^VmHWM:\s+(\d+) kB/m : /^VmRSS:\s+(\d+) kB/m;
  let kib = 0;
  for (const pid of treeOf(rootPid)) {
    kib += Number(line.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0);
  }
  return kib / 1024;
}

/** The type of the file system that a folder lies on, as the kernel names it. */
export function fileSystemOf(folder: string): string {
  const real = realpathSync(folder);
  let best = { point: "", type: "unknown" };
  for (const line of readFileSync("/proc/self/mounts", "utf8").split("\n")) {
    const [, point = "", type = ""] = line.split(" ");
    const holds = real === point || real.startsWith(point === "/" ? "/" : `${point}/`);
    // Of two mounts at one point, the later one is seen.
    if (holds && point.length >= best.point.length) best = { point, type };
  }
  return best.type;
}
