import { connect, createServer } from "node:net";
import { startStandIn } from "./server.ts";

/**
 * The stand-in as the program of an EventStoreDB, to be started and ended like one: it listens where `--node-port` says, and
 * answers there whoever asks over HTTP/1 whether it is live. The rest is gRPC.
 */
const args = process.argv.slice(2);
const standIn = await startStandIn();
const behind = Number(new URL(standIn.url()).port);
createServer((client) => {
  client.on("error", () => client.destroy());
  client.once("data", (bytes) => {
    if (!bytes.toString("latin1").startsWith("PRI * HTTP/2.0")) {
      client.end("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
      return;
    }
    const server = connect(behind, "127.0.0.1");
    server.on("error", () => client.destroy());
    server.write(bytes);
    client.pipe(server).pipe(client);
  });
}).listen(Number(args[args.indexOf("--node-port") + 1]), "127.0.0.1");
