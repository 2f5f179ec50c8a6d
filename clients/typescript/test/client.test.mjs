// Tests the client against real servers that are killed in between.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Tollgate, TollgateError } from "tollgate-client";
import { Spool } from "../dist/spool.js";
import { folder, Proxy, Server } from "./server.mjs";

const ada = { email: "ada@example.com" };

/** open returns a client with a spool. */
function open(t, server, options = {}) {
  const spool = join(folder(t), "spool");
  const errors = [];
  const onError = (error) => errors.push(error.message);
  const client = new Tollgate({ url: server.url, apiKey: server.key, outage: { allow: 3 }, spool, onError, ...options });
  t.after(() => client.close());
  return Object.assign(client, { spool: options.spool ?? spool, errors });
}

/** recorded waits until the spool is empty. */
async function recorded(client) {
  while (await client.flush() > 0) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(client.errors, []);
}

const hasCode = (code) => (error) => error instanceof TollgateError && error.code === code;

test("calls return Tollgate's decisions and typed errors", async (t) => {
  const server = await Server.start(t);
  const client = open(t, server);

  const checked = await client.check(ada);
  assert.equal(checked.answered && checked.remaining, 5);
  const consumed = await client.consume({ ...ada, quantity: 2, idempotency_key: "1" });
  assert.equal(consumed.answered && consumed.used, 2);
  assert.equal((await client.consume({ ...ada, quantity: 2, idempotency_key: "1" })).replayed, true);
  await assert.rejects(client.consume({ ...ada, idempotency_key: "1" }), hasCode("idempotency_key_reused"));

  const held = await client.hold({ ...ada, quantity: 2, idempotency_key: "2" });
  assert.equal((await client.settle(held.handle, 1)).used, 3);
  await assert.rejects(client.settle(held.handle, 2), hasCode("hold_settled"));
  await assert.rejects(client.settle(held.handle, 3), RangeError);
  const other = await client.hold({ ...ada, quantity: 1, idempotency_key: "3" });
  assert.equal((await client.release(other.handle)).held, 0);
  await assert.rejects(client.hold({ ...ada, quantity: 1, idempotency_key: "3" }), hasCode("hold_released"));

  const done = await client.withHold({ ...ada, quantity: 2, idempotency_key: "4" }, async () => ({ used: 2, value: "text" }));
  assert.equal(done.value, "text");
  assert.equal(done.slack?.response_type, "ephemeral"); // 5 of 5
  let ran = false;
  const no = await client.withHold({ ...ada, quantity: 1, idempotency_key: "5" }, async () => {
    ran = true;
    return { used: 1, value: "" };
  });
  assert.deepEqual([no.allowed, no.value, no.slack?.response_type, ran], [false, null, "ephemeral", false]);

  await assert.rejects(client.check({ slack_team_id: "T1", slack_user_id: "U1" }), hasCode("unknown_user"));
  await assert.rejects(client.check({ ...ada, quantity: 0 }), (e) => hasCode("invalid_request")(e) && e.errors[0].path === "quantity");
  await assert.rejects(open(t, { ...server, key: "tg_live_wrong" }).check(ada), hasCode("unauthorized"));
  assert.equal(await server.used(ada.email), 5);
});

test("withHold gives the units back if the work throws or uses nothing", async (t) => {
  const server = await Server.start(t);
  const client = open(t, server);
  const fails = async () => { throw new Error("no idea"); };
  await assert.rejects(client.withHold({ ...ada, quantity: 3, idempotency_key: "1" }, fails), /no idea/);
  const nothing = await client.withHold({ ...ada, quantity: 3, idempotency_key: "2" }, async () => ({ used: 0, value: "" }));
  assert.equal(nothing.allowed, true);
  await assert.rejects(client.withHold({ ...ada, quantity: 3, idempotency_key: "3" }, async () => ({ used: 4, value: "" })), RangeError);
  const { used, held } = await client.check(ada);
  assert.deepEqual([used, held], [0, 0]);
});

test("calls are repeated with the same key, and count once", async (t) => {
  const server = await Server.start(t);
  const proxy = await Proxy.start(t, server);
  const client = open(t, { ...server, url: proxy.url }, { timeout: 1000 });
  for (const [i, mode] of ["lose", "hang", 503, 429].entries()) {
    const from = proxy.requests.length;
    proxy.mode = (_, n) => (n === from + 1 ? mode : "forward");
    const answer = await client.consume({ ...ada, idempotency_key: `${i}` });
    assert.equal(answer.answered && answer.allowed, true, `${mode}`);
    assert.equal(answer.replayed, mode === "lose", `${mode}`);
    assert.equal(proxy.requests.length, from + 2, `${mode}`);
  }
  assert.equal(await server.used(ada.email), 4);
  assert.equal(client.pending, 0);
});

test("a rate limit is waited for", async (t) => {
  const server = await Server.start(t);
  const key = server.command("apikey", "create", "--name", "slow", "--scopes", "consume", "--rate-limit", "1").trim();
  const client = open(t, { url: server.url, key });
  for (const idempotency_key of ["1", "2"]) {
    const answer = await client.consume({ ...ada, idempotency_key });
    assert.equal(answer.answered && answer.allowed, true);
  }
  assert.equal(await server.used(ada.email), 2);
});

