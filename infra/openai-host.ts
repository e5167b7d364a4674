import type { HostFacts } from "#domain/catalogue/build.ts";
import { ConfigError, isThisMachine, type Config } from "./config.ts";

/** OpenAI's own addresses: the plain one processes in the United States, a regional one where it says. */
const OPENAI = /^(?:([a-z]{2})\.)?api\.openai\.com$/u;

/**
 * What the settings say of the host behind `OPENAI_BASE_URL`; undefined without a credential for it. The area is a
 * promise to customers and stands in every event, so it is never guessed: OpenAI's own addresses name it, an address of
 * this machine is in the region unless `OPENAI_AREA` says otherwise, and for any other address that setting must be
 * there. Throws `ConfigError` when it is not, or when it contradicts OpenAI's address.
 */
export function openaiHostOf(config: Config, region: string): HostFacts | undefined {
  if (config.openaiApiKey === undefined) return undefined;
  const { hostname } = new URL(config.openaiBaseUrl);
  const { openaiArea } = config;
  const own = OPENAI.exec(hostname);
  if (own) {
    const [, processingArea = "us"] = own;
    if (openaiArea === undefined || openaiArea === processingArea)
      return { processingArea, pinsServiceTier: true };
    throw new ConfigError(
      `OPENAI_AREA is "${openaiArea}" but must be "${processingArea}", where ${hostname} processes; it can be left out.`,
    );
  }
  const processingArea = openaiArea ?? (isThisMachine(hostname) ? region : undefined);
  if (processingArea !== undefined) return { processingArea, pinsServiceTier: false };
  throw new ConfigError(
    `OPENAI_AREA must say where ${hostname} processes, such as us, eu or global: a region serves only hosts of its own area, and this one is ${region}.`,
  );
}
