import { Visitor, parseSync } from "oxc-parser";

/** One file of the repository: its path from the root with `/` between folders, and its whole text. */
export type TextFile = { readonly path: string; readonly text: string };

/** What is allowed by name, each with the reason that a reader would ask for. */
export type Exemptions = {
  /** Files that wire adapters like a main.ts although they have another name: entries of worker threads. */
  readonly wiring: ReadonlyMap<string, string>;
  /** Files that may read the clock, set timers or draw randomness in a folder where others may not. */
  readonly clock: ReadonlyMap<string, string>;
  /** Files of more than `linesMax` lines. */
  readonly long: ReadonlyMap<string, string>;
};

type Import = { readonly specifier: string; readonly typeOnly: boolean; readonly offset: number };

/** A source file with its imports, and its code with comments, strings and patterns blanked out. */
type Source = TextFile & {
  readonly code: string;
  readonly imports: readonly Import[];
  readonly forbidden: readonly { readonly what: string; readonly offset: number }[];
};

export const linesMax = 400;

const isSource = (path: string): boolean => /\.(ts|mjs)$/.test(path);
const isTest = (path: string): boolean => path.startsWith("test/") || path.endsWith(".test.ts");
const folderOf = (path: string): string => path.slice(0, path.indexOf("/"));

function finding(file: TextFile, offset: number, sentence: string): string {
  return `${file.path}:${file.text.slice(0, offset).split("\n").length}: ${sentence}`;
}

