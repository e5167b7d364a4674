import type { Price } from "#domain/prices.ts";

/** A model that applications name in `model`. Token figures are bounds that holds rest on. */
export interface Model {
  readonly id: string;
  /** The family's owner as OpenAI's model list shows it in `owned_by`. */
  readonly ownedBy: string;
  /** Unix seconds, as OpenAI's model list shows it in `created`. */
  readonly createdUnix: number;
  readonly operation: Operation;
  readonly contextWindowTokens: number;
  readonly outputTokensMax: number;
  /** The output cap set upstream when the caller gives none: min(outputTokensMax, 16,384). */
  readonly outputTokensDefault: number;
  /** The most input tokens one image can cost; undefined when the model takes no images. */
  readonly imageTokensMax?: number;
}

/** What a model is asked to do, and so by which routes. */
export type Operation = "chat" | "embeddings";

/** The name under which a binding's upstream knows the output cap. */
export type OutputCapName = "max_tokens" | "max_completion_tokens";

/** An upstream endpoint: a provider's API surface in one place. Its base URL and credential come from the settings. */
export interface Host {
  readonly slug: string;
  /** Where the upstream may process: `us`, `eu`, … or `global`. */
  readonly processingArea: string;
  /**
   * True at OpenAI itself: a request that names no service tier is sent with `default`. Elsewhere the name may be
   * unknown, so such a request goes as it came and may be served at any tier, as the upstream's account is set.
   */
  readonly pinsServiceTier: boolean;
}

/** Model × host, with the name and the price the model has there. */
export interface Binding {
  /** `<model>@<host>` */
  readonly id: string;
  readonly model: Model;
  readonly host: Host;
  readonly upstreamModel: string;
  readonly outputCapName: OutputCapName;
  /** `<data version>:<binding id>` */
  readonly priceVersion: string;
  readonly price: Price;
}

/** An immutable snapshot of one area: what can be asked for, where it runs, and what it costs. */
export interface Catalogue {
  readonly dataVersion: string;
  /**
   * By the names of the models that can be asked for here: each one's bindings, in order of preference; only of hosts
   * that are configured and process in exactly this area. `us` never falls back to `global` nor `global` to `us`.
   */
  readonly bindings: ReadonlyMap<string, readonly Binding[]>;
  /** The same bindings by what their hosts call the model. */
  readonly byUpstreamModel: ReadonlyMap<string, readonly Binding[]>;
}
