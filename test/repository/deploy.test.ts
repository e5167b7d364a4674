import { execFile } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseEnv, promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { z } from "zod";
import { describeConfig, isThisMachine, readConfig } from "#infra/config.ts";
import { PROCESSES } from "#services/start/processes.ts";

/** What infra/deploy says of settings, ports, times and versions is held to the code; deploy-chart.test.ts has the chart. */

const run = promisify(execFile);
const root = fileURLToPath(new URL("../../", import.meta.url));
const folder = join(root, "infra/deploy");
const textOf = (path: string) => readFileSync(join(folder, path), "utf8");
const defaults = readConfig({ env: {} });
const settings = describeConfig(defaults).map(({ name }) => name);
const { optionalDependencies, imports } = z
  .object({
    optionalDependencies: z.record(z.string(), z.string()),
    imports: z.record(z.string(), z.string()),
  })
  .parse(JSON.parse(readFileSync(join(root, "package.json"), "utf8")));

const tracked = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter(
  (path) => !/^(certs|\.env)/.test(path) && statSync(join(folder, path)).isFile(),
);

test.for(tracked)("infra/deploy/%s names only variables that are settings", (path) => {
  const named = textOf(path).match(/\b(RELAI|OPENAI)_[A-Z_]*[A-Z]\b/g) ?? [];
  expect(named.filter((name) => !settings.includes(name))).toEqual([]);
});

