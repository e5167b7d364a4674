import { startStandIn } from "./server.ts";

/**
 * The stand-in as a process of its own, for tests whose load would starve it in theirs, or that kill it. Its arguments are
 * the file that keeps its events and its port; prints its URL once it serves.
 */
const [path, port = "0"] = process.argv.slice(2);
const { url } = await startStandIn({ ...(path === undefined ? {} : { path }), port: Number(port) });
process.stdout.write(`${url()}\n`);
