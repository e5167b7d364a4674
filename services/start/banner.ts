import type { Demo } from "./demo.ts";

/** Where everything of a running relai is to be found. */
export interface Addresses {
  readonly region: string;
  readonly gateway: string;
  readonly control: string;
  readonly internal: string;
  readonly simulator: string | undefined;
}

/** The line of JSON that `--json` prints when everything is ready. */
export function readyLine(addresses: Addresses, demo: Demo | undefined): string {
  const { region, gateway, control, internal, simulator } = addresses;
  return JSON.stringify({
    ready: true,
    regions: { [region]: { gateway, control, internal } },
    simulator: simulator ?? null,
    demo: demo
      ? { organization: demo.organizationId, key: demo.isNew ? (demo.keyText ?? null) : null }
      : null,
  });
}

/** What a person sees when everything is ready. */
export function banner(
  addresses: Addresses,
  facts: {
    demo: Demo | undefined;
    demoFile: string;
    models: number;
    /** The upstream that serves nothing here, because it processes elsewhere. */
    outside: { url: string; processingArea: string } | undefined;
    firstModel: string | undefined;
    dataDir: string;
    /** Those that were found, and where. */
    servers: readonly (readonly [what: string, where: string])[];
  },
): string {
  const { region, gateway, control, internal, simulator } = addresses;
  const { models, outside } = facts;
  const lines = [
    "relai is ready",
    "",
    `  gateway (${region})      ${gateway}/v1      point any OpenAI client here`,
    `  control API       ${control}`,
    `  internal          ${internal}/metrics`,
    ...(simulator === undefined ? [] : [`  simulator         ${simulator}/openai/v1`]),
    ...facts.servers.map(([what, where]) => `  ${what.padEnd(16)}  ${where}`),
    `  data folder       ${facts.dataDir}`,
    `  models            ${models === 0 && !outside ? "none: set OPENAI_API_KEY and start again" : models}`,
  ];
  if (outside)
    lines.push(
      "",
      `${outside.url} serves nothing here: it processes in ${outside.processingArea}, and a region`,
      `uses only hosts of its own area (this one is ${region}).`,
    );
  if (facts.demo)
    lines.push(
      "",
      ...demoLines(gateway, facts.demo, facts.demoFile, facts.firstModel ?? "sim-flat"),
    );
  else lines.push("", "Next: relai org create <name>, relai credit add 25.00, relai key create");
  return `${lines.join("\n")}\n`;
}

function demoLines(gateway: string, demo: Demo, file: string, model: string): string[] {
  const head = `  demo organization ${demo.organizationId}, with $10.00 at its start`;
  if (demo.keyText === undefined) {
    return [head, "  its key's text is not known any more; make another: relai key create"];
  }
  const lines = [head];
  if (demo.isNew) lines.push(`  demo key          ${demo.keyText}`);
  lines.push(`  its key is in     ${file}`, "", "Try it:", "");
  const key = demo.isNew ? demo.keyText : "$OPENAI_API_KEY";
  if (!demo.isNew) lines.push(`  . ${file}`);
  return [
    ...lines,
    `  curl ${gateway}/v1/chat/completions \\`,
    `    -H "Authorization: Bearer ${key}" -H "Content-Type: application/json" \\`,
    `    -d '{"model":"${model}","messages":[{"role":"user","content":"Hello"}]}'`,
  ];
}
