import type { FastifyInstance } from "fastify";
import { errorHeaders, openaiErrorBody, statusOf } from "#services/errors.ts";
import { guardLoopback } from "#services/loopback.ts";

/** Where a listener goes, and the setting of its port. */
interface Where {
  readonly host: string;
  readonly port: number;
  readonly setting: string;
}

/** Listens; a port that is taken is told in one sentence that names the setting for another. */
export async function orTaken<T>(listen: () => Promise<T>, where: Where): Promise<T> {
  try {
    return await listen();
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EADDRINUSE") {
      throw new Error(
        `port ${where.port} on ${where.host} is taken: stop what uses it, or set ${where.setting} (0 takes a free one)`,
        { cause: error },
      );
    }
    throw error;
  }
}

/** Listens, for this machine only where that is what the address says, and gives the listener's own address. */
export function listen(server: FastifyInstance, newId: () => string, where: Where) {
  const { host, port } = where;
  guardLoopback(server.server, host, (response, error) => {
    response.writeHead(statusOf(error), { ...errorHeaders(error), "x-request-id": newId() });
    response.end(openaiErrorBody(error));
  });
  return orTaken(() => server.listen({ host, port }), where);
}
