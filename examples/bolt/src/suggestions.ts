import { setTimeout as delay } from "node:timers/promises";

/** write takes the place of a language model. It waits, because a model needs some time. */
export async function write(about: string): Promise<string> {
  await delay(200);
  return `A suggestion about ${about || "nothing in particular"}.`;
}
