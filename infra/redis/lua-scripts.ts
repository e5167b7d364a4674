import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

/** One decision of a Redis server: a Lua script with the names of what it is given. */
export interface LuaScript<Arg extends string = string> {
  readonly name: string;
  readonly text: string;
  /** By which a server that has it already knows it. */
  readonly sha1: string;
  readonly keys: readonly string[];
  readonly args: readonly Arg[];
}

/** What a caller gives to a script, in the script's own order. */
export interface LuaContract<Arg extends string = string> {
  readonly keys: readonly string[];
  readonly args: readonly Arg[];
}

/** A script's header, word by word: `-- keys: state free` and so on. */
export type LuaHeader = (line: "keys" | "args" | "uses" | "verbs") => readonly string[];

type ScriptsOf<Contracts> = {
  readonly [Name in keyof Contracts]: Contracts[Name] extends LuaContract<infer Arg>
    ? LuaScript<Arg>
    : never;
};

/**
 * Reads scripts from a folder, one file each. A script's header is its contract: its keys and arguments become local
 * variables of their names, and a header that is not what the callers give is an error at the start, not at a request.
 * `before` makes the Lua text in front of a script from its header.
 */
export function loadScripts<Contracts extends Readonly<Record<string, LuaContract>>>(
  folder: URL,
  contracts: Contracts,
  before: (header: LuaHeader) => string = () => "",
): ScriptsOf<Contracts> {
  const load = ([name, { keys, args }]: [string, LuaContract]) => {
    const body = readFileSync(new URL(`${name}.lua`, folder), "utf8");
    const header: LuaHeader = (line) => wordsOf(body, line);
    for (const [line, given] of [
      ["keys", keys],
      ["args", args],
    ] as const) {
      if (header(line).join(" ") !== given.join(" "))
        throw new Error(
          `${name}.lua takes the ${line} "${header(line).join(" ")}", not "${given.join(" ")}"`,
        );
    }
    if (!/^-- returns: \S/m.test(body)) throw new Error(`${name}.lua does not say what it returns`);
    const named = localsOf(keys, "KEYS") + localsOf(args, "ARGV");
    const text = named + before(header) + body;
    const sha1 = createHash("sha1").update(text).digest("hex");
    return [name, { name, text, sha1, keys, args } satisfies LuaScript];
  };
  return Object.fromEntries(Object.entries(contracts).map(load)) as ScriptsOf<Contracts>;
}

function wordsOf(body: string, line: string): string[] {
  const found = new RegExp(`^-- ${line}:(.*)$`, "m").exec(body)?.[1] ?? "";
  return found.split(" ").filter((word) => word !== "");
}

function localsOf(names: readonly string[], from: "KEYS" | "ARGV"): string {
  return names.map((name, at) => `local ${name} = ${from}[${at + 1}]\n`).join("");
}
