import type { Operation, OutputCapName } from "#domain/catalogue/types.ts";
import type { ApiError } from "#services/errors.ts";
import type { ReadUsage, SeenOutput } from "./estimate.ts";

/**
 * A wire shape: how requests of one kind and their answers are written. All that the rest of the gateway knows of it
 * stands here; each shape is a folder beside this file, and `all.ts` is the list of them.
 */
export interface Shape<A extends Ask = Ask> {
  /** Below `/v1`, here and at the upstream: `/chat/completions`. */
  readonly path: string;
  /** Which models can be asked in this shape. */
  readonly operation: Operation;
  /** Reads a body: what it asks for, or why it is refused with 400. Keeps nothing of the prompt. */
  read(body: Buffer, depthMax: number): A | ApiError;
  /** The bytes to send for a binding. `body` is the one that `ask` was read from. */
  upstreamBody(body: Buffer, ask: A, names: UpstreamNames): Buffer;
  /** How a host is told whose call it is. */
  credentialHeaders(credential: string): Readonly<Record<string, string>>;
  /** Reads the whole body of a success. */
  readAnswer(body: Buffer, ask: A): WholeAnswer | AnswerFault;
  /** Starts to read a streamed success; only for an ask that is a stream's. */
  openStream(ask: A): AnswerStream;
  readonly errors: ErrorShape;
}

/** How errors are written, as a body of their own and inside a stream that has begun; and how an upstream's are read. */
export interface ErrorShape {
  body(error: ApiError): string;
  /** What the body of an upstream's error says, empty where it says nothing that can be read. Any text, of any length. */
  told(body: Buffer): Readonly<Record<string, unknown>>;
  /** Bytes that end the stream, and that no client takes for its proper end. */
  inStream(error: ApiError): string;
}

/** What a request asks for, as far as routing and money need it. */
export interface Ask {
  readonly model: string;
  readonly stream: boolean;
  /** How many answers; 1 when absent. */
  readonly n: number;
  /** The caller's cap on the output tokens of each; null when there is none. */
  readonly outputCapTokens: number | null;
  /** The name that the cap came under. */
  readonly outputCapName: OutputCapName;
  /** The tier that is named; undefined when absent, null or `auto`: then whoever serves it chooses. */
  readonly serviceTier: string | undefined;
  readonly modelRegion: string | undefined;
  readonly bounds: AskBounds;
}

/** How large a request can be for the model. */
export interface AskBounds {
  /** UTF-8 bytes of the text that the model sees; the estimate of an answer without usage rests on it. */
  readonly promptBytes: number;
  /** The bound on the input's tokens, without images and what cannot be sized. */
  readonly inputTokensBound: number;
  /** Images of every kind; the estimate takes each at the catalogue's `imageTokensMax`. */
  readonly imageCount: number;
  /** Those among them that are not in the body as data URLs: nothing bounds their size, so they set `unknownSize`. */
  readonly remoteImageCount: number;
  /** There is audio, or something that may be audio: a part that nobody knows, a file, an earlier answer. */
  readonly hasAudioInput: boolean;
  /** The decoded bytes of the audio, as if none were compressed; the estimate rests on it, the hold does not. */
  readonly audioBytes: number;
  readonly hasAudioOutput: boolean;
  /** The audio that was asked for is not plain samples (`pcm16`, `wav`). */
  readonly isAudioOutputCompressed: boolean;
  /**
   * The request refers to something whose size the bytes do not bound: a remote image, a file, an earlier answer's
   * audio, a part of a type that relai does not know, or audio, whose sample rate is the caller's choice. The hold
   * takes the model's whole context window.
   */
  readonly unknownSize: boolean;
  /** Tokens of a predicted output: those that the answer does not use are billed as output, beside it. */
  readonly predictionTokensBound: number;
}

/** What the chosen binding needs to see in the body. */
export interface UpstreamNames {
  readonly upstreamModel: string;
  readonly outputCapName: OutputCapName;
  /** The cap to set: the caller's, or the model's default when the caller gave none. */
  readonly outputCapTokens: number;
  /** The host serves what names no service tier as its account is set, unless `default` is asked for. */
  readonly pinsServiceTier: boolean;
}

/** What an answer says of itself. */
export interface Said {
  /** Undefined when the upstream gave none, or one that cannot be read: then the tokens are estimated. */
  readonly usage: ReadUsage | undefined;
  /** The model and service tier that the answer names. */
  readonly servedModel: string | undefined;
  readonly serviceTier: string | undefined;
}

export interface WholeAnswer extends Said {
  /** As it goes to the caller: mostly the very bytes that came. */
  readonly body: Buffer;
  /** Why it ended, as the event repeats it. */
  readonly finish: string;
  /** What it shows, for the estimate. */
  seen(): SeenOutput;
}

/** `upstream_error`: an error object under a status of success. `garbage`: no answer of this shape. */
export type AnswerFault = "garbage" | "upstream_error";

export interface StreamOutput {
  /** May go to the client now. Possibly the pushed bytes themselves or a part of them. */
  readonly out: Uint8Array | undefined;
  /**
   * The stream cannot go on: the upstream sent an error, which is not relayed, or something of another shape. What came
   * before it is in `out`. Later pushes give nothing.
   */
  readonly failed?: AnswerFault;
}

/** The filter of one streamed answer: relays bytes, reads what they say, and holds the end back. */
export interface AnswerStream {
  /** Takes the next bytes from the upstream, cut anywhere. The bytes may not change afterwards. */
  push(bytes: Uint8Array): StreamOutput;
  /** The upstream's body has ended. A last event without its empty line still counts if it is whole. */
  end(): StreamOutput;
  /** What the stream has said and shown so far. */
  readonly said: Said & SeenOutput;
  /** Why it ended, as the event repeats it. */
  finish(): string;
  /** Its proper end has come. It and all after it are held back: {@link terminator} goes out when the usage is durable. */
  readonly done: boolean;
  /** Nothing is missing but the proper end. */
  readonly isComplete: boolean;
  /** The memory that an event takes which has begun and is not whole. */
  readonly heldBytes: number;
  readonly terminator: string;
}
