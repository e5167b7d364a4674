/** A JSON Schema or a part of one, as far as it is looked at. */
type Schema = Readonly<Record<string, unknown>>;

/** One walk: the whole schema for its references, and how many more values it may make. */
interface Walk {
  readonly root: Schema;
  valuesLeft: number;
}

const DEPTH_MAX = 16;
const VALUES_MAX = 2_000;
const ITEMS_MAX = 16;
const CHARACTERS_MAX = 256;

/**
 * The plainest value that a JSON Schema allows, for structured output and tool arguments. Covers what OpenAI's strict
 * mode covers (objects, arrays, strings, numbers, enums, `anyOf`, `$ref`, null unions) without patterns and formats;
 * where a schema recurses it takes the way out that the schema offers, and gives null past a depth of 16
 * and past 2,000 values, so that no schema makes an answer without end.
 */
export function exampleOf(schema: unknown): unknown {
  return example(schema, { root: isSchema(schema) ? schema : {}, valuesLeft: VALUES_MAX }, 0);
}

function example(schema: unknown, walk: Walk, depth: number): unknown {
  walk.valuesLeft -= 1;
  if (!isSchema(schema) || depth > DEPTH_MAX || walk.valuesLeft < 0) return null;
  if ("const" in schema) return schema["const"];
  if (Array.isArray(schema["enum"])) return schema["enum"][0] as unknown;
  const reference = schema["$ref"];
  if (typeof reference === "string")
    return example(followReference(reference, walk.root), walk, depth + 1);
  for (const name of ["anyOf", "oneOf", "allOf"]) {
    const choices = schema[name];
    if (Array.isArray(choices)) return example(plainestOf(choices, depth), walk, depth + 1);
  }
  switch (typeOf(schema, depth)) {
    case "object":
      return exampleObject(schema, walk, depth);
    case "array": {
      const count = Math.min(numberOf(schema["minItems"]) ?? (depth > 4 ? 0 : 1), ITEMS_MAX);
      return Array.from({ length: count }, () => example(schema["items"], walk, depth + 1));
    }
    case "string":
      return "simulated".padEnd(Math.min(numberOf(schema["minLength"]) ?? 0, CHARACTERS_MAX), ".");
    case "integer":
    case "number":
      return exampleNumber(schema);
    case "boolean":
      return true;
    default:
      return null;
  }
}

function exampleObject(schema: Schema, walk: Walk, depth: number): Record<string, unknown> {
  const properties = schema["properties"];
  if (!isSchema(properties)) return {};
  return Object.fromEntries(
    Object.entries(properties).map(([name, part]) => [name, example(part, walk, depth + 1)]),
  );
}

function exampleNumber(schema: Schema): number {
  const above = numberOf(schema["exclusiveMinimum"]);
  if (above !== undefined) return above + 1;
  return numberOf(schema["minimum"]) ?? Math.min(1, numberOf(schema["maximum"]) ?? 1);
}

/** A union of types is its first; deep inside it is null where that is allowed. */
function typeOf(schema: Schema, depth: number): unknown {
  const type = schema["type"];
  if (Array.isArray(type))
    return depth > 4 && type.includes("null") ? "null" : (type[0] as unknown);
  return type ?? ("properties" in schema ? "object" : undefined);
}

function plainestOf(choices: readonly unknown[], depth: number): unknown {
  const nothing = choices.find((choice) => isSchema(choice) && choice["type"] === "null");
  return depth > 4 && nothing !== undefined ? nothing : choices[0];
}

function followReference(reference: string, root: Schema): unknown {
  if (!reference.startsWith("#")) return undefined;
  let at: unknown = root;
  for (const part of reference.split("/").slice(1)) {
    if (!isSchema(at)) return undefined;
    at = at[part.replaceAll("~1", "/").replaceAll("~0", "~")];
  }
  return at;
}

function numberOf(value: unknown): number | undefined {
  return typeof value === "number" ? value : undefined;
}

function isSchema(value: unknown): value is Schema {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
