import { setTimeout as delay } from "node:timers/promises";

/** write takes the place of a model, which needs a moment for a suggestion. */
export async function write(about: string): Promise<string> {
  await delay(200);
  return `A suggestion about ${about || "nothing in particular"}.`;
}
