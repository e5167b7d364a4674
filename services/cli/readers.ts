import { z } from "zod";
import { eachCount } from "#services/control/bodies.ts";
import { CliError } from "./world.ts";

/** What the command line reads of the control API's objects. Members that it does not know are left to `--json`. */

const ORGANIZATION = z.object({
  id: z.string(),
  name: z.string(),
  home_region: z.string(),
  created_at: z.string(),
});
const CREDIT = z.object({ id: z.string(), organization: z.string(), amount_dollars: z.string() });
const KEY = z.object({
  id: z.string(),
  organization: z.string(),
  name: z.string().nullable(),
  display_prefix: z.string(),
  ...eachCount(() => z.number().nullable()),
  budget_dollars: z.string().nullable(),
  expires_at: z.string().nullable(),
  created_at: z.string(),
  revoked_at: z.string().nullable(),
});
const BALANCE = z.object({
  organization: z.string(),
  credits_dollars: z.string(),
  held_dollars: z.string(),
  available_dollars: z.string(),
  as_of: z.string(),
});
const PROGRESS = z.object({
  projection: z.string(),
  events_done: z.number(),
  position: z.string(),
  head: z.string(),
});
const REPLAYED = z.object({ done: z.literal(true), data: z.array(PROGRESS) });

const LIST = z.object({
  object: z.literal("list"),
  data: z.array(z.looseObject({ id: z.string() })),
  last_id: z.string().nullable(),
  has_more: z.boolean(),
});

export type KeySeen = z.infer<typeof KEY>;

function reader<T>(schema: z.ZodType<T>): (answer: unknown) => T {
  return (answer) => {
    const known = schema.safeParse(answer);
    if (known.success) return known.data;
    throw new CliError(2, "the running process answers in a way that this version does not know");
  };
}

/** Reads an answer, or throws {@link CliError} for one that this version does not know. */
export const read = {
  organization: reader(ORGANIZATION),
  credit: reader(CREDIT),
  key: reader(KEY),
  issuedKey: reader(KEY.extend({ key: z.string().nullable() })),
  balance: reader(BALANCE),
  replayLine: reader(z.union([REPLAYED, PROGRESS])),
  list: reader(LIST),
};
