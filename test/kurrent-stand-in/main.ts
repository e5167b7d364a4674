import { startStandIn } from "./server.ts";

/** The stand-in as a process of its own, for tests whose load would starve it in theirs. Prints its URL once it serves. */
const { url } = await startStandIn();
process.stdout.write(`${url()}\n`);
