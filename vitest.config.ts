import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";
import {
  BaseSequencer,
  type TestSequencer,
  type TestSpecification,
  type Vitest,
} from "vitest/node";

/** What takes minutes begins first, so that the rest runs beside it and nothing waits for it alone at the end. */
class LongestFirst implements TestSequencer {
  private readonly usual: BaseSequencer;

  constructor(vitest: Vitest) {
    this.usual = new BaseSequencer(vitest);
  }

  shard(files: TestSpecification[]): Promise<TestSpecification[]> {
    return this.usual.shard(files);
  }

  async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await this.usual.sort(files);
    // Those of a region that wait longest, then all that takes minutes, then the rest.
    const longest = [/\/region\/(away|kill|stop)\./, /\/test\/(simulation|faults|region)\//];
    const rankOf = ({ moduleId }: TestSpecification) => {
      const rank = longest.findIndex((name) => name.test(moduleId));
      return rank < 0 ? longest.length : rank;
    };
    return sorted.toSorted((one, other) => rankOf(one) - rankOf(other));
  }
}

/** Tests that start processes or servers of their own run file by file: they would starve each other. */
const oneFileAtATime = { fileParallelism: false, testTimeout: 120_000, hookTimeout: 60_000 };

export default defineConfig({
  test: {
    globalSetup: ["./test/node-version.ts"],
    reporters: ["default", "./test/skip-reporter.ts"],
    testTimeout: 60_000,
    hookTimeout: 20_000,
    // What does not come true on a busy machine within a second is not wrong.
    expect: { poll: { timeout: 20_000 } },
    // A worker for every core (vitest leaves one idle, which is half of two), and one for the test that only waits.
    maxWorkers: availableParallelism() + 1,
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        extends: true,
        test: {
          name: "unit",
          include: [
            "{domain,projections,services,infra}/**/*.test.ts",
            "test/{,repository/,servers/}*.test.ts",
          ],
        },
      },
      {
        extends: true,
        test: {
          name: "conformance",
          include: ["test/conformance/**/*.test.ts"],
          testTimeout: 60_000,
        },
      },
      {
        extends: true,
        test: {
          name: "simulation",
          include: ["test/simulation/**/*.test.ts"],
          testTimeout: 300_000,
        },
      },
      {
        extends: true,
        test: {
          // A process that is stopped for 90 s: nearly all of that is waiting, so it runs beside the others.
          name: "stopped",
          include: ["test/faults/stop.test.ts"],
          testTimeout: 900_000,
        },
      },
      {
        extends: true,
        test: {
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          sequence: { groupOrder: 1 },
          ...oneFileAtATime,
        },
      },
      {
        extends: true,
        test: {
          name: "faults",
          include: ["test/faults/**/*.test.ts"],
          exclude: ["test/faults/stop.test.ts"],
          sequence: { groupOrder: 2 },
          ...oneFileAtATime,
          testTimeout: 900_000,
        },
      },
      {
        extends: true,
        test: {
          name: "mutants",
          include: ["test/mutants/**/*.test.ts"],
          sequence: { groupOrder: 3 },
          ...oneFileAtATime,
        },
      },
      {
        extends: true,
        test: {
          // A region of processes under load, which wait for a minute's silence again and again: its files run side by
          // side, and when nothing else does.
          name: "region",
          include: ["test/region/**/*.test.ts"],
          sequence: { groupOrder: 4 },
          testTimeout: 900_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
