// Starts real Tollgate servers for tests. TOLLGATE_BINARY is the program's path.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const binary = process.env.TOLLGATE_BINARY;
if (!binary) throw new Error("set TOLLGATE_BINARY to the path of the program; build it with `go build -o tollgate .`");

/** folder returns a folder that is removed after the test. */
export function folder(t) {
  const dir = mkdtempSync(join(tmpdir(), "tollgate-client-"));
  t.after(() => rmSync(dir, { recursive: true, force: true, maxRetries: 5 }));
  return dir;
}

/** freePort returns an unused port below the ports of outgoing connections. */
export async function freePort() {
  for (;;) {
    const port = 20_000 + Math.floor(12_000 * Math.random());
    const server = createServer();
    const free = await new Promise((resolve) => {
      server.once("error", () => resolve(false)).listen(port, "127.0.0.1", () => resolve(true));
    });
    if (!free) continue;
    server.close();
    await once(server, "close");
    return port;
  }
}

/** Server is `tollgate serve` with a SQLite database, on one port. It may be killed and started again. */
export class Server {
  #dir;
  #env;
  #process = null;
  #log = "";

  static async start(t) {
    const server = new Server();
    server.#dir = folder(t);
    const database = `sqlite:${join(server.#dir, "tollgate.db")}`;
    server.#env = { PATH: process.env.PATH, HOME: server.#dir, TOLLGATE_DRAIN: "0s", DATABASE_URL: database };
    server.port = await freePort();
    server.url = `http://127.0.0.1:${server.port}`;
    server.key = server.command("apikey", "create", "--name", "test", "--scopes", "check,consume,read,manage").trim();
    t.after(() => server.kill());
    await server.start();
    return server;
  }

  /** command runs one of the operator's commands and returns its output. */
  command(...args) {
    return execFileSync(binary, args, { env: this.#env, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  }

  async start() {
    const process = spawn(binary, ["serve", "--listen", `127.0.0.1:${this.port}`], { env: this.#env, stdio: ["ignore", "pipe", "pipe"] });
    this.#process = process;
    process.stdout.on("data", (text) => { this.#log += text; });
    process.stderr.on("data", (text) => { this.#log += text; });
    const ended = once(process, "exit").then(([code]) => { throw new Error(`tollgate ended with ${code}:\n${this.#log}`); });
    const listening = (async () => {
      while (!this.#log.includes("listening on")) await once(process.stdout, "data");
      this.#log = "";
    })();
    await Promise.race([listening, ended]);
    ended.catch(() => undefined);
  }

  /** kill ends the server with kill -9. */
  async kill() {
    const process = this.#process;
    if (!process) return;
    this.#process = null;
    if (process.exitCode !== null || process.signalCode !== null) return;
    const exited = once(process, "exit");
    process.kill("SIGKILL");
    await exited;
  }

  async get(path) {
    const response = await fetch(this.url + path, { headers: { Authorization: `Bearer ${this.key}` } });
    if (!response.ok) throw new Error(`GET ${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }

  /** used returns the units that Tollgate has recorded for a person. */
  async used(email) {
    return (await this.get(`/v1/usage/${encodeURIComponent(email)}`)).used;
  }

  /** keys returns the idempotency keys of a person's events, sorted. */
  async keys(email) {
    const keys = [];
    for (let query = ""; query !== null;) {
      const page = await this.get(`/v1/usage/${encodeURIComponent(email)}/events${query}`);
      keys.push(...page.events.map((event) => event.idempotency_key));
      query = page.next_cursor ? `?cursor=${encodeURIComponent(page.next_cursor)}` : null;
    }
    return keys.sort();
  }
}

/** Proxy forwards requests to a server, and can lose answers, as a bad network does. */
export class Proxy {
  /** What to do with each request: "forward", "lose" the answer, "hang", or a status to answer with. */
  mode = () => "forward";
  /** The requests so far: method and path. */
  requests = [];

  static async start(t, target) {
    const proxy = new Proxy();
    const server = http.createServer(async (request, response) => {
      const body = await request.reduce((all, part) => Buffer.concat([all, part]), Buffer.alloc(0));
      proxy.requests.push(`${request.method} ${request.url}`);
      const mode = proxy.mode(request, proxy.requests.length);
      if (mode === "hang") return;
      if (typeof mode === "number") {
        response.writeHead(mode, { "Retry-After": "0" }).end();
        return;
      }
      const options = { method: request.method, headers: request.headers, agent: false };
      const onward = http.request(target.url + request.url, options, async (answer) => {
        const text = await answer.reduce((all, part) => Buffer.concat([all, part]), Buffer.alloc(0));
        if (mode === "lose") request.socket.destroy();
        else response.writeHead(answer.statusCode, answer.headers).end(text);
      });
      onward.on("error", () => request.socket.destroy());
      onward.end(body);
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    t.after(() => { server.close(); server.closeAllConnections(); });
    proxy.url = `http://127.0.0.1:${server.address().port}`;
    return proxy;
  }
}
