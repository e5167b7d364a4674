import { createServer, connect, type AddressInfo, type Socket } from "node:net";
import { once } from "node:events";

export type Wire = Awaited<ReturnType<typeof openWire>>;

/**
 * The wire between clients and a server on 127.0.0.1: a listener on a port of its own (a free one where none is given),
 * which can be stalled, cut, closed and opened again on the same port, as when a server hangs, or is killed and started.
 * It carries bytes, so TLS passes through it. What clients send can be watched, each connection by a watch of its own; such
 * a wire is not to be stalled.
 */
export async function openWire(
  serverPort: number,
  port = 0,
  watch?: () => (piece: Buffer) => void,
) {
  /** Each end of a connection with the other one. */
  const sockets = new Map<Socket, Socket>();
  let opened = 0;
  let isStalled = false;

  const listener = createServer((client) => {
    opened += 1;
    const server = connect(serverPort, "127.0.0.1");
    if (watch) client.on("data", watch());
    for (const [one, other] of [
      [client, server],
      [server, client],
    ] as const) {
      sockets.set(one, other);
      one.setNoDelay(true);
      one.on("error", () => other.destroy());
      one.on("close", () => {
        sockets.delete(one);
        other.destroy();
      });
      if (!isStalled) one.pipe(other);
    }
  });

  async function open(): Promise<void> {
    if (listener.listening) return;
    listener.listen(port, "127.0.0.1");
    await once(listener, "listening");
    ({ port } = listener.address() as AddressInfo);
  }
  await open();

  /** Resets every connection, wherever in a message it is. */
  function cut(): void {
    for (const socket of sockets.keys()) socket.resetAndDestroy();
  }

  return {
    port: () => port,
    open,
    cut,
    /** How many connections there ever were. */
    opened: () => opened,
    /** From now on nothing comes through in either direction; connections stay, and new ones are taken. */
    stall(): void {
      isStalled = true;
      for (const [one, other] of sockets) one.unpipe(other);
    },
    /** What waits, and whatever comes, goes through again. */
    flow(): void {
      isStalled = false;
      for (const [one, other] of sockets) one.pipe(other);
    },
    async close(): Promise<void> {
      if (!listener.listening) return;
      const closed = once(listener, "close");
      listener.close();
      cut();
      await closed;
    },
  };
}
