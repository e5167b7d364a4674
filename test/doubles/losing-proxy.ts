import { connect, createServer, type Socket } from "node:net";
import { once } from "node:events";

/** A way to a server on which what it answers can be lost. */
export interface LosingProxy {
  readonly port: number;
  /** From now on no answer comes through; what is sent still arrives. */
  loseReplies(): void;
  /** Cuts all connections, and lets answers of later ones through again. */
  cut(): void;
  /** How often a text was sent through here. */
  timesSent(text: string): number;
  close(): Promise<void>;
}

export async function losingProxy(targetPort: number): Promise<LosingProxy> {
  const sockets = new Set<Socket>();
  let sent = "";
  let loses = false;
  const server = createServer((near) => {
    const far = connect(targetPort, "127.0.0.1");
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        sockets.delete(socket);
        other.destroy();
      });
    }
    near.on("data", (bytes) => {
      sent += bytes.toString("latin1");
      far.write(bytes);
    });
    far.on("data", (bytes) => {
      if (!loses) near.write(bytes);
    });
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the proxy has no port");
  const cut = () => {
    loses = false;
    for (const socket of sockets) socket.destroy();
  };
  return {
    port: address.port,
    loseReplies() {
      loses = true;
    },
    cut,
    timesSent: (text) => sent.split(text).length - 1,
    async close() {
      cut();
      server.close();
      await once(server, "close");
    },
  };
}
