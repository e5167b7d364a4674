import { createServer, type ServerResponse } from "node:http";
import { expect } from "vitest";

/** A collector of traces for tests: takes OTLP over HTTP and reads it by the wire format, without OpenTelemetry's code. */

export interface SeenSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string;
  readonly name: string;
  /** 2 is a server's, 3 a client's. */
  readonly kind: number;
  readonly beganAtNs: bigint;
  readonly endedAtNs: bigint;
  /** 0 is unset, 2 an error. */
  readonly status: number;
  readonly attributes: Attributes;
  readonly resource: Attributes;
}
type Attributes = Readonly<Record<string, string | number | boolean>>;

export interface Collector {
  readonly url: string;
  /** Every byte that came, bodies and heads. */
  bytes(): Buffer;
  requests(): { readonly path: string; readonly authorization: string | undefined }[];
  spans(): SeenSpan[];
  /** Waits until there are so many spans, and gives all. */
  until(count: number): Promise<SeenSpan[]>;
  close(): Promise<void>;
}

/** `answer` says what becomes of a request whose body has come; without it all is well. */
export async function startCollector(
  answer = (response: ServerResponse): void => void response.writeHead(200).end(),
): Promise<Collector> {
  const heard: Buffer[] = [];
  const requests: { path: string; authorization: string | undefined }[] = [];
  const spans: SeenSpan[] = [];
  const server = createServer((request, response) => {
    const pieces: Buffer[] = [];
    request.on("data", (piece: Buffer) => pieces.push(piece));
    request.on("end", () => {
      const body = Buffer.concat(pieces);
      const { url = "", headers } = request;
      heard.push(Buffer.from(JSON.stringify([url, headers])), body);
      requests.push({ path: url, authorization: headers.authorization });
      expect(headers["content-type"]).toBe("application/x-protobuf");
      spans.push(...spansOf(body));
      answer(response);
    });
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" ? address?.port : undefined;
  return {
    url: `http://127.0.0.1:${port}`,
    bytes: () => Buffer.concat(heard),
    requests: () => requests,
    spans: () => spans,
    async until(count) {
      await expect.poll(() => spans.length, { timeout: 20_000 }).toBeGreaterThanOrEqual(count);
      return spans;
    },
    close() {
      const closed = new Promise<void>((resolve) => void server.close(() => resolve()));
      server.closeAllConnections();
      return closed;
    },
  };
}

type Field = bigint | Buffer;

/** The fields of a protobuf message by their numbers: whole numbers and 64 bits as bigint, all else as bytes. */
function fieldsOf(message: Buffer): Map<number, Field[]> {
  const fields = new Map<number, Field[]>();
  let at = 0;
  function varint(): bigint {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = message.readUInt8(at++);
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  }
  function bytes(count: number): Buffer {
    if (at + count > message.length) throw new Error("a field is longer than its message");
    at += count;
    return message.subarray(at - count, at);
  }
  function field(wire: number): Field {
    if (wire === 0) return varint();
    if (wire === 1) return bytes(8).readBigUInt64LE();
    if (wire === 2) return bytes(Number(varint()));
    if (wire === 5) return BigInt(bytes(4).readUInt32LE());
    throw new Error(`wire type ${wire} is none`);
  }
  while (at < message.length) {
    const tag = Number(varint());
    const known = fields.get(tag >> 3) ?? [];
    known.push(field(tag & 7));
    fields.set(tag >> 3, known);
  }
  return fields;
}

const messages = (fields: Map<number, Field[]>, number: number) =>
  (fields.get(number) ?? []).map((field) => fieldsOf(bytesOf(field)));
const bytesOf = (field: Field | undefined) => (Buffer.isBuffer(field) ? field : Buffer.alloc(0));
const first = (fields: Map<number, Field[]>, number: number) => fields.get(number)?.[0];

/** ExportTraceServiceRequest, as far as relai fills it in. */
function spansOf(body: Buffer): SeenSpan[] {
  return messages(fieldsOf(body), 1).flatMap((resourceSpans) => {
    const resource = attributesOf(messages(resourceSpans, 1)[0], 1);
    return messages(resourceSpans, 2)
      .flatMap((scopeSpans) => messages(scopeSpans, 2))
      .map((span) => spanOf(span, resource));
  });
}

function spanOf(span: Map<number, Field[]>, resource: Attributes): SeenSpan {
  const hex = (number: number) => bytesOf(first(span, number)).toString("hex");
  const status = messages(span, 15)[0];
  return {
    traceId: hex(1),
    spanId: hex(2),
    parentSpanId: hex(4),
    name: bytesOf(first(span, 5)).toString(),
    kind: Number(first(span, 6) ?? 0),
    beganAtNs: BigInt(String(first(span, 7))),
    endedAtNs: BigInt(String(first(span, 8))),
    status: Number((status && first(status, 3)) ?? 0),
    attributes: attributesOf(span, 9),
    resource,
  };
}

function attributesOf(of: Map<number, Field[]> | undefined, number: number): Attributes {
  const pairs = of === undefined ? [] : messages(of, number);
  return Object.fromEntries(
    pairs.map((pair) => [bytesOf(first(pair, 1)).toString(), valueOf(messages(pair, 2)[0])]),
  );
}

function valueOf(value: Map<number, Field[]> | undefined): string | number | boolean {
  const [number, field] =
    [...(value ?? [])].map(([at, fields]) => [at, fields[0]] as const)[0] ?? [];
  if (number === 1) return bytesOf(field).toString();
  if (number === 2) return field === 1n;
  if (number === 3) return Number(BigInt.asIntN(64, BigInt(String(field))));
  if (number !== 4 || typeof field !== "bigint")
    throw new Error(`value type ${number} is not used`);
  const bits = Buffer.alloc(8);
  bits.writeBigUInt64LE(field);
  return bits.readDoubleLE();
}
