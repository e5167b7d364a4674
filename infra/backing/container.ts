import { randomBytes } from "node:crypto";
import { request } from "node:http";
import { createRequire } from "node:module";

/** A server of our own in a container. It keeps nothing when it ends. */
export interface StartedContainer {
  readonly url: string;
  stop(): Promise<void>;
}

/** Of which image a container of each server is. */
export const IMAGES = {
  redis: "redis:7-alpine",
  valkey: "valkey/valkey:8-alpine",
  eventstore: "kurrentplatform/kurrentdb:26.0",
} as const;

type Environment = Readonly<Record<string, string | undefined>>;

const USUAL_SOCKET = "unix:///var/run/docker.sock";
const LOOK_MS_MAX = 1_000;

/**
 * Whether containers can be had: the library for them is installed, which it is not without development packages, and a
 * Docker engine answers at DOCKER_HOST or the usual socket, within a second.
 */
export async function hasContainers(env: Environment): Promise<boolean> {
  try {
    createRequire(import.meta.url).resolve("testcontainers");
    return await engineAnswers(new URL(env["DOCKER_HOST"] || USUAL_SOCKET));
  } catch {
    return false;
  }
}

async function engineAnswers({ protocol, hostname, port, pathname }: URL): Promise<boolean> {
  const place = protocol === "unix:" ? { socketPath: pathname } : { host: hostname, port };
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  const signal = AbortSignal.timeout(LOOK_MS_MAX);
  request({ ...place, path: "/_ping", signal }, (answer) => {
    answer.resume();
    resolve(answer.statusCode === 200);
  })
    .on("error", reject)
    .end();
  return promise;
}

/** Starts a container, its image fetched where the engine does not have it; waits until the server in it is ready. */
export async function startContainer(kind: keyof typeof IMAGES): Promise<StartedContainer> {
  // Loaded only here: it is large, and most machines that run tests have no engine.
  const { GenericContainer, Wait } = await import("testcontainers");
  if (kind === "eventstore") {
    const container = await new GenericContainer(IMAGES[kind])
      .withEnvironment({ KURRENTDB_INSECURE: "true", KURRENTDB_MEM_DB: "true" })
      .withExposedPorts(2113)
      .withWaitStrategy(
        Wait.forHttp("/health/live", 2113).forStatusCodeMatching((code) => code < 300),
      )
      .start();
    const url = `esdb://${container.getHost()}:${container.getMappedPort(2113)}?tls=false`;
    return { url, stop: async () => void (await container.stop()) };
  }
  // An engine opens a container's port to the machine's whole network.
  const password = randomBytes(16).toString("hex");
  const container = await new GenericContainer(IMAGES[kind])
    .withCommand([`${kind}-server`, "--save", "", "--appendonly", "no", "--requirepass", password])
    .withExposedPorts(6379)
    .withWaitStrategy(Wait.forLogMessage("Ready to accept connections"))
    .start();
  const url = `redis://:${password}@${container.getHost()}:${container.getMappedPort(6379)}`;
  return { url, stop: async () => void (await container.stop()) };
}
