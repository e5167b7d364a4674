import { makeKeyText, parseKeyText } from "#domain/key-text.ts";
import type { Control } from "#services/control/commands.ts";
import type { ApiError } from "#services/errors.ts";
import type { Random } from "#services/ports.ts";

/** The demo organization: what a first start has to show, and what every later one finds again. */
export interface Demo {
  readonly organizationId: string;
  /** The key's text, or undefined when it is not known any more. */
  readonly keyText: string | undefined;
  /** True at the start that issued the key. */
  readonly isNew: boolean;
}

/** Where the demo key's text is kept, readable for its owner only. */
export interface DemoFile {
  read(): string | undefined;
  /** Durable when it returns. */
  write(text: string): void;
}

const CREDIT_MICRO = 10_000_000;

/**
 * Completes the demo organization, its $10.00 and its key. Every step has a fixed idempotency key, so a start that was
 * killed half-way is completed by the next one, and nothing is made twice. The key's text is in its file before
 * KeyIssued is recorded: a key that works can always be found there.
 */
export async function completeDemo(
  control: Control,
  options: { region: string; random: Random; file: DemoFile; baseUrl: string },
): Promise<Demo> {
  const { region, random, file, baseUrl } = options;
  const organization = done(
    await control.createOrganization(
      { name: "Demo" },
      { idempotencyKey: "relai-demo-organization" },
    ),
  );
  const organizationId = organization.value.id;
  done(
    await control.addCredit(
      organizationId,
      { amountMicro: CREDIT_MICRO },
      { idempotencyKey: "relai-demo-credit" },
    ),
  );
  const known = keyTextIn(file.read());
  const keyText = known ?? makeKeyText(region, (count) => random.bytes(count));
  file.write(demoEnv(keyText, baseUrl));
  const issued = done(
    await control.issueKey(
      organizationId,
      { name: "demo" },
      { idempotencyKey: "relai-demo-key", keyText },
    ),
  );
  if (issued.isThisText) return { organizationId, keyText, isNew: !issued.replayed };
  // The key was issued in an earlier life of the folder, and its file is gone: its text cannot be shown again.
  file.write(demoEnv(undefined, baseUrl));
  return { organizationId, keyText: undefined, isNew: false };
}

function done<T extends { readonly ok: true } | { readonly ok: false; readonly error: ApiError }>(
  outcome: T,
): Extract<T, { ok: true }> {
  if (outcome.ok) return outcome as Extract<T, { ok: true }>;
  throw new Error(
    `the demo organization could not be completed: ${outcome.error.message ?? outcome.error.code}`,
  );
}

function keyTextIn(text: string | undefined): string | undefined {
  const found = /^export OPENAI_API_KEY=(\S+)$/m.exec(text ?? "")?.[1];
  return found !== undefined && parseKeyText(found).ok ? found : undefined;
}

function demoEnv(keyText: string | undefined, baseUrl: string): string {
  const lines = [
    "# The demo organization's key, for any OpenAI client: source this file, then run it.",
    "# Made by relai at its first start. Treat it like a password.",
    `export OPENAI_BASE_URL=${baseUrl}/v1`,
  ];
  if (keyText === undefined)
    lines.push("# The key's text is not known any more: make a new one with `relai key create`.");
  else lines.push(`export OPENAI_API_KEY=${keyText}`);
  return `${lines.join("\n")}\n`;
}
