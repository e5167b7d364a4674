import { spawn } from "node:child_process";
import { expect, test, vi } from "vitest";
import { systemClock } from "./clock.ts";

function block(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

test("a timer calls back once and never early, though Node's own come up to a millisecond early", async () => {
  const clock = systemClock();
  for (let round = 0; round < 300; round += 1) {
    const from = clock.elapsed();
    let calls = 0;
    await new Promise<void>((resolve) => {
      clock.timer(1.5, () => {
        calls += 1;
        resolve();
      });
    });
    expect(clock.elapsed() - from).toBeGreaterThanOrEqual(1.5);
    expect(calls).toBe(1);
    // Each round begins at another place within a millisecond.
    const until = clock.elapsed() + Math.random();
    while (clock.elapsed() < until);
  }
});

test("a cancelled timer does not call back, also during its grace", async () => {
  const clock = systemClock();
  let calls = 0;
  const cancelPlain = clock.timer(5, () => (calls += 1));
  cancelPlain();
  const cancelGrace = clock.timer(5, () => (calls += 1));
  block(1_300);
  await sleep(100);
  expect(calls).toBe(0);
  cancelGrace();
  await sleep(700);
  expect(calls).toBe(0);
});

test("a timer that fires late waits for a grace, once", async () => {
  const clock = systemClock();
  let firedAt = 0;
  clock.timer(5, () => (firedAt = clock.elapsed()));
  block(1_300);
  const woke = clock.elapsed();
  await sleep(1_500);
  expect(firedAt - woke).toBeGreaterThanOrEqual(450);
});

test("delays beyond what Node's timer takes do not fire at once, and nonsense is refused", async () => {
  const clock = systemClock();
  let calls = 0;
  const warnings: string[] = [];
  const warned = (warning: Error): number => warnings.push(warning.name);
  process.on("warning", warned);
  const cancels = [2 ** 31, 2 ** 40, Infinity].map((ms) => clock.timer(ms, () => (calls += 1)));
  await sleep(30);
  process.off("warning", warned);
  expect(calls).toBe(0);
  // Node warns of a delay that it replaces by 1 ms; the timer would then wake the process a thousand times a second.
  expect(warnings).toEqual([]);
  for (const cancel of cancels) cancel();
  expect(() => clock.timer(Number.NaN, () => {})).toThrow(RangeError);
  expect(() => clock.timer(-1, () => {})).toThrow(RangeError);
});

test("a jump of more than a minute against the clock that never goes back is told by the first reading that shows it, once", () => {
  const jumps: number[] = [];
  const wall = vi.spyOn(Date, "now");
  const real = Date.now();
  let setMs = 0;
  wall.mockImplementation(() => real + setMs);
  try {
    const clock = systemClock((jumpMs) => jumps.push(jumpMs));
    const readAt = (ms: number) => {
      setMs = ms;
      expect(clock.now()).toBe(real + ms);
      return jumps.splice(0).map((jumpMs) => Math.round(jumpMs / 1_000));
    };
    expect(readAt(0)).toEqual([]);
    // Ordinary adjustments, also several of them, as long as they stay within a minute together.
    expect([readAt(30_000), readAt(59_000), readAt(-59_000)]).toEqual([[], [], []]);
    expect([readAt(3_600_000), readAt(3_600_000)]).toEqual([[3_600], []]);
    expect([readAt(3_630_000), readAt(0)]).toEqual([[], [-3_600]]);
    expect(readAt(61_000)).toEqual([61]);
  } finally {
    wall.mockRestore();
  }
});

test("a stopped process reads what arrived before its timers time it out", async () => {
  const script = `
    import { systemClock } from ${JSON.stringify(import.meta.resolve("./clock.ts"))};
    process.stdin.once("data", () => { process.stdout.write("data"); process.exit(0); });
    systemClock().timer(1000, () => { process.stdout.write("timeout"); process.exit(0); });
    process.stdout.write("armed ");
  `;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  let said = "";
  child.stdout.on("data", (bytes: Buffer) => (said += bytes.toString()));
  while (!said.includes("armed")) await sleep(10);
  child.kill("SIGSTOP");
  child.stdin.write("here");
  await sleep(2_600);
  child.kill("SIGCONT");
  await new Promise((resolve) => child.once("exit", resolve));
  expect(said).toBe("armed data");
});

test("a pending timer does not keep a process alive", async () => {
  const script = `
    import { systemClock } from ${JSON.stringify(import.meta.resolve("./clock.ts"))};
    systemClock().timer(60_000, () => {});
  `;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: "inherit",
  });
  const code = await new Promise((resolve) => child.once("exit", resolve));
  expect(code).toBe(0);
});
