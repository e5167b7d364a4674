import type { Socket } from "node:net";
import { errorHeaders, openaiErrorBody, statusOf, type ApiError } from "./errors.ts";

/** Answers on a connection what is no HTTP request, or none that came whole in time, in our shape; then closes it. */
export function refuseConnection(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === "ECONNRESET" || !socket.writable) {
    socket.destroy();
    return;
  }
  const refusal: ApiError =
    error.code === "HPE_HEADER_OVERFLOW"
      ? { code: "request_too_large", message: "The headers of the request are too large" }
      : { code: "invalid_request", message: "This is not a valid HTTP request" };
  const body = openaiErrorBody(refusal);
  const headers = {
    ...errorHeaders(refusal),
    connection: "close",
    "content-length": String(Buffer.byteLength(body)),
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${statusOf(refusal)} Refused\r\n${lines.join("")}\r\n${body}`);
}
