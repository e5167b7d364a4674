import { readFileSync } from "node:fs";
import {
  FORGOTTEN_MAX,
  HOLD_TABLE,
  SHARES_MAX,
  TOMBSTONE_MS,
  type HoldVerb,
} from "#domain/accounts/holds.ts";
import { BUCKETS } from "#domain/accounts/rate-window.ts";
import { OLD_MS } from "#domain/accounts/wanted.ts";
import { loadScripts, type LuaHeader } from "#infra/redis/lua-scripts.ts";

/** What every script of an organization is given: its keys, all in one slot. */
const KEYS = ["state", "free", "taken", "tombstones"] as const;

const CONTRACTS = {
  admit: {
    keys: KEYS,
    args: ["orgId", "ownerEpoch", "requestId", "writerEpoch", "keyId", "holdMicro"],
  },
  extend: { keys: KEYS, args: ["orgId", "ownerEpoch", "requestId", "totalMicro"] },
  drop: { keys: KEYS, args: ["orgId", "ownerEpoch", "requestId"] },
  close: { keys: KEYS, args: ["orgId", "ownerEpoch", "requestId", "chargedMicro"] },
  figures: { keys: KEYS, args: ["keyId", "ownerEpoch"] },
  apply: { keys: KEYS, args: ["orgId", "ownerEpoch", "items"] },
  adopt: { keys: KEYS, args: ["orgId", "ownerEpoch", "servers", "snapshot"] },
  sweep: { keys: KEYS, args: ["orgId", "ownerEpoch", "writerEpoch"] },
  "old-writers": { keys: KEYS, args: [] },
  want: { keys: ["wanted"], args: ["orgId", "most"] },
} as const;

const FOLDER = new URL("./lua/", import.meta.url);
const SAFE_MAX = Number.MAX_SAFE_INTEGER;
const CONSTANTS = { BUCKETS, FORGOTTEN_MAX, OLD_MS, SAFE_MAX, SHARES_MAX, TOMBSTONE_MS };

/**
 * The scripts of the admission store. The life of a hold and the reducer's numbers are not written a second time: the
 * scripts get them from the reducer's own table. `timeLua` stands in the place of shared/time.lua.
 */
export function admissionScripts(timeLua?: string) {
  const before = (header: LuaHeader) => {
    const parts = header("uses").map((name) =>
      name === "time" && timeLua !== undefined
        ? timeLua
        : readFileSync(new URL(`shared/${name}.lua`, FOLDER), "utf8"),
    );
    const verbs = header("verbs").map((verb) => columnOf(verb as HoldVerb));
    const constants = Object.entries(CONSTANTS).map(([name, value]) => `local ${name} = ${value}`);
    return [...constants, `local ACTS = { ${verbs.join(", ")} }`, ...parts].join("\n");
  };
  return loadScripts(FOLDER, CONTRACTS, before);
}

/** One verb's column of the hold table, as an entry of a Lua table. */
function columnOf(verb: HoldVerb): string {
  const acts = Object.entries(HOLD_TABLE).map(([state, row]) => `${state} = "${row[verb]}"`);
  return `${verb} = { ${acts.join(", ")} }`;
}
