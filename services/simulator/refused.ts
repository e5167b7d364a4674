/** The simulator's own refusal of a request, thrown: the message and status of the error that the caller gets. */
export class Refused extends Error {
  override readonly name = "Refused";
  readonly status: number;
  /** The member of the request that is wrong. */
  readonly param: string | null;

  constructor(message: string, about: { status?: number; param?: string | null } = {}) {
    super(message);
    this.status = about.status ?? 400;
    this.param = about.param ?? null;
  }
}
