/** The command that a client's error names; undefined where it names none. */
export function commandIn(error: unknown): string | undefined {
  if (!(error instanceof Error && "command" in error)) return undefined;
  const { command } = error;
  return typeof command === "object" && command !== null && "name" in command
    ? String(command.name)
    : undefined;
}

/**
 * What a client or its server says is wrong, without the arguments of the command: they may be a password, or say of whom a
 * key is. A server repeats them in its own words where it does not know a command.
 */
export function withoutArguments(error: unknown): Error {
  const { name, message } = error instanceof Error ? error : new Error(String(error));
  const told = new Error(message.replace(/,? with args beginning with.*$/su, ""));
  told.name = name;
  return told;
}