/** Parses one source file. Throws where the parser refuses it: a file nobody can read is not tidy. */
export function readSource(file: TextFile): Source {
  const { program, module, comments, errors } = parseSync(file.path, file.text);
  if (errors[0] !== undefined) throw new Error(`${file.path}: ${errors[0].message}`);
  const imports: Import[] = [];
  const forbidden: { what: string; offset: number }[] = [];
  const blanks: { start: number; end: number }[] = comments.map(({ start, end }) => ({
    start,
    end,
  }));

  for (const { moduleRequest, entries, start } of module.staticImports) {
    const typeOnly = entries.length > 0 && entries.every((entry) => entry.isType);
    imports.push({ specifier: moduleRequest.value, typeOnly, offset: start });
  }
  for (const { entries, start } of module.staticExports) {
    const from = entries.find((entry) => entry.moduleRequest !== null)?.moduleRequest;
    if (from === undefined || from === null) continue;
    imports.push({
      specifier: from.value,
      typeOnly: entries.every((entry) => entry.isType),
      offset: start,
    });
  }
  for (const { moduleRequest, start } of module.dynamicImports) {
    const written = file.text.slice(moduleRequest.start, moduleRequest.end);
    const specifier = /^["'`]([^"'`$]*)["'`]$/.exec(written)?.[1];
    if (specifier !== undefined) imports.push({ specifier, typeOnly: false, offset: start });
  }

  const forbid = (what: string) => (node: { start: number }) => {
    forbidden.push({ what, offset: node.start });
  };
  const blank = (node: { start: number; end: number }): void => {
    blanks.push({ start: node.start, end: node.end });
  };
  const checkClass = (node: { start: number; superClass: unknown }): void => {
    const parent = node.superClass as { type: string; name?: string } | null;
    if (parent !== null && parent.name !== "Error")
      forbidden.push({ what: "a base class", offset: node.start });
  };
  new Visitor({
    TSEnumDeclaration: forbid("an enum"),
    TSModuleDeclaration: forbid("a namespace"),
    TSAnyKeyword: forbid("the type any"),
    TSParameterProperty: forbid("a parameter property"),
    Decorator: forbid("a decorator"),
    ClassDeclaration: checkClass,
    ClassExpression: checkClass,
    TemplateElement: blank,
    Literal: (node) => {
      if (typeof node.value === "string" || "regex" in node) blank(node);
    },
    // `type T = import("…").X` brings in a file as well.
    TSImportType: (node) => {
      imports.push({ specifier: node.source.value, typeOnly: true, offset: node.start });
    },
  }).visit(program);

  const code = file.text.split("");
  for (const { start, end } of blanks) {
    for (let at = start; at < end; at += 1) if (code[at] !== "\n") code[at] = " ";
  }
  return { ...file, code: code.join(""), imports, forbidden };
}

const sourcesOf = (files: readonly TextFile[]): Source[] =>
  files.filter((file) => isSource(file.path)).map(readSource);

/** What the code of each folder may import; undefined means that the import is allowed. */
function refusedImport(
  path: string,
  { specifier, typeOnly }: Import,
  wiring: boolean,
): string | undefined {
  if (specifier.startsWith("../")) return "names another folder with '../' instead of '#folder/…'";
  if (isTest(path)) return undefined;
  const folder = folderOf(path);
  if (specifier.startsWith("#test/")) return "imports test";
  if (folder === "bin" && specifier === "#services/cli/main.ts") return undefined;
  if (/^(#services\/.*|\.)\/main\.ts$/.test(specifier) && !wiring)
    return "imports a main.ts and is none";
  if (specifier.startsWith("./")) return undefined;

  if (folder === "domain") {
    if (specifier.startsWith("#domain/") || specifier === "zod") return undefined;
    if (path === "domain/hash.ts" && /^node:(crypto|zlib)$/.test(specifier)) return undefined;
    return `is in domain and imports ${specifier}`;
  }
  if (folder === "projections") {
    if (/^#(domain|projections)\//.test(specifier)) return undefined;
    return `is in projections and imports ${specifier}`;
  }
  if (folder === "services") {
    if (specifier.startsWith("#infra/") && !wiring)
      return `imports the adapter ${specifier} and is no main.ts`;
    if (specifier === "node:sqlite") return "uses SQLite, which only an adapter does";
    return undefined;
  }
  if (folder === "infra") {
    if (specifier.startsWith("#projections/") && !typeOnly && !wiring)
      return `imports more than types from ${specifier}`;
    if (
      specifier.startsWith("#services/") &&
      !/^#services\/(ports|errors)\.ts$/.test(specifier) &&
      !wiring
    ) {
      return `is an adapter and imports ${specifier}`;
    }
    return undefined;
  }
  return undefined;
}

/** Data flows one way: domain, projections, services, infra; only main.ts files, the start and the command line wire adapters. */
export function importLayers(files: readonly TextFile[], exempt: Exemptions): string[] {
  return sourcesOf(files).flatMap((file) => {
    const wiring =
      /(^|\/)main\.ts$|^services\/(cli|start)\//.test(file.path) || exempt.wiring.has(file.path);
    return file.imports.flatMap((one) => {
      const refused = refusedImport(file.path, one, wiring);
      return refused === undefined ? [] : [finding(file, one.offset, refused)];
    });
  });
}

/** Libraries that talk to the world outside: each is known to one file, so that it can be exchanged. */
const clients = [
  "undici",
  "prom-client",
  "pino",
  "ioredis",
  "kafkajs",
  "@eventstore/db-client",
  "@opentelemetry",
];

/** Each client library has one file; fastify stays in the services that serve HTTP. */
export function oneFilePerClient(files: readonly TextFile[]): string[] {
  const sources = sourcesOf(files).filter((file) => !isTest(file.path));
  const importersOf = (library: string): { file: Source; offset: number }[] =>
    sources.flatMap((file) => {
      const hit = file.imports.find(
        ({ specifier }) => specifier === library || specifier.startsWith(`${library}/`),
      );
      return hit === undefined ? [] : [{ file, offset: hit.offset }];
    });
  const crowded = clients.flatMap((library) => {
    const importers = importersOf(library);
    if (importers.length < 2) return [];
    return importers.map(({ file, offset }) =>
      finding(file, offset, `${library} is imported by more than one file`),
    );
  });
  const astray = importersOf("fastify")
    .filter(({ file }) => !/^services\/[^/]+\//.test(file.path))
    .map(({ file, offset }) =>
      finding(file, offset, "fastify belongs to the services that serve HTTP"),
    );
  return [...crowded, ...astray];
}

const clockPatterns: readonly (readonly [string, RegExp])[] = [
  ["reads the time", /\bDate\s*\.\s*now\b|\bTemporal\s*\.\s*Now\b/g],
  ["reads the time", /\bnew\s+Date\b(?!\s*\(\s*[^)\s])|(?<!\bnew\s+)(?<![.\w$])Date\s*\(/g],
  ["reads the time", /(?<![.\w$])performance\s*\.|\bprocess\s*\.\s*(hrtime|uptime)\b/g],
  ["sets a timer", /(?<![.\w$])(setTimeout|setInterval|setImmediate)\s*[(;,)]/g],
  [
    "sets a timer",
    /\bglobalThis\s*\.\s*set(Timeout|Interval|Immediate)\b|\bAbortSignal\s*\.\s*timeout\b/g,
  ],
  ["draws randomness", /\bMath\s*\.\s*random\b/g],
  [
    "draws randomness",
    /\b(randomBytes|randomUUID|randomUUIDv7|randomInt|randomFill|randomFillSync|getRandomValues)\b/g,
  ],
];

/** Time, timers and randomness come through the ports Clock and Random, or no simulation can own them. */
export function clockAndRandomness(files: readonly TextFile[], exempt: Exemptions): string[] {
  const held = sourcesOf(files).filter(
    ({ path }) =>
      /^(domain|projections|services)\//.test(path) && !isTest(path) && !exempt.clock.has(path),
  );
  return held.flatMap((file) => [
    ...clockPatterns.flatMap(([what, pattern]) =>
      [...file.code.matchAll(pattern)].map((hit) =>
        finding(file, hit.index, `${what} without its port`),
      ),
    ),
    ...file.imports
      .filter(({ specifier }) => /^(node:)?(timers(\/promises)?|perf_hooks)$/.test(specifier))
      .map(({ specifier, offset }) =>
        finding(file, offset, `imports ${specifier} without its port`),
      ),
  ]);
}

/** Syntax that Node does not erase, and types that switch the checker off. */
export function forbiddenSyntax(files: readonly TextFile[]): string[] {
  return sourcesOf(files).flatMap((file) =>
    file.forbidden.map(({ what, offset }) => finding(file, offset, `has ${what}`)),
  );
}

const wordPatterns: readonly (readonly [string, RegExp])[] = [
  ["leaves work for later", /\b(TO[D]O|FIX[M]E)\b/g],
  ["names a path of one machine", /(?<![\w.*$}])\/(work|root|home)\/\w/g],
  ["names pages outside the repository", /\.\.\/shared\b/g],
  [
    "names the host of a package registry",
    /https?:\/\/[^\s"']*\b(registry|npmjs|artifactory|verdaccio)\b/g,
  ],
  [
    "switches a lint rule off without a reason",
    /(?:ox|es)lint-disable(?:-next-line|-line)?(?![^\n]* -- \S)/g,
  ],
];

/** Words that say that something is unfinished or belongs to the machine it was written on. */
export function wordsOutOfPlace(files: readonly TextFile[]): string[] {
  return files.flatMap((file) =>
    wordPatterns.flatMap(([what, pattern]) =>
      [...file.text.matchAll(pattern)].map((hit) => finding(file, hit.index, what)),
    ),
  );
}

/** A long file needs a written reason, and a reason needs a long file. */
export function fileSizes(files: readonly TextFile[], exempt: Exemptions): string[] {
  const long = files.filter(
    ({ path, text }) => isSource(path) && text.trimEnd().split("\n").length > linesMax,
  );
  const paths = new Set(long.map(({ path }) => path));
  return [
    ...long
      .filter(({ path }) => !exempt.long.has(path))
      .map(({ path }) => `${path}: has more than ${linesMax} lines`),
    ...[...exempt.long.keys()]
      .filter((path) => !paths.has(path))
      .map((path) => `${path}: is listed as long and is not`),
  ];
}

/** An exemption for a file that is gone would wait for the next one of that name. */
export function staleExemptions(files: readonly TextFile[], exempt: Exemptions): string[] {
  const paths = new Set(files.map(({ path }) => path));
  return [...exempt.wiring.keys(), ...exempt.clock.keys()]
    .filter((path) => !paths.has(path))
    .map((path) => `${path}: is exempt and does not exist`);
}
