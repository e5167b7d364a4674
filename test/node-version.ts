/**
 * Stops a test run on a Node that cannot run relai: vitest compiles what an old Node refuses, so the
 * tests would speak about another program than the one people start.
 */
export function setup(): void {
  const major = Number(process.versions.node.split(".")[0]);
  if (major < 24) {
    throw new Error(
      `relai's tests need Node 24 or newer, this is ${process.version}: run them as npm test, which uses the Node in node_modules`,
    );
  }
}
