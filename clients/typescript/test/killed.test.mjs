// Tests that nothing is lost and nothing is counted twice if the app and the server are killed.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Tollgate } from "tollgate-client";
import { folder, Server } from "./server.mjs";

const ada = { email: "ada@example.com" };

// The child process uses units one after another and prints the key of each one that it got.
const child = `
import { Tollgate } from "tollgate-client";
const [url, apiKey, spool] = process.argv.slice(1);
const client = new Tollgate({ url, apiKey, spool, outage: { allow: 10_000 }, timeout: 200, attempts: 2 });
const holds = (i) => i % 2 === 1;
for (let i = 0; ; i++) {
  const body = { email: "ada@example.com", quantity: 1, idempotency_key: process.pid + "-" + i };
  const d = holds(i) ? await client.withHold(body, async () => ({ used: 1, value: "" })) : await client.consume(body);
  if (d.allowed) process.stdout.write(body.idempotency_key + "\\n");
}`;

test("an app and a server that are killed lose nothing and count nothing twice", async (t) => {
  const server = await Server.start(t);
  server.command("subscribe", "--email", ada.email, "--plan", "pro");
  server.command("grant", ada.email, "--quantity", "100000", "--reason", "test");
  const spool = join(folder(t), "spool");
  const got = [];
  let started = 0;
  const run = async (count, during) => {
    const app = spawn(process.execPath, ["--input-type=module", "--eval", child, server.url, server.key, spool],
      { cwd: fileURLToPath(new URL("..", import.meta.url)), stdio: ["ignore", "pipe", "inherit"] });
    t.after(() => app.kill("SIGKILL"));
    started++;
    let n = 0;
    for await (const key of createInterface({ input: app.stdout })) {
      got.push(key);
      if (++n === Math.floor(count / 2)) await during();
      if (n === count) app.kill("SIGKILL");
    }
    assert.ok(n >= count, `the app ended after ${n} units`);
  };
  await run(20, () => server.kill()); // the server dies, then the app
  appendFileSync(spool, '{"seq":100000,"kind":"ev'); // a line that was cut off
  await run(20, () => server.start()); // the app starts during the outage
  await run(20, () => server.kill());
  await server.start();

  const errors = [];
  const options = { url: server.url, apiKey: server.key, outage: { allow: 1 }, spool };
  const client = new Tollgate({ ...options, onError: (error) => errors.push(error) });
  while (await client.flush() > 0) await new Promise((resolve) => setTimeout(resolve, 20));
  await client.close();
  assert.deepEqual(errors, []);
  const keys = await server.keys(ada.email);
  assert.equal(new Set(keys.filter(Boolean)).size, keys.filter(Boolean).length);
  const used = await server.used(ada.email);
  t.diagnostic(`${got.length} units were given, and ${used} are recorded`);
  // Units that a killed app was about to give are recorded, but were not given: at most one per app.
  assert.ok(used >= got.length && used <= got.length + started, `${used} units are recorded, and ${got.length} were given`);
  for (const key of got) if (Number(key.split("-")[1]) % 2 === 0) assert.ok(keys.includes(key), `${key} is lost`);
});
