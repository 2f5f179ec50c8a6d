import createClient from "openapi-fetch";
import { setTimeout as delay } from "node:timers/promises";
import type { components, paths } from "./api.js";
import { TollgateError } from "./errors.js";
import { Spool } from "./spool.js";
import type { Entry } from "./spool.js";

type Schemas = components["schemas"];
type Body<P extends keyof paths> =
  paths[P] extends { post: { requestBody?: { content: { "application/json": infer B } } } } ? B : never;
type Answer<P extends keyof paths> =
  paths[P] extends { post: { responses: { 200: { content: { "application/json": infer A } } } } } ? A : never;

export type CheckBody = Body<"/v1/check">;
export type ConsumeBody = Body<"/v1/consume">;
export type HoldBody = Body<"/v1/holds">;
export type SettleOptions = Omit<Body<"/v1/holds/{id}/settle">, "quantity">;
export type SlackMessage = NonNullable<Answer<"/v1/check">["slack"]>;

/** Person identifies a person: by email, by Slack identity, or by both. */
export type Person =
  | { email: string; slack_team_id?: string; slack_user_id?: string }
  | { email?: string; slack_team_id: string; slack_user_id: string };

/**
 * Outage says what happens while Tollgate gives no decision. With `{ allow: n }`, each person may
 * use up to n units, which are recorded later. With "refuse", calls are refused.
 */
export type Outage = { allow: number } | "refuse";

export type Options = {
  /** The address of Tollgate, such as https://tollgate.example.com. */
  url: string;
  /** An API key with the scopes check and consume. */
  apiKey: string;
  /** How long an attempt may take, in milliseconds. Default: 800. */
  timeout?: number;
  /** How often a call is tried, with the same idempotency key. Default: 3. */
  attempts?: number;
  /** Called if usage could not be recorded. Default: console.error. */
  onError?: (error: Error) => void;
} & (
  | {
      outage: { allow: number };
      /** The file for what is to be recorded later. Each process needs its own, on a local disk. */
      spool: string;
    }
  | {
      outage: "refuse";
      /**
       * The file for settlements that are to be repeated later. Without it, settle throws if
       * Tollgate cannot be reached or the hold has expired.
       */
      spool?: string;
    }
);

/** Answered is a decision of Tollgate. */
export type Answered<A> = A & { answered: true };

/** Unanswered is what the outage policy decided, because there is no decision of Tollgate. */
export interface Unanswered {
  answered: false;
  allowed: boolean;
  reason: "unavailable" | null;
  notice: string | null;
  slack: SlackMessage | null;
  event_id: null;
  replayed: boolean;
  /** Whether the units are in the spool, to be recorded later. */
  spooled: boolean;
  /** The error of the call; null if the client decided without a call, or if the hold had expired. */
  cause: TollgateError | null;
}

/** Result is a decision of Tollgate, or of the outage policy. */
export type Result<A> = Answered<A> | Unanswered;

/** HoldHandle is what settle and release need. It is plain data, so it can be stored. */
export interface HoldHandle {
  /** Null if Tollgate did not confirm the hold. */
  id: string | null;
  person: Person;
  quantity: number;
  idempotency_key: string;
}

/** Used is the result of work: how many units it used, and what it made. */
export interface Used<T> {
  used: number;
  value: T;
}

/** Work is the result of withHold. */
export type Work<T> =
  | { allowed: true; value: T; slack: SlackMessage | null; notice: string | null; decision: Result<Answer<"/v1/holds/{id}/settle">> }
  | { allowed: false; value: null; slack: SlackMessage | null; notice: string | null; decision: Result<Answer<"/v1/holds">> };

const longestWait = 1_000; // for Retry-After; a longer wait is not worth it for the caller
const replayAfter = [0, 250, 1_000, 2_000, 5_000]; // milliseconds until the next try to record the spool
const batchSize = 200;

/** Known is a hold of the last hour, by person and key. */
interface Known {
  handle: HoldHandle;
  at: number;
  /** The units that were spooled for it. */
  spooled?: number;
}

