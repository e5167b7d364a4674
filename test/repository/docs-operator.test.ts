import { parser as promql } from "@prometheus-io/lezer-promql";
import type { FastifyInstance } from "fastify";
import { afterEach, describe, expect, test } from "vitest";
import { parse as parseYaml } from "yaml";
import { z } from "zod";
import { EVENT_SCHEMAS } from "#domain/events/schemas.ts";
import { systemClock } from "#infra/clock.ts";
import { createLog } from "#infra/telemetry/log.ts";
import { ALARMS, createMetrics } from "#infra/telemetry/metrics.ts";
import { createTelemetry } from "#infra/telemetry/telemetry.ts";
import { ERRORS } from "#services/errors.ts";
import { createGatewayServer } from "#services/gateway/http/server.ts";
import { addProbes } from "#services/internal/operator-server.ts";
import { createReadiness } from "#services/internal/readiness.ts";
import { createInternalServer } from "#services/internal/server.ts";
import { bearer, controlWorld } from "#test/worlds/control-world.ts";
import { filesIn, inCode, namesInCode, tableWith, textOf } from "./documents.ts";
import { gatewayWorld } from "#test/worlds/gateway-world.ts";

/** What an operator is told is held to what the code does. */

const RULES = z.strictObject({
  groups: z.array(
    z.strictObject({
      name: z.string(),
      rules: z.array(
        z.strictObject({
          alert: z.string(),
          expr: z.string(),
          for: z
            .string()
            .regex(/^\d+m$/)
            .optional(),
          labels: z.strictObject({ severity: z.literal("page") }).optional(),
          annotations: z.strictObject({ summary: z.string() }),
        }),
      ),
    }),
  ),
});

/** The metrics that an expression asks for, each with the labels that it wants of them. Throws where it is no PromQL. */
function selectorsIn(expr: string) {
  const found: { metric: string; matchers: { label: string; value: string }[] }[] = [];
  promql.parse(expr).iterate({
    enter(node) {
      const { name, type } = node;
      if (type.isError) throw new Error(`no PromQL at ${node.from}: ${expr}`);
      const text = expr.slice(node.from, node.to);
      if (name === "VectorSelector")
        found.push({ metric: /^\w+/.exec(text)?.[0] ?? text, matchers: [] });
      const [, label, value] = /^(\w+)\W+?"(.*)"$/.exec(text) ?? [];
      if (name === "UnquotedLabelMatcher" && label !== undefined && value !== undefined)
        found.at(-1)?.matchers.push({ label, value });
    },
  });
  return found;
}

/** The metric that a histogram's series are of. */
const baseOf = (metric: string) => metric.replace(/_(bucket|sum|count)$/, "");

/** The library keeps them, and does not say so. */
const labelsOf = (metric: object) =>
  (metric as { readonly labelNames: readonly string[] }).labelNames;

