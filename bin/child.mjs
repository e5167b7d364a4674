// Runs a program in the place of this one, as far as a parent can: for the programs beside it.
// This file is plain JavaScript, so that an old Node can read it.
import { spawn } from "node:child_process";
import { constants } from "node:os";

const SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP"];

/**
 * Runs a program until it ends, by default on this one's terminal; signals go to it. Gives its exit code as a shell
 * would tell it (2, and a sentence to stderr, where it cannot be started), and the last signal that was handed on.
 */
export function run(command, args, options = {}) {
  const child = spawn(command, args, { stdio: "inherit", ...options });
  let signalled;
  // One Ctrl-C reaches the child twice, from the terminal and from here. That is harmless: relai takes only
  // a signal that comes a second or more after the first as an order to exit at once.
  const handOn = (signal) => {
    signalled = signal;
    child.kill(signal);
  };
  for (const signal of SIGNALS) process.on(signal, handOn);
  return new Promise((resolve) => {
    const end = (code) => {
      for (const signal of SIGNALS) process.off(signal, handOn);
      resolve({ code, signalled });
    };
    child.on("error", (error) => {
      process.stderr.write(`relai: cannot start ${command}: ${error.message}\n`);
      end(2);
    });
    child.on("exit", (code, signal) => end(code ?? 128 + constants.signals[signal]));
  });
}
