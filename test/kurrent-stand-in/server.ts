import gossipMessages from "@eventstore/db-client/generated/gossip_pb.js";
import gossipServices from "@eventstore/db-client/generated/gossip_grpc_pb.js";
import featureMessages from "@eventstore/db-client/generated/serverfeatures_pb.js";
import featureServices from "@eventstore/db-client/generated/serverfeatures_grpc_pb.js";
import streamMessages from "@eventstore/db-client/generated/streams_pb.js";
import streamServices from "@eventstore/db-client/generated/streams_grpc_pb.js";
import sharedMessages from "@eventstore/db-client/generated/shared_pb.js";
import type {
  AppendReq,
  AppendResp,
  BatchAppendReq,
  BatchAppendResp,
  ReadReq,
  ReadResp,
} from "@eventstore/db-client/generated/streams_pb.js";
import {
  Metadata,
  Server,
  ServerCredentials,
  status,
  type sendUnaryData,
  type ServerDuplexStream,
  type ServerReadableStream,
  type ServerWritableStream,
} from "@grpc/grpc-js";
import { openWire } from "#test/doubles/wire.ts";
import { createKurrentLog, type Proposed } from "./log.ts";
import { appendAnswer, expectedIn, expectedInBatch, nameOf, proposedIn } from "./messages.ts";
import { createReading } from "./reading.ts";
import { watchResets } from "./resets.ts";

/** What the stand-in does at its worst. */
export interface Faults {
  /** The next append is written, and every connection is cut in the place of its answer. */
  loseReply: boolean;
  /** Every connection is cut when the first event of the next append has come. */
  cutMidAppend: boolean;
  /** The next append is turned away, as by a server that has too much to do. */
  isBusy: boolean;
  /** Appends that have come whole are written, reads begun and members told when this resolves. */
  stall: Promise<void> | undefined;
  /** The wait before each event of a read or subscription. */
  readPauseMs: number;
  /** The wait between the last answer of a read and its end. */
  endPauseMs: number;
}

export interface StandInOptions {
  /** The server's own time, in milliseconds since 1970. */
  readonly now?: () => number;
  /** With both, the server speaks TLS and asks for this user. */
  readonly tls?: { readonly key: Buffer; readonly certificate: Buffer };
  readonly user?: { readonly name: string; readonly password: string };
  /** Keeps the events for a process that is started after this one was killed; in memory only without it. */
  readonly path?: string;
  /** A free one where none is given. */
  readonly port?: number;
}

const APPEND_BYTES_MAX = 1024 * 1024;

/**
 * A server that speaks as much of EventStoreDB's protocol as relai uses, to the real client over a real socket, with
 * its events in memory, or in a file too, and faults to order. A tool of the tests, never a mode of the product. It is held to a real
 * server by the cases of test/conformance/event-store/kurrent-client.test.ts, which run on either.
 */
