import { expect, test } from "vitest";
import { manualClock } from "#test/doubles/manual-clock.ts";
import { createReadiness, readinessView, type Check } from "./readiness.ts";

/** A process with one dependency, which is what it is set to. */
function world(check?: Check) {
  const clock = manualClock();
  const self = { state: "up" as "up" | "partly" | "down", looks: 0, isStopping: false };
  const readiness = createReadiness({
    clock,
    checks: {
      store: () => {
        self.looks += 1;
        return check ? check() : self.state;
      },
    },
    isStopping: () => self.isStopping,
  });
  return { clock, self, readiness, view: () => readinessView(readiness) };
}

test("a dependency that is away makes a process not ready, and its return ready again, each with its time", async () => {
  const { clock, self, view } = world();
  const first = new Date(clock.now()).toISOString();
  expect(await view()).toEqual({
    ready: true,
    stopping: false,
    dependencies: { store: { state: "up", since: first } },
  });
  await clock.advance(60_000);
  expect((await view()).dependencies).toEqual({ store: { state: "up", since: first } });

  self.state = "down";
  await clock.advance(1_000);
  const away = new Date(clock.now()).toISOString();
  expect(await view()).toMatchObject({
    ready: false,
    dependencies: { store: { state: "down", since: away } },
  });
  self.state = "partly";
  await clock.advance(1_000);
  expect(await view()).toMatchObject({ ready: true, dependencies: { store: { state: "partly" } } });
});

test("a process that was told to stop is not ready at once, whatever was found a moment ago", async () => {
  const { self, view } = world();
  expect(await view()).toMatchObject({ ready: true, stopping: false });
  self.isStopping = true;
  expect(await view()).toMatchObject({
    ready: false,
    stopping: true,
    dependencies: { store: { state: "up" } },
  });
});

test("however many ask, a dependency is looked at once a second at most", async () => {
  const { clock, self, view } = world();
  await Promise.all(Array.from({ length: 100 }, view));
  await view();
  await clock.advance(999);
  await view();
  expect(self.looks).toBe(1);
  await clock.advance(1);
  await Promise.all([view(), view()]);
  expect(self.looks).toBe(2);
});

test("one that rejects is down, and so is one that does not answer within a second, which is not asked again meanwhile", async () => {
  const rejecting = world(() => Promise.reject(new Error("gone")));
  expect((await rejecting.view()).dependencies).toMatchObject({ store: { state: "down" } });

  let answer = (_state: "up") => {};
  const { clock, self, view } = world(() => new Promise((resolve) => (answer = resolve)));
  for (const _ of [1, 2, 3]) {
    const asked = view();
    await clock.advance(1_000);
    expect(await asked).toMatchObject({ ready: false, dependencies: { store: { state: "down" } } });
    await clock.advance(1_000);
  }
  expect(self.looks).toBe(1);
  const asked = view();
  answer("up");
  expect(await asked).toMatchObject({ ready: true });
  expect(self.looks).toBe(1);
});
