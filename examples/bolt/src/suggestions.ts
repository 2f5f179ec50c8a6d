import { setTimeout as delay } from "node:timers/promises";

/** write stands in for the model that writes a suggestion, which takes a moment. */
export async function write(about: string): Promise<string> {
  await delay(200);
  return `A suggestion about ${about || "nothing in particular"}.`;
}
