import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { endWithHarness, tell } from "./child.ts";
import { median } from "./stats.ts";

/**
 * What one durable commit costs on this disk now: SQLite in WAL mode with synchronous FULL, one small row a
 * transaction, which is the least that any ledger on it can wait for. Run on the gateway's core.
 */
export type CommitCost = { readonly medianMs: number };

const ROW_BYTES = 1_000;

function commitCost(folder: string, seconds: number): CommitCost {
  const database = new DatabaseSync(join(folder, "commit-cost.db"));
  database.exec(
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE row (bytes BLOB)",
  );
  const insert = database.prepare("INSERT INTO row VALUES (?)");
  const row = new Uint8Array(ROW_BYTES);
  const timesMs: number[] = [];
  const untilMs = performance.now() + seconds * 1000;
  for (let nowMs = performance.now(); nowMs < untilMs; nowMs = performance.now()) {
    insert.run(row);
    timesMs.push(performance.now() - nowMs);
  }
  database.close();
  return { medianMs: median(timesMs) };
}

endWithHarness();
const [folder = ".", seconds = "1"] = process.argv.slice(2);
tell(commitCost(folder, Number(seconds)));
