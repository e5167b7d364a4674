import { newEvent, streams, type NewEvent } from "#domain/events/events.ts";
import { sha256Hex } from "#domain/hash.ts";
import { ID_RANDOM_BYTES, makeId } from "#domain/ids.ts";
import { storedLimits, type KeyLimits } from "#domain/key-limits.ts";
import { displayKey, makeKeyText } from "#domain/key-text.ts";
import type { EventMetadata } from "#domain/events/schemas.ts";
import { BEGIN_MS } from "./process.ts";
import { REGION } from "./processes.ts";
import { randomFrom } from "./random.ts";
import type { World } from "./world.ts";

export interface SimKey {
  readonly keyId: string;
  readonly text: string;
  readonly rpm: number | undefined;
  revoked: boolean;
}

export interface SimOrg {
  readonly orgId: string;
  readonly keys: SimKey[];
}

/** What the control plane would record: organizations, top-ups, keys. The commands themselves are not simulated. */
export interface Customers {
  readonly orgs: readonly SimOrg[];
  create(balanceMicro: number): SimOrg;
  topUp(org: SimOrg, amountMicro: number): void;
  issueKey(org: SimOrg, limits?: KeyLimits): SimKey;
  revoke(org: SimOrg, key: SimKey): void;
}

export function createCustomers(world: World): Customers {
  const random = randomFrom(world.dice("customers"));
  const tails = new Map<string, bigint>();
  const orgs: SimOrg[] = [];
  const bodySha256 = sha256Hex("");

  const metadata = (): EventMetadata => ({
    at: Math.floor(BEGIN_MS + world.timeline.nowMs()),
    region: REGION,
    actor: "control",
    $correlationId: "simulation",
    schema: 1,
  });
  const newId = (prefix: "org" | "key" | "lot") =>
    makeId(prefix, BEGIN_MS, random.bytes(ID_RANDOM_BYTES));

  function record(stream: string, event: NewEvent): void {
    const tail = tails.get(stream);
    tails.set(stream, tail === undefined ? 0n : tail + 1n);
    void world.servers.store.append(stream, [event], tail ?? "no_stream").then((answer) => {
      if (answer.outcome !== "appended") throw new Error(`${stream}: ${answer.outcome}`);
    });
  }

  function topUp(org: SimOrg, amountMicro: number): void {
    const stream = streams.org(org.orgId);
    const topUpId = newId("lot");
    const facts = { source: "manual", pot: "paid", bodySha256 } as const;
    const data = { orgId: org.orgId, topUpId, amountMicro, ...facts };
    record(stream, newEvent(stream, `credited:${topUpId}`, "CreditToppedUp.v1", data, metadata()));
  }

  return {
    orgs,
    topUp,
    create(balanceMicro) {
      const org: SimOrg = { orgId: newId("org"), keys: [] };
      const stream = streams.org(org.orgId);
      const data = { orgId: org.orgId, name: "simulated", homeRegion: REGION, bodySha256 };
      record(stream, newEvent(stream, "created", "OrganizationCreated.v1", data, metadata()));
      if (balanceMicro > 0) topUp(org, balanceMicro);
      orgs.push(org);
      return org;
    },
    issueKey(org, limits = {}) {
      const text = makeKeyText(REGION, (count) => random.bytes(count));
      const key: SimKey = { keyId: newId("key"), text, rpm: limits.rpm, revoked: false };
      const stream = streams.key(key.keyId);
      const data = {
        keyId: key.keyId,
        orgId: org.orgId,
        scope: "regional" as const,
        homeRegion: REGION,
        name: "",
        tokenHash: sha256Hex(text),
        displayPrefix: displayKey(text),
        ...storedLimits(limits),
        bodySha256,
      };
      record(stream, newEvent(stream, "issued", "KeyIssued.v1", data, metadata()));
      org.keys.push(key);
      return key;
    },
    revoke(org, key) {
      key.revoked = true;
      const stream = streams.key(key.keyId);
      const data = { keyId: key.keyId, orgId: org.orgId, tokenHash: sha256Hex(key.text) };
      record(stream, newEvent(stream, "revoked", "KeyRevoked.v1", data, metadata()));
    },
  };
}
