import { exampleOf } from "./schema-example.ts";
import type { ChatRequest } from "./request.ts";
import { NO_COUNTS, type Counts } from "./usage.ts";

/** What every choice of an answer says. */
export interface Said {
  /** The text, or the JSON of a structured answer; not said where there are tool calls. */
  readonly pieces: Pieces;
  readonly toolCalls: readonly { readonly name: string; readonly arguments: string }[];
  readonly finish: "stop" | "length" | "tool_calls";
  readonly counts: Counts;
}

/** Pieces of text that stand for a token each. */
interface Pieces {
  readonly count: number;
  /** The pieces from `from` up to, not including, `to`, joined. */
  text(from: number, to: number): string;
}

/** Past this many tokens an answer still counts more of them, but says no more. */
const TOKENS_SAID_MAX = 16_384;

/** The words, tool calls and counts of an answer. A directive wins over the caller's output cap, the default obeys it. */
export function whatIsSaid(request: ChatRequest): Said {
  const { choices } = request;
  const { chunks = 0, counts: told } = request.directives;
  const counts = { ...NO_COUNTS, input: request.inputTokens, ...told };
  const cap = request.outputTokensCap ?? Infinity;
  const toolCalls = toolCallsOf(request);
  const all = allPieces(request);
  const unheard = counts.reasoning + counts.audioOut;
  const wanted = toolCalls.length > 0 ? tokensOf(toolCalls) : Math.max(all.count, chunks);
  const spoken = Math.min(wanted, cap);
  const output = told.output ?? Math.min(spoken * choices + unheard, cap * choices);
  const heard =
    told.output === undefined ? spoken : Math.ceil(Math.max(0, output - unheard) / choices);
  const cutShort = told.output === undefined ? wanted > cap : output >= cap * choices;
  return {
    pieces: { count: piecesSaid(request, all, heard), text: all.text },
    toolCalls,
    finish: toolCalls.length > 0 ? "tool_calls" : cutShort ? "length" : "stop",
    counts: { ...counts, output },
  };
}

/** How many pieces each choice says. JSON is cut by the caller's cap only, and not because a directive counts it otherwise. */
function piecesSaid(request: ChatRequest, all: AllPieces, heard: number): number {
  const { chunks = 0, counts } = request.directives;
  const most = all.repeats ? TOKENS_SAID_MAX : all.count;
  const said = all.repeats || counts.output === undefined ? Math.min(heard, most) : all.count;
  return Math.max(said, chunks);
}

function tokensOf(toolCalls: Said["toolCalls"]): number {
  return toolCalls.reduce((sum, call) => sum + tokenise(call.name + call.arguments).length, 0);
}

interface AllPieces extends Pieces {
  /** When more is wanted, it goes round again. */
  readonly repeats: boolean;
}

/** The friendly text, which goes round again when more is wanted, or the JSON that was asked for, which does not. */
function allPieces(request: ChatRequest): AllPieces {
  const json =
    request.jsonSchema === undefined ? undefined : JSON.stringify(exampleOf(request.jsonSchema));
  const pieces = tokenise(json ?? friendlyText(request));
  const repeats = json === undefined;
  const piece = (at: number): string => {
    const text = pieces[at % pieces.length] ?? "";
    if (at < pieces.length) return text;
    return repeats ? (at % pieces.length === 0 ? ` ${text}` : text) : "";
  };
  const text = (from: number, to: number): string => {
    let sum = "";
    for (let at = from; at < to; at += 1) sum += piece(at);
    return sum;
  };
  return { count: pieces.length, repeats, text };
}

/** Says what the request looked like and nothing of what it said. */
function friendlyText(request: ChatRequest): string {
  const count = (number: number, noun: string): string =>
    `${number} ${noun}${number === 1 ? "" : "s"}`;
  const images = request.images > 0 ? `, with ${count(request.images, "image")}` : "";
  return (
    `Hello! This is the simulated model ${request.model}. ` +
    `You sent ${count(request.messages, "message")} of ${count(request.textBytes, "byte")}${images}; all of it arrived.`
  );
}

/** Cuts a text into pieces that stand for tokens: at most eight characters, spaces before a word go with it. */
export function tokenise(text: string): readonly string[] {
  return text.match(/\s{0,8}\S{1,8}|\s{1,8}/gu) ?? [];
}

function toolCallsOf(request: ChatRequest): Said["toolCalls"] {
  const { toolWanted, tools } = request;
  const wanted = typeof toolWanted === "object" ? toolWanted.name : undefined;
  const named = tools.find((tool) => tool.name === wanted);
  const offered = named ? [named] : tools;
  const count = request.directives.tool ?? (toolWanted !== undefined && offered.length > 0 ? 1 : 0);
  return Array.from({ length: count }, (_, index) => {
    const tool = offered[index % offered.length] ?? { name: "simulated_tool" };
    return { name: tool.name, arguments: JSON.stringify(exampleOf(tool.parameters) ?? {}) };
  });
}