/** Tollgate calls one Tollgate server. Use one instance per process. */
export class Tollgate {
  readonly #options: Required<Pick<Options, "timeout" | "attempts" | "onError">> & Options;
  readonly #client: ReturnType<typeof createClient<paths>>;
  readonly #spool: Spool | null;
  readonly #holds = new Map<string, Known>();
  // The units of holds that the outage policy allowed and that are neither settled nor released.
  readonly #reserved = new Map<string, number>();
  // Spooled consumes, by person and key.
  readonly #consumed = new Map<string, Promise<Entry>>();
  #timer: NodeJS.Timeout | null = null;
  #replaying: Promise<void> | null = null;
  #failures = 0;
  #closed = false;

  constructor(options: Options) {
    if (options.outage !== "refuse" && !(Number.isInteger(options.outage?.allow) && options.outage.allow >= 0)) {
      throw new TypeError('outage must be "refuse" or { allow: n }, where n is an integer from 0');
    }
    if (options.outage !== "refuse" && !options.spool) throw new TypeError("spool is required with outage: { allow: n }");
    this.#options = {
      ...options, timeout: options.timeout ?? 800, attempts: options.attempts ?? 3,
      onError: options.onError ?? ((error) => console.error(error.message)),
    };
    this.#client = createClient<paths>({
      baseUrl: options.url.replace(/\/+$/, ""),
      headers: { Authorization: `Bearer ${options.apiKey}` },
      redirect: "manual",
    });
    this.#spool = options.spool ? new Spool(options.spool) : null;
    for (const entry of [...(this.#spool?.recent ?? []), ...(this.#spool?.pending.values() ?? [])]) this.#restore(entry);
    if (this.#spool?.pending.size) this.#replayIn(0);
  }

  // restore remembers what an earlier process spooled.
  #restore(entry: Entry): void {
    const person = entry.person as Person, name = workOf(person, entry.idempotency_key);
    if (!entry.hold) {
      this.#consumed.set(name, Promise.resolve(entry));
      return;
    }
    const handle = { id: entry.hold_id ?? null, person, quantity: entry.quantity, idempotency_key: entry.idempotency_key };
    this.#holds.set(name, { handle, at: Date.parse(entry.occurred_at), spooled: entry.quantity });
  }

  /** check returns the decision and records nothing. */
  async check(body: CheckBody): Promise<Result<Answer<"/v1/check">>> {
    try {
      return await this.#call((signal) => this.#client.POST("/v1/check", { body, signal }));
    } catch (error) {
      return this.#mayUse(body, body.quantity ?? 1) ? allowed(unavailable(error), false) : refused(unavailable(error));
    }
  }

  /** consume decides and records. */
  async consume(body: ConsumeBody): Promise<Result<Answer<"/v1/consume">>> {
    const quantity = body.quantity ?? 1, name = workOf(body, body.idempotency_key);
    const before = this.#consumed.get(name);
    if (before) return repeated(await before, quantity);
    try {
      return await this.#call((signal) => this.#client.POST("/v1/consume", { body, signal }));
    } catch (error) {
      const cause = unavailable(error), same = this.#consumed.get(name);
      if (same) return repeated(await same, quantity);
      if (!this.#mayUse(body, quantity)) return refused(cause);
      this.#reserve(body, quantity);
      const entry = this.#append({ kind: "event", granted: true, ...usage(body, quantity, body.idempotency_key) });
      this.#consumed.set(name, entry);
      try {
        await entry;
      } catch (failure) {
        this.#consumed.delete(name);
        return refused(failure as TollgateError);
      } finally {
        this.#reserve(body, -quantity);
      }
      return allowed(cause, true);
    }
  }

  /**
   * hold sets units aside while work runs. If the hold is allowed, pass its handle to settle or
   * release.
   */
  async hold(body: HoldBody): Promise<Result<Answer<"/v1/holds">> & { handle: HoldHandle | null }> {
    const name = workOf(body, body.idempotency_key);
    const known = this.#holds.get(name);
    if (known && known.handle.quantity !== body.quantity && known.spooled === undefined) throw reused();
    // Tollgate does not know that this hold was allowed, so it must not decide about it again.
    if (known && known.handle.id === null) return { ...allowed(null, known.spooled !== undefined, true), handle: known.handle };
    const handle: HoldHandle = { id: null, person: personOf(body), quantity: body.quantity, idempotency_key: body.idempotency_key };
    try {
      const answer = await this.#call((signal) => this.#client.POST("/v1/holds", { body, signal }));
      const same = this.#holds.get(name);
      if (same && same.handle.id === null) return { ...allowed(null, false, true), handle: same.handle };
      if (!answer.allowed || !answer.hold) return { ...answer, handle: null };
      if (answer.hold.state === "released") {
        throw new TollgateError("hold_released", "the hold with this idempotency_key was released; use another key", { status: 409 });
      }
      handle.id = answer.hold.id;
      this.#remember(name, handle);
      return { ...answer, handle };
    } catch (error) {
      const cause = unavailable(error), same = this.#holds.get(name);
      if (same) return { ...allowed(cause, false, true), handle: same.handle };
      if (!this.#mayUse(body, body.quantity)) return { ...refused(cause), handle: null };
      this.#reserve(body, body.quantity);
      this.#remember(name, handle);
      return { ...allowed(cause, false), handle };
    }
  }

  /**
   * settle records what the work used, at most the units on hold. When it returns, the usage is
   * recorded or in the spool.
   */
  async settle(hold: HoldHandle, quantity: number, options: SettleOptions = {}): Promise<Result<Answer<"/v1/holds/{id}/settle">>> {
    if (!Number.isInteger(quantity) || quantity < 1 || quantity > hold.quantity) {
      throw new RangeError(`quantity must be an integer from 1 to ${hold.quantity}, the units on hold: ${quantity}`);
    }
    const id = hold.id;
    if (id === null) return this.#record(hold, quantity, null);
    try {
      return await this.#call((signal) =>
        this.#client.POST("/v1/holds/{id}/settle", { params: { path: { id } }, body: { ...options, quantity }, signal }));
    } catch (error) {
      if (!(error instanceof TollgateError)) throw error;
      if (error.code === "hold_expired") return this.#record(hold, quantity, null);
      if (error.code !== "unavailable" && error.status !== 401 && error.status !== 403) throw error;
      if (!this.#spool) throw error;
      await this.#append({ kind: "settle", hold: true, hold_id: id, ...usage(hold.person, quantity, hold.idempotency_key) });
      this.#spooled(hold, quantity);
      return allowed(error, true);
    }
  }

  // record spools units under the key of a hold that Tollgate will not settle.
  async #record(hold: HoldHandle, quantity: number, cause: TollgateError | null): Promise<Unanswered> {
    const name = workOf(hold.person, hold.idempotency_key);
    const known = this.#holds.get(name);
    if (known?.spooled !== undefined) {
      if (known.spooled !== quantity) throw new TollgateError("hold_settled", "this hold was settled with another quantity");
      return allowed(cause, true, true);
    }
    if (!this.#spool) throw new TollgateError("hold_expired", "the hold has expired, and there is no spool", { status: 409 });
    this.#spooled(hold, quantity);
    const granted = hold.id === null;
    try {
      const entry = usage(hold.person, quantity, hold.idempotency_key);
      await this.#append({ kind: "event", hold: true, ...(granted ? { granted } : {}), ...entry });
    } catch (error) {
      delete this.#holds.get(name)?.spooled;
      throw error;
    }
    if (granted) this.#reserve(hold.person, -hold.quantity);
    return allowed(cause, true);
  }

  /** release gives the units back. If Tollgate is unreachable, the hold expires instead. */
  async release(hold: HoldHandle): Promise<Result<Answer<"/v1/holds/{id}/release">>> {
    const id = hold.id;
    if (id === null) {
      const name = workOf(hold.person, hold.idempotency_key), known = this.#holds.get(name);
      if (known?.spooled !== undefined) throw new TollgateError("hold_settled", "this hold was settled");
      if (known && this.#holds.delete(name)) this.#reserve(hold.person, -hold.quantity);
      return allowed(null, false);
    }
    try {
      return await this.#call((signal) =>
        this.#client.POST("/v1/holds/{id}/release", { params: { path: { id } }, signal }));
    } catch (error) {
      return allowed(unavailable(error), false);
    }
  }

  /**
   * withHold sets units aside, runs work, and records what it used. If work used nothing or throws,
   * the units are given back.
   */
  async withHold<T>(body: HoldBody, work: (hold: HoldHandle) => Promise<Used<T>>): Promise<Work<T>> {
    const { handle, ...held } = await this.hold(body);
    if (!held.allowed || !handle) return { allowed: false, value: null, slack: held.slack, notice: held.notice, decision: held };
    let used: number, value: T;
    try {
      ({ used, value } = await work(handle));
      if (!Number.isInteger(used) || used < 0 || used > handle.quantity) {
        throw new RangeError(`used must be an integer from 0 to ${handle.quantity}, the units on hold: ${used}`);
      }
    } catch (error) {
      await this.release(handle).catch(() => undefined); // the error of the work is the one to report
      throw error;
    }
    const options = body.notify === undefined ? {} : { notify: body.notify };
    const done = used === 0 ? await this.release(handle) : await this.settle(handle, used, options);
    return {
      allowed: true, value, slack: done.slack ?? held.slack, notice: done.notice ?? held.notice,
      decision: { event_id: null, replayed: false, ...done } as Result<Answer<"/v1/holds/{id}/settle">>,
    };
  }

  /** pending returns how many entries of the spool are not recorded yet. */
  get pending(): number {
    return this.#spool?.pending.size ?? 0;
  }

  /** flush tries once to record everything in the spool, and returns how many entries are left. */
  async flush(): Promise<number> {
    await this.#replaying;
    await this.#replay();
    return this.pending;
  }

  /** close stops recording and unlocks the spool. What is left is recorded by the next process. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#timer) clearTimeout(this.#timer);
    await this.#replaying;
    await this.#spool?.close();
  }

  // call tries a call until it gets an answer. It throws a TollgateError, with the code unavailable
  // if there is no answer.
  async #call<A>(send: (signal: AbortSignal) => Promise<Sent<A>>, attempts = this.#options.attempts): Promise<Answered<A>> {
    for (let attempt = 1; ; attempt++) {
      if (this.#closed) throw new TollgateError("closed", "this client is closed");
      const outcome = await this.#attempt(send);
      if (!(outcome instanceof Failure)) return { ...outcome, answered: true };
      const { error, retryAfter } = outcome;
      if (error.code !== "unavailable" || attempt >= attempts || retryAfter > longestWait) throw error;
      await delay(Math.max(retryAfter, 50 * attempt * (1 + Math.random())));
    }
  }

  async #attempt<A>(send: (signal: AbortSignal) => Promise<Sent<A>>): Promise<A | Failure> {
    const { timeout } = this.#options;
    const controller = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new Error(`no answer within ${timeout} ms`));
        controller.abort();
      }, timeout);
    });
    try {
      const { data, error, response } = await Promise.race([send(controller.signal), late]);
      if (response.status === 200 && typeof data === "object" && data !== null) return data;
      const problem = isProblem(error) ? error : null;
      if (response.status === 429 || response.status >= 500 || !problem && response.status < 300) {
        const detail = problem ? `${problem.code}: ${problem.detail}` : "an answer that is not Tollgate's";
        return new Failure(
          new TollgateError("unavailable", `status ${response.status}, ${detail}`, { status: response.status }),
          1_000 * (Number(response.headers.get("Retry-After")) || 0));
      }
      if (problem) return new Failure(new TollgateError(problem.code, problem.detail, { status: response.status, errors: problem.errors }));
      return new Failure(new TollgateError(response.status === 404 ? "not_found" : "unexpected_answer",
        `status ${response.status}, not from Tollgate; is the url right?`, { status: response.status }));
    } catch (cause) {
      return new Failure(new TollgateError("unavailable", `call Tollgate: ${reasonOf(cause)}`, { cause }));
    } finally {
      clearTimeout(timer);
    }
  }

  #mayUse(person: Person, quantity: number): boolean {
    const { outage } = this.#options;
    if (outage === "refuse") return false;
    const name = nameOf(person);
    let units = this.#reserved.get(name) ?? 0;
    for (const entry of this.#spool?.pending.values() ?? []) {
      if (entry.granted && nameOf(entry.person as Person) === name) units += entry.quantity;
    }
    return units + quantity <= outage.allow;
  }

  #reserve(person: Person, quantity: number): void {
    const name = nameOf(person), units = (this.#reserved.get(name) ?? 0) + quantity;
    if (units > 0) this.#reserved.set(name, units);
    else this.#reserved.delete(name);
  }

  #remember(name: string, handle: HoldHandle): void {
    const since = Date.now() - 60 * 60 * 1_000;
    for (const [old, { at }] of this.#holds) {
      if (at >= since) break;
      this.#holds.delete(old);
    }
    const known = this.#holds.get(name);
    if (!known) this.#holds.set(name, { handle, at: Date.now() });
  }

  #spooled(hold: HoldHandle, quantity: number): void {
    const name = workOf(hold.person, hold.idempotency_key);
    const known = this.#holds.get(name) ?? { handle: hold, at: Date.now() };
    known.spooled = quantity;
    this.#holds.set(name, known);
  }

  async #append(entry: Omit<Entry, "seq">): Promise<Entry> {
    let stored: Entry;
    try {
      if (!this.#spool) throw new Error("there is no spool");
      stored = await this.#spool.append(entry);
    } catch (cause) {
      throw new TollgateError("spool_failed", `write the spool: ${reasonOf(cause)}`, { cause });
    }
    if (!this.#timer) this.#replayIn(this.#delay());
    return stored;
  }

  #delay(): number {
    return replayAfter[Math.min(this.#failures, replayAfter.length - 1)] ?? 0;
  }

  #replayIn(milliseconds: number): void {
    if (this.#closed) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      void this.#replay().finally(() => {
        if (this.pending > 0 && !this.#timer) this.#replayIn(this.#delay());
      });
    }, milliseconds);
    this.#timer.unref(); // what is left is on disk
  }

  // replay records the spool, in order. It never throws.
  async #replay(): Promise<void> {
    this.#replaying ??= this.#replayAll().then(
      () => { this.#failures = 0; },
      (error: Error) => {
        this.#failures++;
        if (this.#closed) return;
        const code = error instanceof TollgateError ? error.code : "";
        if (code !== "unavailable") this.#options.onError(new Error(`record the usage in the spool: ${error.message}`, { cause: error }));
      },
    ).finally(() => { this.#replaying = null; });
    return this.#replaying;
  }

  async #replayAll(): Promise<void> {
    const spool = this.#spool;
    while (spool && spool.pending.size > 0) {
      const batch: Entry[] = [];
      for (const entry of spool.pending.values()) {
        if (batch.length === batchSize || batch[0] && (batch[0].kind === "settle" || entry.kind === "settle")) break;
        batch.push(entry);
      }
      const first = batch[0];
      if (first?.kind === "settle" && first.hold_id) await this.#replaySettle(spool, first, first.hold_id);
      else await this.#replayEvents(spool, batch);
    }
  }

  async #replayEvents(spool: Spool, batch: Entry[]): Promise<void> {
    const events = batch.map((e) => ({ ...(e.person as Person), quantity: e.quantity, idempotency_key: e.idempotency_key,
      occurred_at: e.occurred_at })) as Schemas["EventBody"][];
    const { results } = await this.#call((signal) => this.#client.POST("/v1/events", { body: { events }, signal }), 1);
    const done: Entry[] = [];
    for (const [i, entry] of batch.entries()) {
      const result = results[i];
      if (!result) throw new TollgateError("unavailable", "the answer of /v1/events has too few results");
      if (result.status === "recorded" || result.status === "duplicate") done.push(entry);
      else await this.#reject(spool, entry, `${result.status}: ${result.error ?? ""}`);
    }
    await spool.finish(done);
    for (const entry of batch) if (!entry.hold) this.#consumed.delete(workOf(entry.person as Person, entry.idempotency_key));
  }

  // No one sees this answer, so it must have no message. Each warning level has only one message, which
  // this call would use up.
  async #replaySettle(spool: Spool, entry: Entry, id: string): Promise<void> {
    try {
      const body = { quantity: entry.quantity, notify: "never" as const };
      await this.#call((signal) => this.#client.POST("/v1/holds/{id}/settle", { params: { path: { id } }, body, signal }), 1);
    } catch (error) {
      if (!(error instanceof TollgateError)) throw error;
      if (error.code === "hold_expired") return this.#replayEvents(spool, [entry]);
      if (error.status !== 404 && error.status !== 409 && error.status !== 422 || error.code === "not_found") throw error;
      return this.#reject(spool, entry, error.message);
    }
    await spool.finish([entry]);
  }

  async #reject(spool: Spool, entry: Entry, error: string): Promise<void> {
    await spool.reject(entry, error);
    this.#options.onError(new Error(`moved to the spool's .rejected file: ${JSON.stringify(entry)}: ${error}`));
  }
}

type Sent<A> = { data?: A; error?: unknown; response: Response };

class Failure {
  constructor(readonly error: TollgateError, readonly retryAfter = 0) {}
}

function isProblem(value: unknown): value is Schemas["Problem"] {
  const problem = value as Partial<Schemas["Problem"]> | null | undefined;
  return typeof problem === "object" && problem !== null && typeof problem.code === "string" && typeof problem.detail === "string";
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error && error.cause.message ? `${error.message}: ${error.cause.message}` : error.message;
}

// unavailable returns the error of a call without an answer, and throws every other one.
function unavailable(error: unknown): TollgateError {
  if (error instanceof TollgateError && error.code === "unavailable") return error;
  throw error;
}

const reused = () => new TollgateError("idempotency_key_reused", "this key was used with another quantity", { status: 409 });

function repeated(entry: Entry, quantity: number): Unanswered {
  if (entry.quantity !== quantity) throw reused();
  return allowed(null, true, true);
}

function personOf(body: Person): Person {
  const { email, slack_team_id, slack_user_id } = body;
  const person = { ...(email === undefined ? {} : { email }), ...(slack_team_id === undefined ? {} : { slack_team_id, slack_user_id }) };
  return person as Person;
}

// nameOf returns the name by which the outage policy counts a person: the Slack identity if the call
// has one, otherwise the email.
function nameOf(person: Person): string {
  return person.slack_team_id !== undefined ? JSON.stringify([person.slack_team_id, person.slack_user_id])
    : (person.email ?? "").trim().toLowerCase();
}

function workOf(person: Person, key: string): string {
  return `${nameOf(person)} ${key}`;
}

function usage(person: Person, quantity: number, key: string): Omit<Entry, "seq" | "kind"> {
  return { person: personOf(person) as Record<string, string>, quantity, idempotency_key: key, occurred_at: new Date().toISOString() };
}

function allowed(cause: TollgateError | null, spooled: boolean, replayed = false): Unanswered {
  return { answered: false, allowed: true, reason: null, notice: null, slack: null, event_id: null, replayed, spooled, cause };
}

function refused(cause: TollgateError): Unanswered {
  const notice = "Your usage can't be checked right now. Please try again in a minute.";
  const slack: SlackMessage = {
    response_type: "ephemeral", text: notice, blocks: [{ type: "section", text: { type: "mrkdwn", text: notice } }],
  };
  return { answered: false, allowed: false, reason: "unavailable", notice, slack, event_id: null, replayed: false, spooled: false, cause };
}
