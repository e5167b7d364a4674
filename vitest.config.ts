import { defineConfig } from "vitest/config";

/** Tests that start processes or servers of their own run file by file: they would starve each other. */
const oneFileAtATime = { fileParallelism: false, testTimeout: 120_000, hookTimeout: 60_000 };

export default defineConfig({
  test: {
    globalSetup: ["./test/node-version.ts"],
    reporters: ["default", "./test/skip-reporter.ts"],
    testTimeout: 20_000,
    hookTimeout: 20_000,
    projects: [
      {
        extends: true,
        test: {
          name: "unit",
          include: ["{domain,projections,services,infra}/**/*.test.ts", "test/*.test.ts"],
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
    ],
  },
});
