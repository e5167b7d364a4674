import type { FiguresAsk, FiguresOutcome } from "#domain/accounts/admission-types.ts";
import type { AdmissionStore, Clock } from "./ports.ts";
import { backOffMs, sleep } from "./waiting.ts";

/** An organization that is not in yet is waited for so long, as a request would. */
const MISSED_MS_MAX = 1000;

/** The figures that people read; of an organization that exists and is not in yet, or not where it is now, once it is. */
export async function figuresOnceIn(
  { admission, clock }: { admission: Pick<AdmissionStore, "figures" | "want">; clock: Clock },
  ask: FiguresAsk,
): Promise<FiguresOutcome> {
  const begun = clock.elapsed();
  for (let attempt = 0; ; attempt++) {
    const found = await admission.figures(ask);
    const isMissed =
      found.outcome === "fenced" && (found.fenced === "absent" || found.fenced === "server");
    if (!isMissed) return found;
    if (clock.elapsed() - begun >= MISSED_MS_MAX) return found;
    await admission.want(ask.orgId).catch(() => {});
    await sleep(clock, backOffMs(attempt, 10, 200));
  }
}
