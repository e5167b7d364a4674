import sharedMessages from "@eventstore/db-client/generated/shared_pb.js";
import streamMessages from "@eventstore/db-client/generated/streams_pb.js";
import type { StreamIdentifier } from "@eventstore/db-client/generated/shared_pb.js";
import type {
  AppendReq,
  AppendResp,
  BatchAppendReq,
  ReadReq,
  ReadResp,
} from "@eventstore/db-client/generated/streams_pb.js";
import type { Expected, Judgement, LogRecord, Proposed } from "./log.ts";

/** Between the messages of the protocol, as the client ships them, and what the stand-in's log says. */

const { AppendResp: Appended, ReadResp: ReadAnswer } = streamMessages;
const { Empty, StreamIdentifier: Identifier, UUID } = sharedMessages;
const TICKS_PER_MS = 10_000n;

export const nameOf = (identifier: StreamIdentifier | undefined): string =>
  Buffer.from(identifier?.getStreamName_asU8() ?? []).toString();

export function proposedIn(
  message: AppendReq.ProposedMessage | BatchAppendReq.ProposedMessage,
): Proposed {
  const map = message.getMetadataMap();
  return {
    id: message.getId()?.getString() ?? "",
    type: map.get("type") ?? "",
    contentType: map.get("content-type") ?? "",
    data: message.getData_asU8(),
    metadata: message.getCustomMetadata_asU8(),
  };
}

export function expectedIn(options: AppendReq.Options): Expected {
  if (options.hasNoStream()) return "no_stream";
  if (options.hasAny()) return "any";
  return options.hasStreamExists() ? "stream_exists" : BigInt(options.getRevision());
}

export function expectedInBatch(options: BatchAppendReq.Options): Expected {
  if (options.hasNoStream()) return "no_stream";
  if (options.hasAny()) return "any";
  return options.hasStreamExists() ? "stream_exists" : BigInt(options.getStreamPosition());
}

export function appendAnswer(judged: Judgement, expected: Expected): AppendResp {
  if (!judged.wrong) {
    const position = new Appended.Position()
      .setCommitPosition(String(judged.position))
      .setPreparePosition(String(judged.position));
    const success = new Appended.Success().setCurrentRevision(String(judged.revision));
    return new Appended().setSuccess(success.setPosition(position));
  }
  const wrong = new Appended.WrongExpectedVersion();
  if (judged.actual === "no_stream") wrong.setCurrentNoStream(new Empty());
  else wrong.setCurrentRevision(String(judged.actual));
  if (expected === "no_stream") wrong.setExpectedNoStream(new Empty());
  else if (typeof expected === "bigint") wrong.setExpectedRevision(String(expected));
  return new Appended().setWrongExpectedVersion(wrong);
}

export function eventAnswer(record: LogRecord): ReadResp {
  const position = String(record.position);
  const event = new ReadAnswer.ReadEvent.RecordedEvent()
    .setId(new UUID().setString(record.id))
    .setStreamIdentifier(new Identifier().setStreamName(Buffer.from(record.stream)))
    .setStreamRevision(String(record.revision))
    .setCommitPosition(position)
    .setPreparePosition(position)
    .setData(record.data)
    .setCustomMetadata(record.metadata);
  event
    .getMetadataMap()
    .set("type", record.type)
    .set("content-type", record.contentType)
    .set("created", String(BigInt(record.createdMs) * TICKS_PER_MS));
  const answer = new ReadAnswer.ReadEvent().setEvent(event).setCommitPosition(position);
  return new ReadAnswer().setEvent(answer);
}

export function notFoundAnswer(options: ReadReq.Options.StreamOptions): ReadResp {
  const missing = new ReadAnswer.StreamNotFound();
  return new ReadAnswer().setStreamNotFound(
    missing.setStreamIdentifier(options.getStreamIdentifier()),
  );
}

export const confirmation = (): ReadResp =>
  new ReadAnswer().setConfirmation(
    new ReadAnswer.SubscriptionConfirmation().setSubscriptionId("stand-in"),
  );

export const caughtUp = (): ReadResp => new ReadAnswer().setCaughtUp(new ReadAnswer.CaughtUp());

export const checkpoint = (position: bigint): ReadResp =>
  new ReadAnswer().setCheckpoint(
    new ReadAnswer.Checkpoint()
      .setCommitPosition(String(position))
      .setPreparePosition(String(position)),
  );