describe("docs/operations.md", () => {
  const text = textOf("docs/operations.md");
  const sources = ["services", "infra", "projections"]
    .flatMap((folder) => filesIn(folder, (path) => /(?<!\.test)\.ts$/.test(path)))
    .map(textOf);

  const found = sources.flatMap((source) =>
    [...source.matchAll(/\b(?:alarm|onAlarm|onFault)\(\s*"(\w+)"/g)].map(([, name = ""]) => name),
  );
  const raised = [...new Set(found)].toSorted();

  test("has every alarm, and no other", () => {
    const told = namesInCode(tableWith(text, ["what", "means", "do"]));
    expect(told.toSorted()).toEqual(raised);
  });

  test("the list of alarms in the code is that of those that are raised", () => {
    expect([...ALARMS].toSorted()).toEqual(raised);
  });
});

describe("the routes in docs/operations.md", () => {
  const text = textOf("docs/operations.md");
  const routesIn = (cell: string) =>
    [...cell.matchAll(/`((?:GET|POST|DELETE) \/[^`]*)`/g)].map(([, route = ""]) => route);
  const ports = tableWith(text, ["port", "setting", "of", "serves"]);
  const toldOf = (setting: string) =>
    routesIn(ports.find(([, name = ""]) => inCode(name) === setting)?.at(-1) ?? "");
  const readiness = createReadiness({ clock: systemClock(), checks: {}, isStopping: () => false });
  const closing: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    for (const close of closing.splice(0)) await close();
  });

  test("of the gateway are those that it serves", async () => {
    const { gateway, keys } = await gatewayWorld();
    const server = createGatewayServer(gateway);
    closing.push(() => server.close());
    addProbes(server, readiness);
    const served = await routesOf(server, { authorization: `Bearer ${keys[0]}` });
    expect(served).toEqual(toldOf("RELAI_GATEWAY_PORT").toSorted());
  });

  test("of the control API are those that it serves", async () => {
    const world = await controlWorld();
    closing.push(() => world.close());
    const listed = tableWith(text, ["method, path", "does"]).flatMap(([cell = ""]) =>
      routesIn(cell),
    );
    const told = [...listed, ...toldOf("RELAI_CONTROL_PORT")];
    expect(await routesOf(world.server(), bearer)).toEqual(told.toSorted());
  });

  test("of the internal listener are those that it serves", async () => {
    const telemetry = createTelemetry({ log: createLog({ level: "silent" }), models: new Set() });
    const server = createInternalServer({ telemetry, readiness, settings: [] });
    expect(await routesOf(server, {})).toEqual(toldOf("RELAI_INTERNAL_PORT").toSorted());
  });
});

/** Every method and path that a server takes for more than to say that it takes others. */
async function routesOf(
  server: FastifyInstance,
  headers: Readonly<Record<string, string>>,
): Promise<string[]> {
  await server.ready();
  const above: string[] = [];
  const routes: string[] = [];
  // A path stands below the one that it goes on from, each level four characters further in.
  for (const line of server.printRoutes({ commonPrefix: false }).split("\n")) {
    const [, indent = "", end = "", methods = ""] =
      /^([│ ]*)[├└]── (\S+) \((.*)\)$/.exec(line) ?? [];
    if (end === "") continue;
    const level = indent.length / 4;
    const path = `${level === 0 ? "" : above[level - 1]}${end}`;
    above[level] = path;
    for (const method of ["GET", "POST", "DELETE"] as const) {
      if (!methods.includes(method)) continue;
      const { statusCode } = await server.inject({ method, url: path, headers });
      if (statusCode !== 405) routes.push(`${method} ${path.replaceAll(/:(\w+)/g, "{$1}")}`);
    }
  }
  return routes.toSorted();
}

describe("docs/metrics.md", () => {
  const text = textOf("docs/metrics.md");
  const declared = createMetrics()
    .declared()
    .map((metric) => ({ ...metric, labelNames: labelsOf(metric) }));
  const rows = tableWith(text, ["name", "kind", "labels", "counts", "alarms"]);
  const rules = RULES.parse(parseYaml(/^```yaml\n(.*?)^```$/ms.exec(text)?.[1] ?? ""));
  const alerts = rules.groups.flatMap((group) => group.rules);

  test("has every metric with its labels, and no other", () => {
    const told = rows.map(([name = "", kind, labels]) => [inCode(name), kind, labels]);
    const own = declared.filter(({ name }) => name.startsWith("relai_"));
    expect(told).toEqual(own.map((one) => [one.name, one.type, one.labelNames.join(", ")]));
  });

  test("names each alarm at every metric that it asks for, and none besides", () => {
    const told = rows.flatMap(([name = "", , , , cell = ""]) =>
      [...cell.matchAll(/`(\w+)`/g)].map(([, alert]) => `${inCode(name)}: ${alert}`),
    );
    const meant = alerts.flatMap(({ alert, expr }) =>
      selectorsIn(expr).map(({ metric }) => `${baseOf(metric)}: ${alert}`),
    );
    expect(told.toSorted()).toEqual([...new Set(meant)].toSorted());
  });

  test.for(alerts)("the expression of $alert asks for what there is", ({ expr }) => {
    const values: Record<string, readonly string[]> = {
      what: ALARMS,
      type: Object.keys(EVENT_SCHEMAS),
      code: [...Object.keys(ERRORS), "ok", "client_gone"],
    };
    const unknown = selectorsIn(expr).flatMap(({ metric, matchers }) => {
      const found = declared.find(({ name }) => name === baseOf(metric));
      if (!found) return [metric];
      return matchers.flatMap(({ label, value }) => {
        if (!found.labelNames.includes(label)) return [`${metric}{${label}}`];
        const known = values[label];
        return value.split("|").filter((each) => known?.includes(each) === false);
      });
    });
    expect(unknown).toEqual([]);
  });

  test("an expression that is none, and one that asks for what is not there, are seen", () => {
    expect(() => selectorsIn("sum(rate(relai_requests_total[5m])")).toThrow("no PromQL");
    expect(selectorsIn('rate(a_bucket{b=~"c|d"}[1m]) > on (e) f')).toEqual([
      { metric: "a_bucket", matchers: [{ label: "b", value: "c|d" }] },
      { metric: "f", matchers: [] },
    ]);
  });

  test("pages for every alarm that is about money", () => {
    const table = tableWith(textOf("docs/operations.md"), ["what", "means", "do"]);
    const ofMoney = table.flatMap(([what = "", means = ""]) =>
      means.startsWith("*money*") ? [inCode(what)] : [],
    );
    const { expr = "" } = alerts.find(({ alert }) => alert === "RelaiMoneyAlarm") ?? {};
    const [paged] = selectorsIn(expr);
    expect(paged?.matchers.map(({ value }) => value.split("|"))).toEqual([ofMoney]);
  });
});
