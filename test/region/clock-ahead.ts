/**
 * Preloaded into a process (`--import`) it sets that process's clock an hour ahead, as a machine's may be: the product has
 * no setting for it. Its clock that never goes back, and its timers, run as they do.
 */
export const AHEAD_MS = 3_600_000;

const Machine = globalThis.Date;
const now = () => Machine.now() + AHEAD_MS;
globalThis.Date = new Proxy(Machine, {
  construct: (target, args, newTarget) =>
    Reflect.construct(target, args.length === 0 ? [now()] : args, newTarget) as object,
  get: (target, name, receiver) =>
    name === "now" ? now : (Reflect.get(target, name, receiver) as unknown),
});
