import { Tollgate } from "tollgate-client";
import { createApp } from "./app.js";

function setting(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`set ${name}; see README.md`);
  return value;
}

const tollgate = new Tollgate({
  url: setting("TOLLGATE_URL"),
  apiKey: setting("TOLLGATE_API_KEY"),
  outage: { allow: 3 }, // while Tollgate cannot be reached, each person gets 3 suggestions
  spool: process.env.TOLLGATE_SPOOL ?? "tollgate.spool",
});
const slackApiUrl = process.env.SLACK_API_URL; // the test sets it
const app = createApp(tollgate, {
  token: setting("SLACK_BOT_TOKEN"),
  signingSecret: setting("SLACK_SIGNING_SECRET"),
  // People wait for the answer, so do not wait long for Slack's API.
  clientOptions: { timeout: 2_000, retryConfig: { retries: 1 }, ...(slackApiUrl ? { slackApiUrl } : {}) },
});

const port = Number(process.env.PORT ?? 3000);
await app.start(port);
console.log(`listening on port ${port}`);

let stopping = false;
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    if (stopping) return;
    stopping = true;
    void stop();
  });
}

async function stop(): Promise<void> {
  await app.stop();
  const left = await tollgate.flush();
  if (left > 0) console.log(`${left} entries will be recorded after the next start`);
  await tollgate.close();
}
