/** A proof: a test file, and a part of the name of the test in it that must notice. */
export interface Proof {
  readonly file: string;
  readonly test: string;
}

/** One way to break a promise, as a patch to one place of the product, and the test that must turn red. */
export interface Mutant {
  readonly name: string;
  /** What then goes wrong. */
  readonly why: string;
  readonly file: string;
  /** Stands exactly once in the file. */
  readonly find: string;
  readonly replace: string;
  readonly proof: Proof;
}

const JOURNAL_TEST = "services/journal.test.ts";
const CHAT_TEST = "services/gateway/way/chat.test.ts";
const CHAT_LEDGER_TEST = "services/gateway/money/chat-ledger.test.ts";
const RETIRE_TEST = "services/ledger/retire.test.ts";
const RATE_WINDOW_TEST = "domain/accounts/rate-window.test.ts";
const STORE_TEST = "test/conformance/event-store/event-store.test.ts";
const AWAY_TEST = "services/ledger/away.test.ts";
const WAITING_TEST = "services/ledger/waiting.test.ts";
const ADOPTION_TEST = "services/ledger/adoption.test.ts";
const WANTED_TEST = "services/ledger/wanted.test.ts";
const SCENARIOS_TEST = "test/simulation/scenarios.test.ts";
const SIMULATION_TEST = "test/simulation/simulation.test.ts";

