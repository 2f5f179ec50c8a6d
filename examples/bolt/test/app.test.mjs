// Runs the app with Bolt's own HTTP receiver, signed requests, a real Tollgate and a stand-in for
// Slack.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { EventEmitter, once } from "node:events";
import http from "node:http";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { folder, freePort, Server } from "../../../clients/typescript/test/server.mjs";

const secret = "signing-secret";
const emailOf = (user) => `${user.toLowerCase()}@example.com`;

/** Slack takes the place of Slack's Web API and of response URLs. */
class Slack extends EventEmitter {
  /** The messages that each command got, by the command's number. */
  messages = [];

  static async start(t) {
    const slack = new Slack();
    slack.setMaxListeners(0);
    const server = http.createServer(async (request, response) => {
      const body = (await request.reduce((all, part) => Buffer.concat([all, part]), Buffer.alloc(0))).toString();
      const answer = (content) => response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(content));
      const [, to, name] = request.url.split("/");
      if (to === "response") {
        slack.messages[name].push(JSON.parse(body));
        slack.emit("message");
        return answer({ ok: true });
      }
      if (name === "auth.test") return answer({ ok: true, user_id: "UBOT", bot_id: "BBOT", team_id: "T1" });
      if (name === "users.info") {
        return answer({ ok: true, user: { profile: { email: emailOf(new URLSearchParams(body).get("user")) } } });
      }
      return answer({ ok: false, error: "unknown_method" });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    t.after(() => { server.close(); server.closeAllConnections(); });
    slack.url = `http://127.0.0.1:${server.address().port}`;
    return slack;
  }

  /** answered waits until all commands have an answer. */
  async answered() {
    const signal = AbortSignal.timeout(20_000);
    while (this.messages.some((list) => list.length === 0)) await once(this, "message", { signal });
  }
}

/** startApp runs the app in its own process, as its users do. */
async function startApp(t, slack, tollgate) {
  const port = await freePort();
  const app = spawn(process.execPath, ["dist/main.js"], {
    cwd: fileURLToPath(new URL("..", import.meta.url)),
    env: {
      PATH: process.env.PATH, PORT: `${port}`,
      SLACK_API_URL: `${slack.url}/api/`, SLACK_BOT_TOKEN: "xoxb-test", SLACK_SIGNING_SECRET: secret,
      TOLLGATE_URL: tollgate.url, TOLLGATE_API_KEY: tollgate.key, TOLLGATE_SPOOL: join(folder(t), "spool"),
    },
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => app.kill("SIGKILL"));
  let output = "";
  const exited = once(app, "exit");
  app.stdout.on("data", (text) => { output += text; });
  while (!output.includes("listening")) {
    await Promise.race([once(app.stdout, "data"), exited.then(() => { throw new Error(`the app ended:\n${output}`); })]);
  }

  /** command sends /suggest as Slack does, and returns the command's number. */
  const command = async (user, { trigger, sign = secret } = {}) => {
    const number = slack.messages.push([]) - 1;
    const body = new URLSearchParams({
      command: "/suggest", text: "lunch", team_id: "T1", user_id: user, user_name: user, channel_id: "C1", api_app_id: "A1", token: "old",
      trigger_id: trigger ?? `trigger-${number}`, response_url: `${slack.url}/response/${number}`,
    }).toString();
    const time = `${Math.floor(Date.now() / 1_000)}`;
    const signature = "v0=" + createHmac("sha256", sign).update(`v0:${time}:${body}`).digest("hex");
    const response = await fetch(`http://127.0.0.1:${port}/slack/events`, {
      method: "POST", body, signal: AbortSignal.timeout(3_000), // as long as Slack waits
      headers: { "Content-Type": "application/x-www-form-urlencoded", "X-Slack-Request-Timestamp": time, "X-Slack-Signature": signature },
    });
    if (sign === secret) assert.equal(response.status, 200);
    else slack.messages.pop();
    return { number, status: response.status };
  };
  const stop = async () => {
    app.kill("SIGTERM");
    assert.deepEqual(await exited, [0, null]);
    return output;
  };
  return { command, stop };
}

const isSuggestion = (message) => message.text.startsWith("A suggestion about lunch");
const six = Array.from({ length: 6 });

test("everyone gets an answer, also at the limit", async (t) => {
  const [slack, tollgate] = [await Slack.start(t), await Server.start(t)];
  const { command, stop } = await startApp(t, slack, tollgate);
  assert.equal((await command("U1", { sign: "wrong" })).status, 401);

  await Promise.all(six.map(() => command("U1")));
  await slack.answered();
  assert.equal(slack.messages.filter((list) => isSuggestion(list[0])).length, 5);
  assert.equal(await tollgate.used(emailOf("U1")), 5);

  await Promise.all(six.map(() => command("U1"))); // at 5 of 5
  await slack.answered();
  assert.equal(slack.messages.length, 12);
  for (const [message] of slack.messages.slice(6)) {
    assert.equal(message.response_type, "ephemeral");
    assert.match(message.text, /5 of 5|all 5|5 suggestions/);
    assert.ok(message.blocks.length > 0);
  }
  await stop();
  assert.equal(await tollgate.used(emailOf("U1")), 5);
});

test("while Tollgate is stopped for 10 seconds, nothing is lost and nothing is counted twice", async (t) => {
  const [slack, tollgate] = [await Slack.start(t), await Server.start(t)];
  const { command, stop } = await startApp(t, slack, tollgate);
  const users = ["U1", "U2", "U3", "U4"];
  const sent = new Map(); // the user of each command, by number; a repeated command has the same trigger
  const send = async (user, trigger) => {
    const { number } = await command(user, { trigger });
    sent.set(number, { user, work: trigger ?? `trigger-${number}` });
  };
  await Promise.all(users.map((user) => send(user)));
  await slack.answered();

  const running = users.map((user) => send(user));
  await tollgate.kill(); // while the app works
  const until = Date.now() + 10_000;
  for (let i = 0; Date.now() < until; i++) {
    const user = users[i % users.length];
    running.push(send(user, `outage-${i}`));
    if (i % 5 === 0) running.push(send(user, `outage-${i}`)); // Slack repeats some requests
    await delay(200);
  }
  await tollgate.start();
  for (const user of users) running.push(send(user));
  await Promise.all(running);
  await slack.answered();
  assert.doesNotMatch(await stop(), /will be recorded/); // the app records the rest before it ends

  let given = 0, refused = 0;
  for (const user of users) {
    const works = new Set();
    for (const [number, command_] of sent) {
      if (command_.user !== user) continue;
      if (isSuggestion(slack.messages[number][0])) works.add(command_.work);
      else refused++;
    }
    given += works.size;
    assert.equal(await tollgate.used(emailOf(user)), works.size, user);
  }
  t.diagnostic(`${sent.size} commands: ${given} suggestions, all of them recorded, and ${refused} refusals`);
  assert.ok(given >= 16 && refused > 0, `${given} suggestions, ${refused} refusals`);
  tollgate.command("verify");
});
