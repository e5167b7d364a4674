import { createMemoryAdmission } from "#infra/admission/memory.ts";
import { manualClock } from "#test/manual-clock.ts";
import { admissionHoldsSuite } from "./admission-holds-suite.ts";
import { admissionStoreSuite, type AdmissionStoreUnderTest } from "./admission-store-suite.ts";
import { admissionWantedSuite } from "./admission-wanted-suite.ts";

async function makeMemory(): Promise<AdmissionStoreUnderTest> {
  const clock = manualClock();
  let starts = 0;
  const start = () => createMemoryAdmission({ clock, server: `server-${(starts += 1)}` });
  return {
    store: start(),
    clock,
    clockMoves: true,
    restart: async () => start(),
    cleanUp: async () => undefined,
  };
}

admissionStoreSuite("memory", makeMemory);
admissionHoldsSuite("memory", makeMemory);
admissionWantedSuite("memory", makeMemory);