export const MUTANTS: readonly Mutant[] = [
  {
    name: "old-primary-goes-first",
    why: "whoever reaches the old primary stays there, and is fenced for ever or takes the other's place for ever",
    file: "infra/redis/primary.ts",
    find: "idBefore !== undefined && meant.includes(idBefore)",
    replace: "idBefore !== undefined && meant.length === 0",
    proof: { file: "infra/redis/primary.test.ts", test: "who was promoted in its place goes" },
  },
  {
    name: "chain-of-fail-overs-not-followed",
    why: "two fail-overs without a claim in between, and nobody is served until a person stops a server",
    file: "infra/redis/primary.ts",
    find: "primaries.every(({ idBefore }) => idBefore !== id)",
    replace: "id !== ''",
    proof: { file: "infra/redis/primary.test.ts", test: "that took the other's place" },
  },
  {
    name: "gateway-stays-where-it-is",
    why: "a gateway that knows the newest owner asks another server than the owner's, for ever",
    file: "services/gateway/money/writer.ts",
    find: "await admission.seek(owner.servers).catch(() => {});",
    replace: "",
    proof: {
      file: "services/gateway/money/writer.test.ts",
      test: "whoever reads the newest owner looks for its server",
    },
  },
  {
    name: "claims-where-it-happens-to-be",
    why: "two ledger processes on two servers take each other's place for ever",
    file: "services/ledger/owner.ts",
    find: "parts.admission.seek(before?.servers ?? [])",
    replace: "parts.admission.seek([])",
    proof: {
      file: "services/ledger/ledger.test.ts",
      test: "is claimed where the servers of the newest owner lead",
    },
  },
  {
    name: "no-fence",
    why: "a journal appends takings of an owner whose fence stands in it",
    file: "services/journal.ts",
    find: "entry.takingUnder < fencedBelow",
    replace: "entry.takingUnder < 0",
    proof: { file: JOURNAL_TEST, test: "takings of older owners are dropped" },
  },
  {
    name: "batch-cut-anew-after-unknown",
    why: "an append of unknown outcome is not repeated as it was, so a fact can stand twice",
    file: "services/journal.ts",
    find: "      mayBeWritten = true;\n",
    replace: "      queue.unshift(...batch);\n      return;\n",
    proof: { file: JOURNAL_TEST, test: "the identical call is repeated, and the fact stands once" },
  },
  {
    name: "refused-append-taken-as-written",
    why: "money is taken and the request forwarded although the store refused the event",
    file: "services/journal.ts",
    find: 'waiting.settle({ outcome: "dropped", why: "refused" });',
    replace: 'waiting.settle({ outcome: "recorded", position: 0n });',
    proof: { file: JOURNAL_TEST, test: "takings are dropped, ends are repeated until they are in" },
  },
  {
    name: "forward-before-durable",
    why: "the upstream is called while RequestAdmitted is still on its way to the disk",
    file: "services/gateway/money/hold.ts",
    find: "  const outcome = await within(parts.clock, RECORD_MS_MAX, recording);\n  const isRecorded",
    replace:
      '  const outcome = { outcome: "recorded", position: 0n } as Awaited<typeof recording> | typeof TIMED_OUT;\n  const isRecorded',
    proof: { file: CHAT_TEST, test: "nothing is forwarded before RequestAdmitted is durable" },
  },
  {
    name: "last-bytes-before-record",
    why: "the caller has the end of its answer before the usage is durable",
    file: "services/gateway/way/conclude.ts",
    find: "  const chargedMicro = await charge(call, { ...read, isTold: true });\n",
    replace:
      "  await call.answer.deliver(read.body);\n  const chargedMicro = await charge(call, { ...read, isTold: true });\n",
    proof: { file: CHAT_TEST, test: "not a byte of the answer goes out before UsageRecorded" },
  },
  {
    name: "close-before-append",
    why: "the rest of a hold is free for others while its charge may still be lost",
    file: "services/gateway/money/charge.ts",
    find: "    const outcome = await hold.journal.record({\n      events,",
    replace:
      "    await closeHold(hold, data.chargedMicro);\n    const outcome = await hold.journal.record({\n      events,",
    proof: { file: CHAT_LEDGER_TEST, test: "503 that is not to be repeated, charged later" },
  },
  {
    name: "late-usage-charged",
    why: "a gateway whose journal was sealed charges the customer in its next life all the same",
    file: "services/gateway/money/charge.ts",
    find: '      background(note(hold, "late", "UsageLate.v1", facts));\n      return undefined;\n',
    replace: `      await note(hold, "ended", "UsageRecorded.v1", data);
      return data.chargedMicro;
`,
    proof: { file: CHAT_LEDGER_TEST, test: "a UsageLate note, and nobody is charged" },
  },
  {
    name: "retire-without-seal",
    why: "the journals of dead writers are only fenced, and what they held stays held for ever",
    file: "services/ledger/retire.ts",
    find: 'if (decide(writerEpoch) === "seal") {',
    replace: "if (decide(writerEpoch) === undefined) {",
    proof: { file: RETIRE_TEST, test: "a dead writer is sealed, also one that never wrote" },
  },
  {
    name: "expiry-without-unbilled",
    why: "what the provider may bill for a call whose gateway died stands in no book",
    file: "services/ledger/retire.ts",
    find: "{ ...whose, holdMicro, unbilledMicro };",
    replace: "{ ...whose, holdMicro, unbilledMicro: 0 };",
    proof: { file: RETIRE_TEST, test: "every open hold expires once, with its own last word" },
  },
  {
    name: "charge-above-hold",
    why: "a customer is charged more than was held, so more than may be there",
    file: "services/gateway/money/charge.ts",
    find: "const chargedMicro = Math.min(sale.micro, hold.totalMicro);",
    replace: "const chargedMicro = sale.micro;",
    proof: { file: CHAT_TEST, test: "as far as the money goes; the rest is the company's" },
  },
  {
    name: "charged-at-another-price",
    why: "a charge is right by the prices that it carries, and they are not those of the version that it names",
    file: "services/gateway/way/conclude.ts",
    find: "prices: pricesAt(binding.price, serviceTier, totalInput(tokens)),",
    replace:
      "prices: { ...pricesAt(binding.price, serviceTier, 0), salePico: pricesAt(binding.price, serviceTier, 0).costPico },",
    proof: { file: "test/simulation/invariants.test.ts", test: "hold over a real history" },
  },
  {
    name: "too-large-never-told",
    why: "whoever gave an entry that no append can carry waits for its end for ever",
    file: "services/journal.ts",
    find: '    only.settle({ outcome: "too_large" });',
    replace: "",
    proof: { file: "services/journal-size.test.ts", test: "is too large by itself ends at once" },
  },
  {
    name: "window-in-the-future-kept",
    why: "a clock that jumped ahead and back limits keys until time has caught up",
    file: "domain/accounts/rate-window.ts",
    find: "if (ahead <= 0 && -ahead <= BUCKETS) return;",
    replace: "if (ahead <= 0) return;",
    proof: { file: RATE_WINDOW_TEST, test: "leaves nobody limited until time catches up" },
  },
  {
    name: "hold-kept-when-client-leaves",
    why: "a caller who leaves early keeps money held for ever",
    file: "services/gateway/way/conclude.ts",
    find: '      await release(call, "client_gone", { outcome: "aborted" }, totalCostMicro);\n',
    replace: "",
    proof: { file: CHAT_TEST, test: "ends the call, and is released" },
  },
  {
    name: "hold-without-output",
    why: "a hold covers the prompt only, so the answer can cost more than there is",
    file: "domain/hold.ts",
    find: "{ input: bounds.inputTokensBound, output: bounds.outputTokensBound }",
    replace: "{ input: bounds.inputTokensBound, output: 0 }",
    proof: { file: "domain/hold.test.ts", test: "a hold covers any usage within its bounds" },
  },
  {
    name: "rate-window-of-60-buckets",
    why: "more requests than the limit fit into one minute",
    file: "domain/accounts/rate-window.ts",
    find: "const BUCKETS = 61;",
    replace: "const BUCKETS = 60;",
    proof: { file: RATE_WINDOW_TEST, test: "late in its second is gone for all of a minute" },
  },
  {
    name: "synchronous-off",
    why: "an append is answered before it is on the disk",
    file: "infra/event-store/sqlite-file.ts",
    find: "PRAGMA synchronous = FULL",
    replace: "PRAGMA synchronous = OFF",
    proof: { file: STORE_TEST, test: "writes through a log that is synced on every commit" },
  },
  {
    name: "repeat-written-twice",
    why: "a repeat of an append whose answer was lost is written a second time",
    file: "infra/event-store/sqlite-core.ts",
    find: 'return repeatOf(stream, expected, rows) ?? { outcome: "conflict", actual };',
    replace:
      'return repeatOf(stream, expected, rows) ? { next: actual + 1 } : { outcome: "conflict", actual };',
    proof: { file: STORE_TEST, test: "answers an identical repeat as the first time" },
  },
  {
    name: "swept-once",
    why: "what a dead writer takes behind the sweep of its journal stays held for ever",
    file: "services/ledger/wanted.ts",
    find: "if (over && looks.hasAll(orgId)) await",
    replace: "if (asked.size < 0) await",
    proof: { file: SCENARIOS_TEST, test: "is swept whenever somebody comes upon it" },
  },
  {
    name: "swept-before-its-end",
    why: "a hold is freed whose recorded end still waits for its server, and its money is given twice",
    file: "services/ledger/sweeping.ts",
    find: ".filter(hasAll)",
    replace: "",
    proof: { file: WAITING_TEST, test: "a hold whose recorded end waits for its server" },
  },
  {
    name: "swept-before-its-end-by-a-look",
    why: "the same, by whoever comes upon the hold",
    file: "services/ledger/wanted.ts",
    find: "over && looks.hasAll(orgId)",
    replace: "over",
    proof: { file: "services/ledger/wanted.test.ts", test: "a sealed writer's holds are swept" },
  },
  {
    name: "revoked-and-away",
    why: "a revoked key takes money for as long as only the ledger does not reach its server",
    file: "services/ledger/carry.ts",
    find: "if (isRevocation && !dueMs.has(orgId))",
    replace: "if (isRevocation && dueMs.has(orgId))",
    proof: { file: WAITING_TEST, test: "a revocation waits five seconds for its server" },
  },
  {
    name: "caught-up-beside-itself",
    why: "of two that give an organization what waits for it, one takes away what the other has yet to give",
    file: "services/ledger/carry.ts",
    find: "catchingUp ??= catchUpAll()",
    replace: "catchingUp = catchUpAll()",
    proof: { file: WAITING_TEST, test: "what waits is given to a server once at a time" },
  },
  {
    name: "carried-beside-itself",
    why: "a batch that failed half-way is carried again while its first carry still runs",
    file: "services/ledger/carry.ts",
    find: "await allDone(",
    replace: "await Promise.all(",
    proof: { file: WAITING_TEST, test: "a batch that failed half-way" },
  },
  {
    name: "taken-without-a-look",
    why: "a gateway that was stopped past its seal takes money before it learns of it",
    file: "services/gateway/money/hold.ts",
    find: "if (!journal.isFresh() &&",
    replace: "if (journal.isFull() &&",
    proof: { file: SCENARIOS_TEST, test: "forwards nothing and keeps nothing held" },
  },
  {
    name: "live-writers-swept",
    why: "the holds of a writer that is only slow are given to others while its event is on its way",
    file: "services/ledger/wanted.ts",
    find: "return isSealed && last !== undefined && to",
    replace: "return last !== undefined && to",
    proof: { file: WANTED_TEST, test: "a live writer's hold is never swept" },
  },
  {
    name: "fence-without-effect",
    why: "the admission store lets money be taken under an owner that is over",
    file: "domain/accounts/admission.ts",
    find: 'if (org.ownerEpoch !== ownerEpoch) return fenced("older");',
    replace: "",
    proof: { file: SIMULATION_TEST, test: "seeds 1 to 60 keep" },
  },
  {
    name: "adopted-without-the-marks",
    why: "an organization is adopted as it was before the takings of older owners were folded",
    file: "services/ledger/owner.ts",
    find: 'parts.projector.rows("accounts", mark, [])',
    replace: 'parts.projector.rows("accounts", mark && "start", [])',
    proof: { file: ADOPTION_TEST, test: "until the fence is in every adoption" },
  },
  {
    name: "adopted-twice",
    why: "an organization is put in place again under its owner, and what was taken meanwhile is there once more",
    file: "services/ledger/adoption.ts",
    find: "let adopting = begun.get(orgId);",
    replace: "let adopting: Promise<boolean> | undefined;",
    proof: { file: ADOPTION_TEST, test: "each comes in once" },
  },
  {
    name: "adopted-again-after-a-flush",
    why: "a server that lost its memory is filled again under the owner whose takings it lost",
    file: "services/ledger/wanted.ts",
    find: 'found.fenced === "server")) onMissed(orgId);',
    replace:
      'found.fenced === "server")) { (adoption.orgs as Map<string, bigint>).delete(orgId); await adoption.wantAll([orgId]); }',
    proof: { file: ADOPTION_TEST, test: "so does one that is gone after it" },
  },
  {
    name: "applied-before-adopted",
    why: "an event is carried past an organization that is not in yet",
    file: "services/ledger/carry.ts",
    find: "while (!(await adoption.want(orgId))) if (adoption.passBy(orgId, to)) return;",
    replace: "if (adoption.orgs.size < 0) return;",
    proof: { file: AWAY_TEST, test: "an event that passes by one that is out is waited for" },
  },
  {
    name: "passed-by-and-forgotten",
    why: "an organization whose server was away comes back without what was recorded meanwhile",
    file: "services/ledger/adoption.ts",
    find: 'if (passedTo === "start" || to > passedTo) passedTo = to;',
    replace: "",
    proof: { file: AWAY_TEST, test: "an event that passes by one that is out is waited for" },
  },
  {
    name: "adopted-again-unanswered",
    why: "an adoption that may have come about is sent a second time under its owner, over what was taken since",
    file: "services/ledger/adoption.ts",
    find: 'if (answer?.fenced !== "away") lose(orgId);',
    replace: 'if (answer && answer.fenced !== "away") lose(orgId);',
    proof: { file: ADOPTION_TEST, test: "an adoption of unknown outcome leads to a new claim" },
  },
  {
    name: "forgotten-before-stored",
    why: "the accounts go on from what was stored before the last events of an organization",
    file: "projections/accounts.ts",
    find: "orgs.size <= orgsMax || org.changed",
    replace: "orgs.size <= orgsMax",
    proof: { file: "projections/accounts.test.ts", test: "organizations in memory give the same" },
  },
  {
    name: "filled-though-lost",
    why: "a key that a server lost while the directory was filled is refused for good",
    file: "infra/key-directory/memory.ts",
    find: "if (ownerEpoch === marked.ownerEpoch) marked",
    replace: "if (ownerEpoch >= marked.ownerEpoch) marked",
    proof: {
      file: "test/conformance/key-directory.test.ts",
      test: "nobody has filled what it did not begin to fill",
    },
  },
  {
    name: "freed-before-recorded",
    why: "a released hold is free for others while its end may still not be written",
    file: "services/gateway/money/hold.ts",
    find: "  hold.isEnding = true;\n  const outcome = await hold.journal.record({ events: [event] });\n",
    replace:
      "  hold.isEnding = true;\n  await closeHold(hold, 0);\n  const outcome = await hold.journal.record({ events: [event] });\n",
    proof: { file: SIMULATION_TEST, test: "seeds 1 to 60 keep" },
  },
];
