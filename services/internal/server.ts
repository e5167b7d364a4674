import type { FastifyInstance } from "fastify";
import { createOperatorServer, type OperatorServerParts } from "./operator-server.ts";

/** What the internal listener tells: for probes and for Prometheus, never for applications. */
export interface InternalParts extends OperatorServerParts {
  readonly telemetry: OperatorServerParts["telemetry"] & {
    readonly metricsText: () => Promise<string>;
    readonly metricsContentType: string;
  };
}

/** The probes, and `/metrics` (Prometheus text). */
export function createInternalServer(parts: InternalParts): FastifyInstance {
  const { telemetry } = parts;
  const app = createOperatorServer(parts, { forceCloseConnections: true });
  app.get("/metrics", async (_request, reply) =>
    reply.type(telemetry.metricsContentType).send(await telemetry.metricsText()),
  );
  return app;
}
