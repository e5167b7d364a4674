import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { beforeAll, describe, expect, test, type TestContext } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { z } from "zod";
import { describeConfig, isThisMachine, readConfig } from "#infra/config.ts";
import { PROCESSES } from "#services/start/processes.ts";

/** The Helm chart of infra/deploy: what it says is held to the code, and what it makes to what the processes need. */

const run = promisify(execFile);
const chart = fileURLToPath(new URL("../../infra/deploy/chart/", import.meta.url));
const textOf = (path: string) => readFileSync(new URL(path, `file://${chart}`), "utf8");
const defaults = readConfig({ env: {} });
const about = z
  .object({ appVersion: z.string(), kubeVersion: z.string() })
  .parse(parse(textOf("Chart.yaml")));

/** What the chart sets itself, what it takes from a Secret, and what no single process reads. */
const NOT_VALUES = [
  "RELAI_DATA_DIR",
  "RELAI_BIND",
  "RELAI_CONTROL_BIND",
  "RELAI_INTERNAL_BIND",
  "RELAI_GATEWAY_PORT",
  "RELAI_CONTROL_PORT",
  "RELAI_INTERNAL_PORT",
  "RELAI_SIMULATOR_PORT",
  "RELAI_EVENTSTORE_URL",
  "RELAI_EVENTSTORE_HOME",
  "RELAI_REDIS_URL",
  "RELAI_ADMIN_TOKEN",
  "OPENAI_API_KEY",
  "RELAI_DEMO",
  "RELAI_CONTROL_URL",
];

test("values.schema.json allows every setting that is not the chart's own, and no other name", () => {
  const names = z.object({ propertyNames: z.object({ enum: z.array(z.string()) }) });
  const { properties } = z
    .object({ properties: z.object({ settings: names }) })
    .parse(JSON.parse(textOf("values.schema.json")));
  const meant = describeConfig(defaults).map(({ name }) => name);
  expect(NOT_VALUES.filter((name) => !meant.includes(name))).toEqual([]);
  expect(properties.settings.propertyNames.enum).toEqual(
    meant.filter((name) => !NOT_VALUES.includes(name)),
  );
});

test("values.yaml says the defaults of the settings that it shows, and the chart the version of the product", () => {
  const { settings } = z
    .object({ settings: z.record(z.string(), z.string()) })
    .parse(parse(textOf("values.yaml")));
  const meant = new Map(describeConfig(defaults).map(({ name, value }) => [name, value]));
  for (const [name, value] of Object.entries(settings))
    expect(value, `of ${name}`).toBe(meant.get(name));
  const manifest = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  expect(about.appVersion).toBe((JSON.parse(manifest) as { version: string }).version);
});

const LABELS = z.record(z.string(), z.string());
const SECRET_KEY = z.object({ secretKeyRef: z.object({ name: z.string(), key: z.string() }) });
const PROBE = z.object({ httpGet: z.object({ path: z.string(), port: z.string() }) });
const CONTAINER = z.object({
  image: z.string(),
  args: z.array(z.string()),
  env: z.array(
    z.object({ name: z.string(), value: z.string().optional(), valueFrom: SECRET_KEY.optional() }),
  ),
  ports: z.array(z.object({ name: z.string(), containerPort: z.number() })),
  livenessProbe: PROBE,
  readinessProbe: PROBE,
  lifecycle: z
    .object({ preStop: z.object({ sleep: z.object({ seconds: z.number() }) }) })
    .optional(),
  securityContext: z.unknown(),
  volumeMounts: z.array(z.object({ name: z.string(), mountPath: z.string() })),
});
const POD = z.object({
  enableServiceLinks: z.boolean(),
  terminationGracePeriodSeconds: z.number(),
  securityContext: z.looseObject({ runAsNonRoot: z.boolean(), runAsUser: z.number() }),
  containers: z.tuple([CONTAINER]),
  volumes: z.array(z.looseObject({ name: z.string() })),
});
const OBJECT = z.object({ kind: z.string(), metadata: z.object({ name: z.string() }) });
const DEPLOYMENT = z.object({
  spec: z.object({
    selector: z.object({ matchLabels: LABELS }),
    template: z.object({ metadata: z.object({ labels: LABELS }), spec: POD }),
  }),
});

/** What a Secret would give. */
const GIVEN: NodeJS.Dict<string> = {
  RELAI_EVENTSTORE_URL: "esdb://admin:changeit@events:2113",
  RELAI_REDIS_URL: "redis://redis:6379",
  RELAI_ADMIN_TOKEN: "chart-admin-token-0123456789",
  OPENAI_API_KEY: "sk-chart",
};

