import type { FastifyInstance } from "fastify";
import type { SettingView } from "#services/control/views.ts";
import { createOperatorServer, type OperatorServerParts } from "./operator-server.ts";

/** What the internal listener tells: for probes and for Prometheus, never for applications. */
export interface InternalParts extends OperatorServerParts {
  readonly telemetry: OperatorServerParts["telemetry"] & {
    readonly metricsText: () => Promise<string>;
    readonly metricsContentType: string;
  };
  /** What the process runs with, without a secret in it. */
  readonly settings: readonly SettingView[];
}

/** The probes, `/metrics` (Prometheus text), and `/config`, which answers as the control API's `/v1/config` does. */
export function createInternalServer(parts: InternalParts): FastifyInstance {
  const { telemetry } = parts;
  const app = createOperatorServer(parts, { forceCloseConnections: true });
  app.get("/metrics", async (_request, reply) =>
    reply.type(telemetry.metricsContentType).send(await telemetry.metricsText()),
  );
  app.get("/config", () => ({ object: "config", data: parts.settings }));
  return app;
}
