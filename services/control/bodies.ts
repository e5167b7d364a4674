import { z } from "zod";
import { sha256Hex } from "#domain/hash.ts";
import { KEY_COUNTS, type KeyLimits } from "#domain/key-limits.ts";
import { isMicro, parseDollars } from "#domain/money.ts";
import { normaliseName } from "#domain/name.ts";
import type { ApiError } from "#services/errors.ts";
import { NumberText } from "./json.ts";

/** What the control API's requests may say: strict, and with messages that tell how it should be. */

const NAMES_SHOWN_MAX = 5;

type CountLimit = keyof typeof KEY_COUNTS.shape;

/** What a key's limits that are a number are called by the API; `says` ends the sentence "at most so many …". */
const WORDS = {
  rpm: { member: "rpm", says: "requests per minute" },
} as const satisfies Record<CountLimit, { member: string; says: string }>;

export interface Count {
  readonly limit: CountLimit;
  readonly member: (typeof WORDS)[CountLimit]["member"];
  readonly says: string;
  /** Of the command line, whose library gives what was set by it under the limit's own name. */
  readonly flag: string;
}
export const COUNTS: readonly Count[] = Object.entries(WORDS).map(([limit, words]) => ({
  limit: limit as CountLimit,
  flag: `--${limit.replaceAll(/[A-Z]/g, (capital) => `-${capital.toLowerCase()}`)}`,
  ...words,
}));

/** An object with a member for each of these limits, by the API's names. */
export function eachCount<T>(make: (count: Count) => T): Record<Count["member"], T> {
  const members = COUNTS.map((count) => [count.member, make(count)]);
  return Object.fromEntries(members) as Record<Count["member"], T>;
}

/** What such a limit may be set to, as a schema and as the end of a sentence. */
export function boundsOf({ limit }: Count) {
  const schema = KEY_COUNTS.shape[limit].unwrap();
  return { schema, rule: `must be a whole number from ${schema.minValue} to ${schema.maxValue}` };
}

/** A member with a rule: `read` gives its value, or undefined when it is refused. */
function member<T>(allowed: string, read: (value: unknown) => T | undefined) {
  return z.unknown().transform((value, context): T => {
    const result = read(value);
    if (result !== undefined) return result;
    context.addIssue({ code: "custom", message: allowed });
    return z.NEVER;
  });
}

/** A member that may be left out or null. */
function optional<T>(allowed: string, read: (value: unknown) => T | undefined) {
  return member<T | null>(allowed, (value) =>
    value === undefined || value === null ? null : read(value),
  ).optional();
}

const readName = (value: unknown) => (typeof value === "string" ? normaliseName(value) : undefined);

function readDollars(value: unknown): number | undefined {
  if (value instanceof NumberText) return parseDollars(value.text);
  return typeof value === "string" ? parseDollars(value) : undefined;
}

function readWhole(value: unknown): number | undefined {
  if (!(value instanceof NumberText) || !/^(0|[1-9]\d{0,15})$/.test(value.text)) return undefined;
  const whole = Number(value.text);
  return isMicro(whole) ? whole : undefined;
}

function countMember(count: Count) {
  const { schema, rule } = boundsOf(count);
  return optional(rule, (value) => schema.safeParse(readWhole(value)).data);
}

const INSTANT = z.union([z.iso.datetime({ offset: true }), z.iso.date()]);

/** Milliseconds; a date without a time is its first moment in UTC. */
function readInstant(value: unknown): number | undefined {
  const text = INSTANT.safeParse(value);
  if (!text.success) return undefined;
  const atMs = Date.parse(text.data);
  return Number.isSafeInteger(atMs) && atMs >= 0 ? atMs : undefined;
}

const NAME_RULE = "must be a text of 1 to 256 characters without control characters";
const DOLLARS_RULE =
  'must be an amount in dollars such as "25.00": digits with at most six decimals, without sign or exponent';
const MICRO_RULE = "must be a whole number of micro-dollars, at most 9007199254740991";
const INSTANT_RULE = 'must be a time in ISO 8601 such as "2027-01-31T12:00:00Z", or a date';

const ORGANIZATION = z.strictObject({ name: member(NAME_RULE, readName) });
const CREDIT = z.strictObject({
  amount_dollars: optional(DOLLARS_RULE, readDollars),
  amount_micro: optional(MICRO_RULE, readWhole),
});
const KEY = z.strictObject({
  name: optional(NAME_RULE, readName),
  ...eachCount(countMember),
  budget_dollars: optional(DOLLARS_RULE, readDollars),
  budget_micro: optional(MICRO_RULE, readWhole),
  expires_at: optional(INSTANT_RULE, readInstant),
});
const readText = (value: unknown) =>
  typeof value === "string" && value.length <= 64 ? value : undefined;
