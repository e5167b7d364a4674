import { once } from "node:events";
import { connect } from "node:net";
import { expect, test, vi } from "vitest";
import { gatewayWorld } from "#test/worlds/gateway-world.ts";
import { createGatewayServer } from "./server.ts";

test.each(["/v1/models", "/v1/models/sim-flat", "/v1/balance"])(
  "a GET of %s whose body comes a little later is answered whole",
  async (path) => {
    const world = await gatewayWorld();
    const server = createGatewayServer(world.gateway);
    const address = new URL(await server.listen({ host: "127.0.0.1", port: 0 }));
    const socket = connect(Number(address.port), address.hostname);
    let text = "";
    socket.on("data", (bytes: Buffer) => (text += bytes.toString()));
    const head = `host: x\r\nauthorization: Bearer ${world.keys[0]}\r\ncontent-length: 2`;
    socket.write(`GET ${path} HTTP/1.1\r\n${head}\r\n\r\n`);
    await vi.waitFor(() => expect(text).toContain("\r\n\r\n{"));
    socket.write("{}");
    await once(socket, "close");
    await server.close();
    expect(text).toMatch(/^HTTP\/1\.1 200 /);
    expect(world.alarms).toEqual([]);
  },
);
