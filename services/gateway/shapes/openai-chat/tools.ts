import {
  inOtherCase,
  isMembers,
  otherCaseOf,
  twiceWithin,
  type BodyFault,
  type Members,
} from "#services/gateway/json/object.ts";

/** Members that make the provider call tools of its own for a fee that no hold can bound. */
const FEE_MEMBERS = ["web_search_options", "search_parameters", "plugins"] as const;
const TOOL_NAMES = ["type"];

/**
 * Tools that the provider runs itself cost fees per call, which no hold can bound. `scannedMembers` is how many members
 * the tools have in the bytes.
 */
export function hostedTool(fields: Members, scannedMembers: number): BodyFault | undefined {
  for (const name of FEE_MEMBERS) {
    if (fields[name] === undefined || fields[name] === null) continue;
    return {
      param: name,
      message: `'${name}' is not supported: the provider charges a fee per call, which no hold can bound.`,
    };
  }
  const { tools } = fields;
  if (!Array.isArray(tools)) return undefined;
  let members = 0;
  for (const tool of tools as readonly unknown[]) {
    if (!isMembers(tool)) continue;
    for (const key in tool) {
      members += 1;
      if (otherCaseOf(key, TOOL_NAMES)) return { param: "tools", message: inOtherCase("type") };
    }
    const type = "type" in tool ? tool["type"] : "function";
    if (type === "function" || type === "custom") continue;
    const message =
      "Only tools of type 'function' and 'custom' are supported: a tool that the provider runs has a fee, which no hold can bound.";
    return { param: "tools", message };
  }
  return members === scannedMembers ? undefined : { param: "tools", message: twiceWithin("tools") };
}