export async function startStandIn(options: StandInOptions = {}) {
  const { now = () => Date.now(), tls, user } = options;
  const log = createKurrentLog(now, options.path);
  const faults: Faults = {
    loseReply: false,
    cutMidAppend: false,
    isBusy: false,
    stall: undefined,
    readPauseMs: 0,
    endPauseMs: 0,
  };
  const reading = createReading(log, faults);
  let appends = 0;
  const server = new Server();
  const authorization =
    user && `Basic ${Buffer.from(`${user.name}:${user.password}`).toString("base64")}`;
  const denied = { code: status.UNAUTHENTICATED, details: "Access Denied" };
  const isAllowed = (metadata: Metadata) =>
    authorization === undefined || metadata.get("authorization")[0] === authorization;

  function append(
    call: ServerReadableStream<AppendReq, AppendResp>,
    answer: sendUnaryData<AppendResp>,
  ): void {
    let settings: AppendReq.Options | undefined;
    const proposed: Proposed[] = [];
    call.on("data", (request: AppendReq) => {
      settings = request.getOptions() ?? settings;
      const message = request.getProposedMessage();
      if (!message) return;
      if (faults.cutMidAppend) {
        faults.cutMidAppend = false;
        wire.cut();
      }
      proposed.push(proposedIn(message));
    });
    call.on("error", () => undefined);
    call.on("end", () => {
      // A call that was cut ends as well, but is not whole, which is known only after its end.
      setImmediate(() => {
        if (settings && proposed.length > 0 && !call.cancelled)
          void write(settings, proposed, answer);
      });
    });
    if (!isAllowed(call.metadata)) answer(denied);
  }

  async function write(
    settings: AppendReq.Options,
    proposed: readonly Proposed[],
    answer: sendUnaryData<AppendResp>,
  ): Promise<void> {
    const bytes = proposed.map(
      ({ type, data, metadata }) => 2 * type.length + data.length + metadata.length,
    );
    if (bytes.reduce((sum, one) => sum + one, 0) > APPEND_BYTES_MAX) {
      const metadata = new Metadata();
      metadata.set("exception", "maximum-append-size-exceeded");
      metadata.set("maximum-append-size", String(APPEND_BYTES_MAX));
      return answer({ code: status.INVALID_ARGUMENT, details: "Maximum Append Size", metadata });
    }
    if (faults.isBusy) {
      faults.isBusy = false;
      return answer({ code: status.UNAVAILABLE, details: "Server Is Too Busy" });
    }
    await faults.stall;
    appends += 1;
    const expected = expectedIn(settings);
    const judged = log.append(nameOf(settings.getStreamIdentifier()), proposed, expected);
    if (!faults.loseReply) return answer(null, appendAnswer(judged, expected));
    faults.loseReply = false;
    return wire.cut();
  }

  /** Enough of it to show what is wrong with it at the client: appends that fit. */
  function batchAppend(call: ServerDuplexStream<BatchAppendReq, BatchAppendResp>): void {
    let settings: BatchAppendReq.Options | undefined;
    const proposed: Proposed[] = [];
    call.on("error", () => undefined);
    call.on("data", (request: BatchAppendReq) => {
      settings = request.getOptions() ?? settings;
      proposed.push(...request.getProposedMessagesList().map(proposedIn));
      if (request.getIsFinal() && settings)
        void writeBatch(call, settings, proposed.splice(0), request);
    });
    call.on("end", () => call.end());
  }

  async function writeBatch(
    call: ServerDuplexStream<BatchAppendReq, BatchAppendResp>,
    settings: BatchAppendReq.Options,
    proposed: readonly Proposed[],
    request: BatchAppendReq,
  ): Promise<void> {
    await faults.stall;
    const stream = settings.getStreamIdentifier();
    const judged = log.append(nameOf(stream), proposed, expectedInBatch(settings));
    if (judged.wrong) return void call.emit("error", { code: status.UNIMPLEMENTED });
    const position = new sharedMessages.AllStreamPosition()
      .setCommitPosition(String(judged.position))
      .setPreparePosition(String(judged.position));
    const success = new streamMessages.BatchAppendResp.Success()
      .setCurrentRevision(String(judged.revision))
      .setPosition(position);
    const answer = new streamMessages.BatchAppendResp()
      .setCorrelationId(request.getCorrelationId())
      .setStreamIdentifier(stream)
      .setSuccess(success);
    call.write(answer);
  }

  server.addService(streamServices.StreamsService, {
    append,
    batchAppend,
    read(call: ServerWritableStream<ReadReq, ReadResp>) {
      if (!isAllowed(call.metadata)) return void call.emit("error", denied);
      void Promise.resolve(faults.stall).then(() => reading.read(call));
    },
  });
  server.addService(featureServices.ServerFeaturesService, {
    getSupportedMethods(
      _: unknown,
      answer: sendUnaryData<InstanceType<typeof featureMessages.SupportedMethods>>,
    ) {
      const method = new featureMessages.SupportedMethod()
        .setServiceName("event_store.client.streams.streams")
        .setMethodName("batchappend");
      const methods = new featureMessages.SupportedMethods().setEventStoreServerVersion("23.10.1");
      answer(null, methods.setMethodsList([method]));
    },
  });
  server.addService(gossipServices.GossipService, {
    read(_: unknown, answer: sendUnaryData<InstanceType<typeof gossipMessages.ClusterInfo>>) {
      const place = new gossipMessages.EndPoint().setAddress("127.0.0.1").setPort(wire.port());
      const leader = new gossipMessages.MemberInfo()
        .setState(gossipMessages.MemberInfo.VNodeState.LEADER)
        .setIsAlive(true)
        .setHttpEndPoint(place);
      const members = new gossipMessages.ClusterInfo().setMembersList([leader]);
      void Promise.resolve(faults.stall).then(() => answer(null, members));
    },
  });
  const credentials = tls
    ? ServerCredentials.createSsl(null, [{ private_key: tls.key, cert_chain: tls.certificate }])
    : ServerCredentials.createInsecure();
  let resets = 0;
  const watch = () => watchResets(() => (resets += 1));
  const wire = await openWire(await bound(server, credentials), options.port, watch);
  const account = user ? `${user.name}:${user.password}@` : "";

  return {
    /** Where it is reached, with what it needs of the client but a certificate's file. */
    url: () => `esdb://${account}127.0.0.1:${wire.port()}${tls ? "" : "?tls=false"}`,
    log,
    faults,
    /** How many appends came whole and were judged. */
    appends: () => appends,
    sentEvents: reading.sentEvents,
    /** How many calls clients ended before their end so far. Over TLS it is not known. */
    resets: () => resets,
    openSubscriptions: reading.openSubscriptions,
    dropSubscriptions: reading.dropSubscriptions,
    cut: wire.cut,
    /** Gone as after kill -9: connections are reset, the port takes none, and what was in memory only is forgotten. */
    async stop(): Promise<void> {
      await wire.close();
      log.forget();
    },
    /** Back on the same port, with its events. */
    restart: wire.open,
    async close(): Promise<void> {
      await wire.close();
      server.forceShutdown();
      log.close();
    },
  };
}

export type StandIn = Awaited<ReturnType<typeof startStandIn>>;

function bound(server: Server, credentials: ServerCredentials): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", credentials, (error, port) =>
      error ? reject(error) : resolve(port),
    );
  });
}