describe("Dockerfile", () => {
  const lines = textOf("Dockerfile").split("\n");
  const after = (word: string) =>
    lines.filter((line) => line.startsWith(`${word} `)).map((line) => line.slice(word.length + 1));

  test("has the Node that the packages bring", () => {
    const [version] = new Set(Object.values(optionalDependencies));
    const images = after("FROM").map((line) => line.split(" ")[0]);
    expect(images).toEqual([`node:${version}-slim`, `node:${version}-slim`]);
  });

  test("exposes the ports that are the settings' defaults", () => {
    const { gatewayPort, internalPort, controlPort } = defaults;
    expect(after("EXPOSE")).toEqual([`${gatewayPort} ${internalPort} ${controlPort}`]);
  });

  test("is healthy exactly where the internal listener says that the process lives", async () => {
    const [, shown = ""] = /^HEALTHCHECK [^[]+CMD (\[.*\])$/m.exec(textOf("Dockerfile")) ?? [];
    const [, ...args] = z.array(z.string()).parse(JSON.parse(shown));
    expect(args.join(" ")).toContain(`|| ${defaults.internalPort}}`);
    const asked: (string | undefined)[] = [];
    const server = createServer((request, response) => {
      asked.push(request.url);
      response.writeHead(asked.length === 1 ? 200 : 503).end();
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const env = { RELAI_INTERNAL_PORT: String((server.address() as AddressInfo).port) };
    const exitCode = () =>
      run(process.execPath, args, { env }).then(
        () => 0,
        ({ code }: { code: unknown }) => code,
      );
    expect([await exitCode(), await exitCode()]).toEqual([0, 1]);
    server.close();
    await once(server, "close");
    expect(await exitCode()).toBe(1);
    expect(asked).toEqual(["/healthz", "/healthz"]);
  });

  test("is given the folders of the product, and no secret that lies in this one", () => {
    const [first, ...rules] = textOf("Dockerfile.dockerignore")
      .split("\n")
      .filter((line) => line !== "" && !line.startsWith("#"));
    const folders = Object.values(imports).map((path) => path.split("/")[1] ?? "");
    expect(first).toBe("*");
    for (const needed of ["bin", ...folders.filter((name) => name !== "test")])
      expect(rules).toContain(`!${needed}`);
    // The last rule that matches decides.
    expect(rules.indexOf("infra/deploy")).toBeGreaterThan(rules.indexOf("!infra"));
    expect(rules.filter((rule) => /^!(test|infra\/)/.test(rule))).toEqual([]);
  });
});

const SERVICE = z.object({
  image: z.string(),
  command: z.array(z.string()).optional(),
  environment: z.record(z.string(), z.string()).default({}),
  ports: z.array(z.string()).default([]),
  volumes: z.array(z.string()).default([]),
  network_mode: z.string().optional(),
  networks: z.array(z.string()).optional(),
  stop_grace_period: z.string().optional(),
});

describe("compose.yaml", () => {
  const { services, networks } = z
    .object({
      services: z.record(z.string(), SERVICE),
      networks: z.record(z.string(), z.unknown()),
    })
    .parse(parse(textOf("compose.yaml"), { merge: true }));
  const ours = Object.entries(services).filter(([, { image }]) => image === "relai");
  const named = (word: string) => ours.filter(([, { command }]) => command?.[0] === word);

  let copy: string;
  let secrets: NodeJS.Dict<string>;
  let missing: string | undefined;
  const prepare = () => run("sh", [join(copy, "prepare.sh")]);
  beforeAll(async () => {
    copy = mkdtempSync(join(tmpdir(), "relai-deploy-"));
    copyFileSync(join(folder, "prepare.sh"), join(copy, "prepare.sh"));
    await run("openssl", ["version"]).catch(() => (missing = "there is no openssl here"));
    if (missing === undefined) await prepare();
    secrets = missing === undefined ? parseEnv(readFileSync(join(copy, ".env"), "utf8")) : {};
  });
  afterAll(() => rmSync(copy, { recursive: true }));

  /** As compose fills it in from .env; one that must be there and is not stops compose, and this. */
  const filled = (text: string) =>
    text.replaceAll(/\$\{(\w+):([?-])[^}]*\}/g, (_, name: string, sign: string) => {
      const value = secrets[name];
      if (value === undefined && sign === "?") throw new Error(`.env has no ${name}`);
      return value ?? "";
    });
  const configOf = ({ environment }: z.infer<typeof SERVICE>) =>
    readConfig({
      env: Object.fromEntries(Object.entries(environment).map(([k, v]) => [k, filled(v)])),
    });

  test("has what a region needs, twice what must be there twice", () => {
    const counts = [...PROCESSES, "simulator"].map((word) => [word, named(word).length]);
    expect(counts).toEqual([
      ["gateway", 2],
      ["ledger", 2],
      ["control", 1],
      ["simulator", 2],
    ]);
    expect(ours).toHaveLength(7);
  });

  test("opens each process to its own network where it must, and nothing beyond this machine", (context) => {
    if (missing !== undefined) return context.skip(missing);
    const { gatewayPort, controlPort } = defaults;
    const published = Object.entries(services).flatMap(([name, { ports }]) =>
      ports.map((port) => [name, port]),
    );
    expect(published).toEqual([
      ["gateway-1", `127.0.0.1:${gatewayPort}:${gatewayPort}`],
      ["gateway-2", `127.0.0.1:${gatewayPort + 1}:${gatewayPort}`],
      ["control", `127.0.0.1:${controlPort}:${controlPort}`],
    ]);
    const [[, control] = []] = named("control");
    expect(isThisMachine(configOf(SERVICE.parse(control)).controlBind)).toBe(false);
    // The gateway's is the image's.
    expect(textOf("Dockerfile")).toMatch(/^ENV .*RELAI_BIND=0\.0\.0\.0$/m);
    for (const name of ["events", "redis"]) expect(services[name]?.networks).toEqual(["stores"]);
    expect(networks["stores"]).toEqual({ internal: true });
    return undefined;
  });

  test("gives each process settings that it starts with, and a stop the time that it may take", (context) => {
    if (missing !== undefined) return context.skip(missing);
    for (const [name, service] of ours) {
      const config = configOf(service);
      const graceMs = Number(/^(\d+)s$/.exec(service.stop_grace_period ?? "")?.[1]) * 1000;
      expect(graceMs, `of ${name}`).toBeGreaterThan(config.drainMs + 10_000);
      if (name.startsWith("simulator")) continue;
      const store = new URL(config.eventstoreUrl ?? "");
      expect(Object.keys(services)).toContain(store.hostname);
      const mounted = service.volumes.map((volume) => volume.split(":")[1]);
      expect(mounted).toContain(store.searchParams.get("tlsCAFile"));
      expect(config.redisUrl).toEqual(["redis://redis:6379"]);
      expect(config.adminToken !== undefined).toBe(name === "control");
    }
    const folders = [...named("ledger"), ...named("control")].flatMap(([, { volumes }]) =>
      volumes.filter((volume) => volume.endsWith(":/data")),
    );
    expect(new Set(folders).size).toBe(3);
    return undefined;
  });

  test("has a simulator where its gateway can reach it: on loopback", (context) => {
    if (missing !== undefined) return context.skip(missing);
    const gateways = named("gateway").map(([name, service]) => {
      const { hostname, port } = new URL(configOf(service).openaiBaseUrl);
      expect(isThisMachine(hostname)).toBe(true);
      expect(Number(port)).toBe(defaults.simulatorPort);
      return `service:${name}`;
    });
    expect(named("simulator").map(([, service]) => service.network_mode)).toEqual(gateways);
    return undefined;
  });

  test("runs a Redis that throws nothing away", () => {
    expect(services["redis"]?.command?.join(" ")).toContain("--maxmemory-policy noeviction");
  });

  test("prepare.sh makes a certificate for the name that the URL has, secrets for nobody else, and both once", async (context) => {
    if (missing !== undefined) return context.skip(missing);
    const certificate = (path: string) => new X509Certificate(readFileSync(join(copy, path)));
    const server = certificate("certs/events/node.crt");
    expect(server.checkHost("events")).toBe("events");
    expect(server.verify(certificate("certs/ca.crt").publicKey)).toBe(true);
    expect(server.keyUsage).toEqual(["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]);
    for (const [path, mode] of [[".env", 0o600] as const, ["certs", 0o700] as const])
      expect(statSync(join(copy, path)).mode & 0o777, `of ${path}`).toBe(mode);
    const before = [readFileSync(join(copy, ".env"), "utf8"), server.fingerprint256];
    await prepare();
    const after = [readFileSync(join(copy, ".env"), "utf8"), certificate("certs/events/node.crt")];
    expect([after[0], (after[1] as X509Certificate).fingerprint256]).toEqual(before);
    expect(readdirSync(copy).toSorted()).toEqual([".env", "certs", "prepare.sh"]);
    return undefined;
  });
});
