import { parseArgs } from "node:util";
import { MUTANTS, type Mutant } from "./mutants.ts";
import { copyTree, StaleMutant, type Copy, type ProofRun } from "./runner.ts";

/**
 * `npm run mutants`: shows that the proofs of the promises can fail. Each mutant breaks the product in one place of a
 * copy, and the test that it names must turn red; without the mutants every such test must be green.
 */

const USAGE = `usage: npm run mutants -- [--only name,name] [--list]
  --only   these mutants instead of all
  --list   what there is, and nothing is run
`;

function chosen(only: string | undefined): readonly Mutant[] {
  if (only === undefined) return MUTANTS;
  return only.split(",").map((name) => {
    const mutant = MUTANTS.find((one) => one.name === name);
    if (!mutant) throw new StaleMutant(`there is no mutant called '${name}'; --list shows them`);
    return mutant;
  });
}

const seconds = (run: ProofRun) => `${(run.elapsedMs / 1000).toFixed(1)} s`;
const say = (line: string) => process.stdout.write(`${line}\n`);

/** Every proof that the mutants name is green on the product as it is; says which is not. */
async function greenWithout(copy: Copy, mutants: readonly Mutant[]): Promise<boolean> {
  const proofs = mutants.map(({ proof }) => proof);
  const runs = await copy.run(proofs);
  const bad = runs.flatMap((run, at) =>
    run.failed === 0 && run.passed > 0 ? [] : [{ run, proof: proofs[at] }],
  );
  for (const { run, proof } of bad)
    say(
      `BAD    ${proof?.file} › ${proof?.test}: ${run.passed} passed and ${run.failed} failed without any mutant: ${run.why}`,
    );
  if (bad.length === 0 && runs[0])
    say(`green  every proof without its mutant (${seconds(runs[0])})`);
  return bad.length === 0;
}

async function main(args: string[]): Promise<boolean> {
  const { values } = parseArgs({
    args,
    options: {
      only: { type: "string" },
      list: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    return true;
  }
  const mutants = chosen(values.only);
  if (values.list) {
    for (const { name, why, file, proof } of mutants)
      say(`${name}: ${why}\n  in ${file}, noticed by ${proof.file} › ${proof.test}`);
    return true;
  }
  const copy = copyTree();
  try {
    let good = await greenWithout(copy, mutants);
    for (const mutant of mutants) {
      const run = await copy.runMutated(mutant);
      if (run.failed === 0) good = false;
      say(
        run.failed > 0
          ? `red    ${mutant.name} (${seconds(run)}): ${run.why}`
          : `BAD    ${mutant.name} was not noticed by ${mutant.proof.file}: ${run.passed} passed; ${run.why}`,
      );
    }
    say(good ? `${mutants.length} mutants, each noticed` : "some proofs cannot be trusted");
    return good;
  } finally {
    copy.remove();
  }
}

if (import.meta.main) {
  try {
    if (!(await main(process.argv.slice(2)))) process.exitCode = 1;
  } catch (error) {
    process.stderr.write(`mutants: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 2;
  }
}
