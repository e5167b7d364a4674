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

/** A process that is measured together with all that it has started. */
interface Measured {
  readonly pid: number;
}

/** CPU that processes have used so far together, in µs. */
export function cpuOf(processes: readonly Measured[]): number {
  return processes.reduce((sum, { pid }) => sum + cpuUs(pid), 0);
}

/** CPU used up to a moment, in µs: of the whole machine, and of this program with all that it has started. */
export interface CpuUsed {
  readonly atMs: number;
  readonly machineUs: number;
  readonly oursUs: number;
}

/** What the machine and this program have used so far. */
export function cpuUsed(): CpuUsed {
  const fields = statFields(process.pid);
  const endedChildren = Number(fields[13]) + Number(fields[14]);
  return {
    atMs: performance.now(),
    machineUs: busyTicks(readFileSync("/proc/stat", "utf8")) * TICK_US,
    oursUs: cpuUs(process.pid) + endedChildren * TICK_US,
  };
}

/**
 * The ticks in which a CPU was not idle, of the text of /proc/stat. Interrupts count: the kernel charges the time that it
 * serves a process's packets to that process as well. So does what a hypervisor gave to others.
 */
export function busyTicks(stat: string): number {
  const [, user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = stat
    .split(/\s+/, 9)
    .map(Number);
  return user + nice + system + irq + softirq + steal;
}

/**
 * More than this of a core, and the others have slowed down what was measured. The two counts are kept by different
 * clocks, so they may contradict each other as far, too.
 */
const OTHERS_MAX = 0.05;

/**
 * Whether a run may be trusted: what part of one core all other programs used between two moments, and the sentence
 * that says why that is too much, or that the counts contradict each other and so say nothing.
 */
export function othersBetween(
  before: CpuUsed,
  after: CpuUsed,
): { readonly share: number; readonly problem?: string } {
  const machineUs = after.machineUs - before.machineUs;
  const oursUs = after.oursUs - before.oursUs;
  const share = (machineUs - oursUs) / ((after.atMs - before.atMs) * 1000);
  if (share < -OTHERS_MAX)
    return { share, problem: "the bench seems to have used more CPU than the whole machine" };
  const others = Math.max(0, share);
  if (others <= OTHERS_MAX) return { share: others };
  const percent = Math.round(others * 100);
  return { share: others, problem: `other programs used ${percent} % of one core meanwhile` };
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

/** The same of the process that has most of it. */
export function memoryOf(processes: readonly Measured[], which: "peak" | "now"): number {
  return Math.max(...processes.map(({ pid }) => memoryMiB(pid, which)));
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
