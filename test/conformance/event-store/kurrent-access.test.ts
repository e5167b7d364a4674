import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  describe,
  expect,
  it,
  type TestContext,
} from "vitest";
import type { KurrentEventStore } from "#infra/event-store/kurrent/store.ts";
import { openStore } from "#test/worlds/event-store-world.ts";
import { startStandIn, type StandIn } from "#test/kurrent-stand-in/server.ts";
import { admissions } from "./event-samples.ts";
import { take } from "./event-store-suite.ts";

const run = promisify(execFile);
const JOURNAL = "journal-us-1";
const PASSWORD = "correct-horse";

/** TLS and a user of the server's: the stand-in has a certificate that is made here, and one user. */
describe("an event store behind TLS", () => {
  let folder: string;
  let authority: string;
  let tls: { key: Buffer; certificate: Buffer } | undefined;
  let server: StandIn | undefined;
  let store: KurrentEventStore | undefined;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "relai-tls-"));
    authority = join(folder, "certificate.pem");
    const key = join(folder, "key.pem");
    const kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    const names = ["-subj", "/CN=stand-in", "-addext", "subjectAltName=DNS:localhost"];
    const files = ["-keyout", key, "-out", authority, "-days", "2"];
    // Where there is no openssl, the cases say so.
    await run("openssl", ["req", ...kind, ...names, ...files]).then(
      async () => (tls = { key: await readFile(key), certificate: await readFile(authority) }),
      () => undefined,
    );
  });
  afterAll(() => rm(folder, { recursive: true }));

  beforeEach(async (context: TestContext) => {
    if (!tls) return context.skip("there is no openssl here to make a certificate with");
    server = await startStandIn({ tls, user: { name: "relai", password: PASSWORD } });
    return undefined;
  });
  afterEach(async () => {
    await store?.close();
    await server?.close();
    store = undefined;
  });

  const bare = () => `${server?.url().replace("127.0.0.1", "localhost")}`;
  const url = (password = PASSWORD) =>
    `${bare().replace(PASSWORD, password)}?tlsCAFile=${encodeURIComponent(authority)}`;

  it("is written, read and followed by the user in its URL", async () => {
    store = await openStore(url(), { insecure: false });
    const batch = admissions(JOURNAL, 1, 3);
    expect(await store.append(JOURNAL, batch, "no_stream")).toMatchObject({ outcome: "appended" });
    const signal = AbortSignal.timeout(10_000);
    expect(await take(store.follow({ after: "start", signal }), 3)).toHaveLength(3);
  });

  it("is not opened with a wrong password, which no error quotes", async () => {
    const opening = openStore(url("wrong-horse"), { insecure: false, answerMsMax: 2_000 });
    await expect(opening).rejects.toThrow("UNAUTHENTICATED");
    await expect(opening).rejects.not.toThrow("wrong-horse");
  });

  it("is not opened where nobody vouches for its certificate", async () => {
    await expect(openStore(bare(), { insecure: false, answerMsMax: 2_000 })).rejects.toThrow();
    expect(server?.log.all).toEqual([]);
  });

  it("is not opened in plain text", async () => {
    const plain = `${bare()}?tls=false`;
    await expect(openStore(plain, { insecure: false })).rejects.toThrow(TypeError);
    await expect(openStore(plain, { answerMsMax: 2_000 })).rejects.toThrow();
    expect(server?.log.all).toEqual([]);
  });
});
