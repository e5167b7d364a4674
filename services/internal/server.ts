import Fastify, { type FastifyInstance } from "fastify";

/** What the internal listener tells: for probes and for Prometheus, never for applications. */
export interface InternalParts {
  /** Each dependency by name, and whether it can be used right now. */
  readonly ready: () => Readonly<Record<string, boolean>>;
  readonly metricsText: () => Promise<string>;
  readonly metricsContentType: string;
}

/** `/healthz` (the process lives), `/readyz` (every dependency, as JSON), `/metrics` (Prometheus text). */
export function createInternalServer(parts: InternalParts): FastifyInstance {
  const app = Fastify({ forceCloseConnections: true });
  app.get("/healthz", () => ({ ok: true }));
  app.get("/readyz", (_request, reply) => {
    const dependencies = parts.ready();
    const ready = Object.values(dependencies).every(Boolean);
    return reply.code(ready ? 200 : 503).send({ ready, dependencies });
  });
  app.get("/metrics", async (_request, reply) =>
    reply.type(parts.metricsContentType).send(await parts.metricsText()),
  );
  return app;
}
