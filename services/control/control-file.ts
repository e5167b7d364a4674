import { z } from "zod";

/** The file in the data folder by which the command line finds the running process: mode 0600, it holds the admin token. */
export const CONTROL_FILE_NAME = "control.json";

const CONTROL_FILE = z.object({
  /** Of the control API, without a slash at the end. */
  url: z.string().regex(/^https?:\/\/[^\s?#]+$/),
  token: z.string().min(1),
});

export type ControlAddress = z.infer<typeof CONTROL_FILE>;

export function controlFileText({ url, token }: ControlAddress): string {
  return `${JSON.stringify({ url, token })}\n`;
}

/** What such a file says, or undefined when it is none. */
export function parseControlFile(text: string): ControlAddress | undefined {
  try {
    const parsed = CONTROL_FILE.safeParse(JSON.parse(text));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}