test("in an outage, each person may use some units, which are recorded later", async (t) => {
  const server = await Server.start(t);
  const client = open(t, server);
  await client.consume({ ...ada, idempotency_key: "before" });
  await server.kill();

  const consumed = await client.consume({ ...ada, idempotency_key: "1" });
  assert.deepEqual([consumed.allowed, consumed.answered, consumed.spooled], [true, false, true]);
  assert.equal((await client.consume({ ...ada, idempotency_key: "1" })).replayed, true);
  await assert.rejects(client.consume({ ...ada, quantity: 2, idempotency_key: "1" }), hasCode("idempotency_key_reused"));
  const worked = await client.withHold({ ...ada, quantity: 2, idempotency_key: "2" }, async () => {
    assert.equal((await client.check(ada)).allowed, false); // 1 is spooled, 2 are on hold
    return { used: 1, value: "text" };
  });
  assert.deepEqual([worked.value, worked.decision.spooled], ["text", true]);
  const given = await client.hold({ ...ada, quantity: 1, idempotency_key: "3" });
  await client.release(given.handle);
  assert.equal((await client.consume({ ...ada, idempotency_key: "4" })).allowed, true);
  const refused = await client.consume({ ...ada, idempotency_key: "5" });
  assert.deepEqual([refused.allowed, refused.reason, refused.slack.response_type], [false, "unavailable", "ephemeral"]);
  assert.equal((await client.consume({ email: "bob@example.com", quantity: 3, idempotency_key: "1" })).allowed, true);
  assert.equal(statSync(client.spool).mode & 0o777, 0o600);

  await server.start();
  await recorded(client);
  assert.deepEqual([await server.used(ada.email), await server.used("bob@example.com")], [4, 3]);
  // The same work again, for example because Slack repeats a request, counts nothing.
  const again = await client.withHold({ ...ada, quantity: 2, idempotency_key: "2" }, async () => ({ used: 1, value: "again" }));
  assert.equal(again.value, "again");
  assert.equal((await client.consume({ ...ada, idempotency_key: "1" })).replayed, true);
  await recorded(client);
  assert.equal(await server.used(ada.email), 4);
  assert.equal((await client.check(ada)).held, 0);
  server.command("verify"); // throws if a sum is wrong
});

test("with the policy refuse, calls are refused, and settlements are still repeated later", async (t) => {
  const server = await Server.start(t);
  const client = open(t, server, { outage: "refuse" });
  const bare = new Tollgate({ url: server.url, apiKey: server.key, outage: "refuse" });
  const held = await client.hold({ ...ada, quantity: 2, idempotency_key: "1" });
  await server.kill();
  assert.equal((await client.consume({ ...ada, idempotency_key: "2" })).allowed, false);
  assert.equal((await client.hold({ ...ada, quantity: 1, idempotency_key: "3" })).handle, null);
  await assert.rejects(bare.settle(held.handle, 2), hasCode("unavailable"));
  assert.equal((await client.settle(held.handle, 2)).spooled, true);
  await server.start();
  await recorded(client);
  assert.equal(await server.used(ada.email), 2);
});

test("a settlement that is repeated later takes no message away", async (t) => {
  const server = await Server.start(t);
  const client = open(t, server);
  const held = await client.hold({ ...ada, quantity: 4, idempotency_key: "1", notify: "never" });
  await server.kill();
  assert.equal((await client.settle(held.handle, 4)).spooled, true);
  await server.start();
  await recorded(client);
  const checked = await client.check({ ...ada, notify: "always" });
  assert.match(checked.slack.text, /4 of 5/);
  assert.equal(checked.usage_url, `${server.url}/usage`);
  const held2 = await client.withHold({ ...ada, quantity: 1, idempotency_key: "2" }, async () => ({ used: 0, value: "" }));
  assert.equal(held2.slack?.response_type, "ephemeral"); // the first message of this level
});

test("a settlement whose answer was lost is repeated as a settlement", async (t) => {
  const server = await Server.start(t);
  const proxy = await Proxy.start(t, server);
  const client = open(t, { ...server, url: proxy.url });
  const held = await client.hold({ ...ada, quantity: 2, idempotency_key: "1" });
  proxy.mode = () => "lose";
  assert.equal((await client.settle(held.handle, 2)).spooled, true);
  // The hold is known, so its key must not become a hold without an ID.
  assert.equal((await client.hold({ ...ada, quantity: 2, idempotency_key: "1" })).handle.id, held.handle.id);
  assert.equal(await server.used(ada.email), 2);
  await server.kill();
  await server.start();
  proxy.mode = () => "forward";
  await recorded(client);
  assert.equal(await server.used(ada.email), 2);
  assert.ok(!proxy.requests.includes("POST /v1/events"));
});

