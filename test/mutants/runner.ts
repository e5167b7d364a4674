import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import type { Mutant, Proof } from "./mutants.ts";

/**
 * Applies mutants to a copy of the tree and runs the proofs that must notice them. The tree itself is only read, so
 * that neither an interrupted run nor somebody who edits meanwhile can leave a mutant in the product.
 */

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
/** Below the time limit of a test, so that a proof that hangs is told as that. */
const PROOF_MS_MAX = 100_000;

/** The mutant or its proof does not fit the tree any more: the list has to be brought up to date. */
export class StaleMutant extends Error {
  override readonly name = "StaleMutant";
}

/** What a run of one proof came to. */
export interface ProofRun {
  readonly passed: number;
  readonly failed: number;
  /** The first lines of the first failure, or of what stopped the run. */
  readonly why: string;
  readonly elapsedMs: number;
}

export interface Copy {
  readonly folder: string;
  /** Runs proofs on the product as it is, all in one go; what each came to, in their order. */
  run(proofs: readonly Proof[]): Promise<readonly ProofRun[]>;
  /** Runs a mutant's proof on the product with the mutant in it, and takes it out again. Throws {@link StaleMutant}. */
  runMutated(mutant: Mutant): Promise<ProofRun>;
  remove(): void;
}

/** The product's text with the mutant in it. Throws {@link StaleMutant} unless what it replaces stands there once. */
export function mutated(mutant: Mutant, text: string): string {
  const places = text.split(mutant.find).length - 1;
  if (places !== 1)
    throw new StaleMutant(
      `${mutant.name}: what it replaces stands ${places} times in ${mutant.file}, not once`,
    );
  return text.replace(mutant.find, () => mutant.replace);
}

/** Whether a mutant fits the tree: its place is there once, and its proof is a test that exists. Throws when not. */
export function checkFits(mutant: Mutant): void {
  mutated(mutant, readFileSync(join(ROOT, mutant.file), "utf8"));
  const { file, test } = mutant.proof;
  if (!existsSync(join(ROOT, file))) throw new StaleMutant(`${mutant.name}: there is no ${file}`);
  // The test may stand in a suite beside the file that runs it.
  const folder = dirname(join(ROOT, file));
  const isThere = readdirSync(folder, { withFileTypes: true }).some(
    (entry) => entry.isFile() && readFileSync(join(folder, entry.name), "utf8").includes(test),
  );
  if (!isThere) throw new StaleMutant(`${mutant.name}: there is no test '${test}' for ${file}`);
}

/** Copies every file of the tree that is tracked or new, less what is ignored; the dependencies are shared. */
export function copyTree(): Copy {
  const folder = mkdtempSync(join(tmpdir(), "relai-mutants-"));
  const listed = execFileSync(
    "git",
    ["ls-files", "-z", "--cached", "--others", "--exclude-standard"],
    { cwd: ROOT, encoding: "utf8", maxBuffer: 64 * 1024 * 1024 },
  );
  for (const path of listed.split("\0")) {
    // A file that was removed and not yet committed is still listed.
    if (path === "" || !existsSync(join(ROOT, path))) continue;
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    copyFileSync(join(ROOT, path), join(folder, path));
  }
  symlinkSync(join(ROOT, "node_modules"), join(folder, "node_modules"), "dir");
  return {
    folder,
    run: (proofs) => runProofs(folder, proofs),
    async runMutated(mutant) {
      const path = join(folder, mutant.file);
      const text = readFileSync(path, "utf8");
      writeFileSync(path, mutated(mutant, text));
      try {
        const [run] = await runProofs(folder, [mutant.proof]);
        if (!run) throw new Error("a proof that was run came to something");
        return run;
      } finally {
        writeFileSync(path, text);
      }
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

const report = z.object({
  testResults: z.array(
    z.object({
      name: z.string(),
      message: z.string().optional(),
      assertionResults: z.array(
        z.object({
          fullName: z.string(),
          status: z.string(),
          failureMessages: z.array(z.string()).nullish(),
        }),
      ),
    }),
  ),
});
type FileResult = z.infer<typeof report>["testResults"][number];

/** One run of vitest over the files of all these proofs, and only their tests: to start it costs more than most proofs. */
async function runProofs(folder: string, proofs: readonly Proof[]): Promise<readonly ProofRun[]> {
  const begun = performance.now();
  const output = join(folder, ".proof.json");
  rmSync(output, { force: true });
  const patterns = proofs.map(({ test }) => test.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const child = spawn(
    process.execPath,
    [
      join(folder, "node_modules/vitest/vitest.mjs"),
      "run",
      ...new Set(proofs.map(({ file }) => file)),
      "--testNamePattern",
      patterns.join("|"),
      "--reporter=json",
      `--outputFile=${output}`,
    ],
    { cwd: folder, env: environment(), stdio: ["ignore", "ignore", "pipe"] },
  );
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr = (stderr + text).slice(-4_000);
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), PROOF_MS_MAX);
  await once(child, "close");
  clearTimeout(timer);
  const elapsedMs = performance.now() - begun;
  if (!existsSync(output)) {
    const why = stderr || "the proof did not end in time";
    return proofs.map(() => ({ passed: 0, failed: 0, why, elapsedMs }));
  }
  const { testResults } = report.parse(JSON.parse(readFileSync(output, "utf8")));
  return proofs.map((proof) => ({ ...cameTo(proof, testResults, stderr), elapsedMs }));
}

/** What one proof came to among all that was run. */
function cameTo({ file, test }: Proof, results: readonly FileResult[], stderr: string) {
  const mine = results.filter(({ name }) => name.endsWith(`/${file}`));
  const tests = mine
    .flatMap(({ assertionResults }) => assertionResults)
    .filter(({ fullName }) => fullName.includes(test));
  const failed = tests.filter(({ status }) => status === "failed");
  const why = failed[0]?.failureMessages?.[0] ?? mine.find((one) => one.message)?.message;
  return {
    passed: tests.filter(({ status }) => status === "passed").length,
    failed: failed.length,
    why: (why ?? stderr).split("\n").slice(0, 3).join(" | "),
  };
}

/** This machine's environment, without what an outer test run has put there for its own workers. */
function environment(): Record<string, string | undefined> {
  const own = Object.entries(process.env).filter(
    ([name]) => !/^(VITEST|NODE_ENV$|NODE_OPTIONS$|TEST$|DEV$|PROD$|MODE$|SSR$)/.test(name),
  );
  return { ...Object.fromEntries(own), NO_COLOR: "1" };
}