describe("with helm", () => {
  const helm = process.env["HELM"] || "helm";
  // The oldest Kubernetes that the chart says it is for.
  const version = /\d+\.\d+/.exec(about.kubeVersion)?.[0] ?? "";
  let missing: string | undefined;
  beforeAll(async () => {
    await run(helm, ["version"]).catch((error: unknown) => {
      // One that is named and does not run is a mistake.
      if (process.env["HELM"]) throw error;
      missing = "no helm on the PATH, and none in HELM";
    });
  });
  const withHelm = (name: string, does: () => Promise<void>) =>
    test(name, (context: TestContext) => (missing === undefined ? does() : context.skip(missing)));

  async function template(...values: string[]) {
    const set = values.flatMap((value) => ["--set-string", value]);
    const args = ["template", "one", chart, "--kube-version", version, ...set];
    const { stdout } = await run(helm, args);
    const objects = parseAllDocuments(stdout).map((document) => document.toJS() as unknown);
    const find = (kind: string, name: string) =>
      objects.find((object) => {
        const { data } = OBJECT.safeParse(object);
        return data?.kind === kind && data.metadata.name === name;
      });
    const { data: settings } = z.object({ data: LABELS }).parse(find("ConfigMap", "one-settings"));
    const podOf = (process: string) =>
      DEPLOYMENT.parse(find("Deployment", `one-${process}`)).spec.template;
    const configOf = (process: string) => {
      const own = podOf(process).spec.containers[0].env.filter(({ name }) => name !== "TMPDIR");
      const env: NodeJS.Dict<string> = { ...settings };
      for (const { name, value, valueFrom } of own)
        env[name] = value ?? GIVEN[valueFrom?.secretKeyRef.key ?? ""];
      return readConfig({ env });
    };
    return { count: objects.length, find, podOf, configOf };
  }

  withHelm("it has nothing that helm would blame", async () => {
    await expect(run(helm, ["lint", "--strict", chart])).resolves.toBeDefined();
  });

  withHelm("each process has settings that it starts with, and no secret of another", async () => {
    const { count, podOf, configOf } = await template();
    expect(count).toBe(3 + 2 + 3 + 1);
    for (const process of PROCESSES) {
      const [container] = podOf(process).spec.containers;
      expect(container.args).toEqual([process]);
      expect(container.image).toBe(`relai:${about.appVersion}`);
      const config = configOf(process);
      expect(config.eventstoreUrl).toBe(GIVEN["RELAI_EVENTSTORE_URL"]);
      expect(config.redisUrl).toEqual([GIVEN["RELAI_REDIS_URL"]]);
      expect(config.adminToken !== undefined, `of ${process}`).toBe(process === "control");
      expect(config.openaiApiKey !== undefined, `of ${process}`).toBe(process === "gateway");
      // What a Service named one-gateway beside it would add is refused as no setting.
      expect(podOf(process).spec.enableServiceLinks).toBe(false);
    }
  });

  withHelm(
    "a kubelet and the Services reach the listeners, at the ports of the settings",
    async () => {
      const { find, podOf, configOf } = await template();
      const { gatewayPort, controlPort, internalPort } = defaults;
      const publicPorts: Record<string, number> = { gateway: gatewayPort, control: controlPort };
      for (const process of PROCESSES) {
        const config = configOf(process);
        const [container] = podOf(process).spec.containers;
        const ports = new Map(
          container.ports.map(({ name, containerPort }) => [name, containerPort]),
        );
        expect(isThisMachine(config.internalBind)).toBe(false);
        expect(container.livenessProbe.httpGet).toEqual({ path: "/healthz", port: "internal" });
        expect(container.readinessProbe.httpGet).toEqual({ path: "/readyz", port: "internal" });
        expect(ports.get("internal")).toBe(internalPort);
        expect(ports.get("http")).toBe(publicPorts[process]);
        const bind = { gateway: config.bind, control: config.controlBind, ledger: "0.0.0.0" }[
          process
        ];
        expect(isThisMachine(bind)).toBe(false);
        if (publicPorts[process] === undefined) continue;
        expect(find("Service", `one-${process}`)).toMatchObject({
          spec: {
            selector: podOf(process).metadata.labels,
            ports: [{ port: publicPorts[process], targetPort: "http" }],
          },
        });
      }
    },
  );

  withHelm(
    "a stop has the drain, the ten seconds beyond it, and the time before the signal",
    async () => {
      for (const drainMs of [30_000, 120_500]) {
        const { podOf, configOf } = await template(`settings.RELAI_DRAIN_MS=${drainMs}`);
        for (const process of PROCESSES) {
          expect(configOf(process).drainMs).toBe(drainMs);
          const { terminationGracePeriodSeconds, containers } = podOf(process).spec;
          const beforeMs = (containers[0].lifecycle?.preStop.sleep.seconds ?? 0) * 1000;
          expect(beforeMs > 0, `of ${process}`).toBe(process !== "ledger");
          expect(terminationGracePeriodSeconds * 1000).toBeGreaterThan(beforeMs + drainMs + 10_000);
        }
      }
    },
  );

  withHelm(
    "no pod is root, writes beyond its data folder, or goes at the same time as another one for a node's sake",
    async () => {
      const { find, podOf, configOf } = await template("eventsCa=authority");
      for (const process of PROCESSES) {
        const { metadata, spec } = podOf(process);
        const [container] = spec.containers;
        expect(spec.securityContext).toMatchObject({ runAsNonRoot: true, runAsUser: 1000 });
        expect(container.securityContext).toEqual({
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ["ALL"] },
        });
        expect(container.volumeMounts).toContainEqual({
          name: "data",
          mountPath: configOf(process).dataDir,
        });
        expect(spec.volumes).toContainEqual({
          name: "events-ca",
          configMap: { name: "authority" },
        });
        expect(find("PodDisruptionBudget", `one-${process}`)).toMatchObject({
          spec: { maxUnavailable: 1, selector: { matchLabels: metadata.labels } },
        });
      }
    },
  );

  withHelm("a version can begin with the ledgers, and a slip of the pen is refused", async () => {
    const { podOf } = await template("ledger.tag=0.2.0");
    const images = PROCESSES.map((process) => podOf(process).spec.containers[0].image);
    const old = `relai:${about.appVersion}`;
    expect(images).toEqual([old, "relai:0.2.0", old]);
    await expect(template("settings.RELAI_DRIAN_MS=1")).rejects.toThrow("RELAI_DRIAN_MS");
    await expect(template("settings.RELAI_ADMIN_TOKEN=x")).rejects.toThrow("RELAI_ADMIN_TOKEN");
    await expect(template("ledgr.tag=x")).rejects.toThrow("ledgr");
  });
});