test("a hold whose answer was lost is recorded under its key, once", async (t) => {
  const server = await Server.start(t);
  const proxy = await Proxy.start(t, server);
  const client = open(t, { ...server, url: proxy.url });
  proxy.mode = () => "lose";
  const body = { ...ada, quantity: 2, idempotency_key: "1", ttl_seconds: 1 };
  const held = await client.hold(body);
  assert.deepEqual([held.allowed, held.handle.id], [true, null]);
  proxy.mode = () => "forward";
  const calls = proxy.requests.length;
  assert.equal((await client.hold(body)).handle.id, null); // Tollgate would confirm it now, and count it again
  assert.equal(proxy.requests.length, calls);
  await client.settle(held.handle, 2);
  await recorded(client);
  const again = await client.hold(body);
  await client.settle(again.handle, 2);
  await assert.rejects(client.settle(again.handle, 1), hasCode("hold_settled"));
  await recorded(client);
  assert.equal(await server.used(ada.email), 2);
  assert.deepEqual(await server.keys(ada.email), ["1"]);
});

test("the usage of an expired hold is recorded, once", async (t) => {
  const server = await Server.start(t);
  const client = open(t, server);
  const slow = await client.withHold({ ...ada, quantity: 1, idempotency_key: "1", ttl_seconds: 1 }, async () => {
    while ((await client.check(ada)).held > 0) await new Promise((resolve) => setTimeout(resolve, 50));
    return { used: 1, value: "late" };
  });
  assert.deepEqual([slow.value, slow.decision.spooled], ["late", true]);

  const { handle, hold } = await client.hold({ ...ada, quantity: 2, idempotency_key: "2", ttl_seconds: 1 });
  await server.kill();
  assert.equal((await client.settle(handle, 2)).spooled, true);
  await new Promise((resolve) => setTimeout(resolve, Date.parse(hold.expires_at) + 50 - Date.now()));
  await server.start();
  await client.settle(handle, 2);
  await recorded(client);
  assert.equal(await server.used(ada.email), 3);
  assert.deepEqual(await server.keys(ada.email), ["1", "2"]);
});

test("a spool belongs to one client", async (t) => {
  const server = await Server.start(t);
  const client = open(t, server);
  const options = { url: server.url, apiKey: server.key, spool: client.spool, outage: { allow: 1 } };
  assert.throws(() => new Tollgate(options), /another client of this process uses this spool/);
  const other = spawn(process.execPath, ["--input-type=module", "--eval",
    `import { Tollgate } from "tollgate-client"; new Tollgate(${JSON.stringify(options)})`],
  { cwd: fileURLToPath(new URL("..", import.meta.url)), stdio: ["ignore", "ignore", "pipe"] });
  let text = "";
  other.stderr.on("data", (part) => { text += part; });
  assert.deepEqual(await once(other, "close"), [1, null]);
  assert.match(text, new RegExp(`process ${process.pid} uses this spool`));
  await client.close();
  await new Tollgate(options).close();
});

test("usage that Tollgate refuses for good is moved to another file", async (t) => {
  const server = await Server.start(t);
  const client = open(t, server);
  const slack = { slack_team_id: "T1", slack_user_id: "U1" }; // unknown to Tollgate
  await server.kill();
  await client.consume({ ...slack, idempotency_key: "1" });
  await client.consume({ ...ada, idempotency_key: "2" });
  await server.start();
  while (await client.flush() > 0) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(await server.used(ada.email), 1);
  assert.equal(client.errors.length, 1);
  const [line] = readFileSync(client.spool + ".rejected", "utf8").split("\n");
  assert.deepEqual(JSON.parse(line).person, slack);
});

test("a spool that cannot be read or written loses nothing silently", async (t) => {
  const server = await Server.start(t);
  const spool = join(folder(t), "spool");
  writeFileSync(spool, "no JSON\n");
  const options = { url: server.url, apiKey: server.key, outage: { allow: 1 }, spool };
  assert.throws(() => new Tollgate(options), /line 1/);
  assert.equal(readFileSync(spool, "utf8"), "no JSON\n");
  assert.throws(() => new Tollgate({ ...options, spool: join(spool, "none") }), /ENOTDIR/);
  assert.throws(() => new Tollgate({ ...options, spool: undefined }), /spool is required/);
});

test("a spool does not grow without end, and remembers holds", async (t) => {
  const path = join(folder(t), "spool");
  const spool = new Spool(path);
  const entry = { kind: "event", person: ada, quantity: 1, occurred_at: new Date().toISOString() };
  const consumed = Array.from({ length: 3_000 }, (_, i) => spool.append({ ...entry, idempotency_key: `${i}`.padEnd(255, "x") }));
  const entries = await Promise.all([...consumed, spool.append({ ...entry, hold: true, idempotency_key: "hold" })]);
  assert.ok(statSync(path).size > 1 << 20);
  await spool.finish(entries);
  assert.ok(statSync(path).size < 1_000, `${statSync(path).size} bytes`);
  await spool.finish([await spool.append({ ...entry, idempotency_key: "consumed" })]);
  const last = await spool.append({ ...entry, idempotency_key: "last" });
  await spool.close();
  const again = new Spool(path);
  assert.deepEqual([...again.pending.values()], [last]);
  assert.deepEqual(again.recent.map((e) => e.idempotency_key), ["hold"]);
  await again.close();
});
