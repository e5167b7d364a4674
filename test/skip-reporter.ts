import type { Reporter, TestCase } from "vitest/node";

type Skip = { readonly name: string; readonly reason: string | undefined };

/**
 * Prints every skipped test with its reason at the end of a run, and fails the run if one has none:
 * a test gives its reason with `ctx.skip("no Redis at RELAI_REDIS_URL")`. Tests left out because a name
 * was asked for with `-t` are not skips.
 */
export default class SkipReporter implements Reporter {
  readonly #skips: Skip[] = [];
  #namePattern: RegExp | undefined;

  onInit(vitest: { readonly config: { readonly testNamePattern?: RegExp | undefined } }): void {
    this.#namePattern = vitest.config.testNamePattern;
  }

  onTestCaseResult(test: TestCase): void {
    const result = test.result();
    if (result.state !== "skipped") return;
    if (this.#namePattern !== undefined && !this.#namePattern.test(test.fullName)) return;
    this.#skips.push({
      name: `${test.module.relativeModuleId} > ${test.fullName}`,
      reason: result.note,
    });
  }

  onTestRunEnd(): void {
    if (this.#skips.length === 0) return;
    process.stdout.write("\nSkipped tests\n");
    for (const { name, reason } of this.#skips.splice(0)) {
      process.stdout.write(`  ${name}: ${reason ?? "NO REASON GIVEN, which fails the run"}\n`);
      if (reason === undefined) process.exitCode = 1;
    }
  }
}
