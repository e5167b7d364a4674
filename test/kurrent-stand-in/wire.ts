import { createServer, connect, type AddressInfo, type Socket } from "node:net";
import { once } from "node:events";

/**
 * The wire between clients and the stand-in: a listener on a port of its own, which can be cut, closed and opened again
 * on the same port, as when a server is killed and started. It carries bytes, so TLS passes through it.
 */
export async function openWire(serverPort: number) {
  const sockets = new Set<Socket>();
  let port = 0;

  const listener = createServer((client) => {
    const server = connect(serverPort, "127.0.0.1");
    for (const [one, other] of [
      [client, server],
      [server, client],
    ] as const) {
      sockets.add(one);
      one.setNoDelay(true);
      one.on("error", () => other.destroy());
      one.on("close", () => {
        sockets.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });

  async function open(): Promise<void> {
    listener.listen(port, "127.0.0.1");
    await once(listener, "listening");
    ({ port } = listener.address() as AddressInfo);
  }
  await open();

  /** Resets every connection, wherever in a message it is. */
  function cut(): void {
    for (const socket of sockets) socket.resetAndDestroy();
  }

  return {
    port: () => port,
    open,
    cut,
    async close(): Promise<void> {
      if (!listener.listening) return;
      const closed = once(listener, "close");
      listener.close();
      cut();
      await closed;
    },
  };
}
