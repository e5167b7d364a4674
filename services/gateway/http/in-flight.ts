/** What the bodies of one organization, or its answers, take of the room that all share. */
export interface InFlight {
  /**
   * Takes room for so many bytes of a body or answer that has `wholeBytes` with them; false when there is none, and
   * nothing was taken. A part of the room is for small ones: whoever sends large bodies does not shut out the rest.
   */
  take(bytes: number, wholeBytes?: number): boolean;
  /** Gives back so many bytes that were taken. */
  give(bytes: number): void;
}

const SMALL_BYTES_MAX = 64 * 1024;
/** The parts of a room that large ones and bodies may not take. */
const FOR_SMALL = 1 / 8;
const FOR_ANSWERS = 1 / 4;
/** The part of the room that one organization may take. */
const OF_ONE = 1 / 4;

/** What is held, by all together or by one organization: bodies, and bodies and answers. */
interface Held {
  bodies: number;
  all: number;
}

/**
 * The bytes of bodies and answers that this process holds at a moment; beyond the bound new ones are refused, not queued.
 *
 * The room is `bytesMax`, and one organization may take a quarter of it. Room and quarter are divided alike: an eighth
 * is not for large ones, and a quarter is not for bodies, for a body can be sent again, while the provider has already
 * made an answer. All of this gives way as far as one of the largest size always fits where nothing else is.
 */
export function createRoom(options: {
  readonly bytesMax: number;
  readonly bodyBytesMax: number;
  readonly answerBytesMax: number;
}) {
  const { bytesMax, bodyBytesMax, answerBytesMax } = options;
  const total: Held = { bodies: 0, all: 0 };
  /** An organization that holds nothing is not in here. */
  const heldOf = new Map<string, Held>();

  /** Whether so many bytes more fit into a room of `most`, of which `held` is taken. */
  function fits(held: Held, most: number, bytes: number, isLarge: boolean, isBody: boolean) {
    const largest = Math.min(isBody ? bodyBytesMax : answerBytesMax, bytesMax);
    const part = isLarge ? 1 - FOR_SMALL : 1;
    if (held.all + bytes > Math.max(most * part, largest)) return false;
    return !isBody || held.bodies + bytes <= Math.max(most * (part - FOR_ANSWERS), largest);
  }

  const viewOf = (orgId: string, isBody: boolean): InFlight => {
    function add(held: Held, bytes: number): void {
      held.all += bytes;
      if (isBody) held.bodies += bytes;
    }
    return {
      take(bytes, wholeBytes = bytes) {
        const isLarge = wholeBytes > SMALL_BYTES_MAX;
        const known = heldOf.get(orgId);
        const own = known ?? { bodies: 0, all: 0 };
        if (!fits(total, bytesMax, bytes, isLarge, isBody)) return false;
        if (!fits(own, bytesMax * OF_ONE, bytes, isLarge, isBody)) return false;
        add(total, bytes);
        add(own, bytes);
        if (!known && bytes > 0) heldOf.set(orgId, own);
        return true;
      },
      give(bytes) {
        const own = heldOf.get(orgId);
        if (!own) return;
        add(total, -bytes);
        add(own, -bytes);
        if (own.all === 0) heldOf.delete(orgId);
      },
    };
  };

  return {
    bodiesOf: (orgId: string) => viewOf(orgId, true),
    answersOf: (orgId: string) => viewOf(orgId, false),
    bytes: () => total.all,
    /** How many organizations hold any of them. */
    organizations: () => heldOf.size,
  };
}