const REPLAY = z.strictObject({
  projection: optional("must be the name of a read model", readText),
  from: optional('must be "start" or 0: a read model is rebuilt from the first event', (value) =>
    value === "start" || (value instanceof NumberText && value.text === "0") ? "start" : undefined,
  ),
});

/** A body as it was understood, or why it was not. */
export type Read<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: ApiError };

export type KeyBody = KeyLimits & { readonly name?: string };

/** `POST /v1/orgs` */
export function readNameBody(body: unknown): Read<{ name: string }> {
  return readBody(ORGANIZATION, body);
}

/** `POST /v1/orgs/{id}/credits`: exactly one of the two amounts. */
export function readCreditBody(body: unknown): Read<{ amountMicro: number }> {
  const read = readBody(CREDIT, body);
  if (!read.ok) return read;
  const amount = oneAmount("amount", read.value.amount_dollars, read.value.amount_micro);
  if (!amount.ok) return amount;
  if (amount.value === undefined)
    return invalid("'amount_dollars' or 'amount_micro' must be given", "amount_dollars");
  return { ok: true, value: { amountMicro: amount.value } };
}

/** `POST /v1/orgs/{id}/keys` */
export function readKeyBody(body: unknown): Read<KeyBody> {
  const read = readBody(KEY, body);
  if (!read.ok) return read;
  const { name, budget_dollars, budget_micro, expires_at, ...given } = read.value;
  const budget = oneAmount("budget", budget_dollars, budget_micro);
  if (!budget.ok) return budget;
  const counts: Partial<Record<CountLimit, number>> = {};
  for (const { limit, member } of COUNTS)
    if (typeof given[member] === "number") counts[limit] = given[member];
  return {
    ok: true,
    value: {
      ...(typeof name === "string" && { name }),
      ...counts,
      ...(budget.value !== undefined && { budgetMicro: budget.value }),
      ...(typeof expires_at === "number" && { expiresAtMs: expires_at }),
    },
  };
}

/** `POST /v1/replay`; no body at all means every read model. */
export function readReplayBody(body: unknown): Read<{ projection: string | undefined }> {
  const read = readBody(REPLAY, body ?? {});
  return read.ok ? { ok: true, value: { projection: read.value.projection ?? undefined } } : read;
}

/** Identifies what a command says, whatever way it was written: a repeat must say the same. */
export function bodySha256Of(kind: string, values: Readonly<Record<string, unknown>>): string {
  return sha256Hex(JSON.stringify([kind, ...Object.entries(values).sort(byName)]));
}

function byName([one]: [string, unknown], [other]: [string, unknown]): number {
  return one < other ? -1 : 1;
}

function oneAmount(
  what: string,
  dollarsMicro: number | null | undefined,
  micro: number | null | undefined,
): Read<number | undefined> {
  if (typeof dollarsMicro === "number" && typeof micro === "number") {
    return invalid(`give either '${what}_dollars' or '${what}_micro', not both`, `${what}_dollars`);
  }
  return { ok: true, value: dollarsMicro ?? micro ?? undefined };
}

function readBody<T>(schema: z.ZodType<T>, body: unknown): Read<T> {
  const isObject = typeof body === "object" && body !== null && !(body instanceof NumberText);
  if (!isObject || Array.isArray(body)) return invalid("Send a JSON object as the body", null);
  const parsed = schema.safeParse(body);
  if (parsed.success) return { ok: true, value: parsed.data };
  const [issue] = parsed.error.issues;
  if (issue?.code === "unrecognized_keys") {
    const names = issue.keys.slice(0, NAMES_SHOWN_MAX).map(showable).join(", ");
    return invalid(`Unknown member of the body: ${names}`, null);
  }
  const name = String(issue?.path[0] ?? "");
  return invalid(`'${name}' ${issue?.message ?? "is not valid"}`, name);
}

/** The name of a member or parameter as an error may quote it: a credential in the wrong place is not shown. */
export function showable(name: string): string {
  return /^[\w.-]{1,64}$/.test(name) && !/sk[-_]|rk-/.test(name)
    ? `'${name}'`
    : "one whose name is not shown here";
}

/** An `invalid_request` with its sentence. */
export function invalid(
  message: string,
  param: string | null,
): { readonly ok: false; readonly error: ApiError } {
  return { ok: false, error: { code: "invalid_request", message, param } };
}
