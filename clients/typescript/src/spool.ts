import * as fs from "node:fs";
import { open } from "node:fs/promises";
import { dirname } from "node:path";
import { promisify } from "node:util";
import { lock } from "./lock.js";

/** Entry is usage to record later. */
export interface Entry {
  seq: number;
  /** event: goes to POST /v1/events. settle: the settlement of a hold is repeated. */
  kind: "event" | "settle";
  person: Record<string, string>;
  quantity: number;
  idempotency_key: string;
  occurred_at: string;
  /** The key is the key of a hold. */
  hold?: boolean;
  /** The hold to settle. */
  hold_id?: string;
  /** The outage policy allowed these units. */
  granted?: boolean;
}

const write = promisify(fs.appendFile), sync = promisify(fs.fsync);

type Line = Entry | { done: number } | { rejected: number; error: string };

// remember is how long the recorded usage of a hold stays in the file. While it is there, a repeated
// call for the same hold finds it, also after a restart.
const remember = 60 * 60 * 1000;

// compactAt is the size in bytes from which the file is rewritten when everything is recorded.
const compactAt = 1 << 20;

/**
 * Spool is an append-only file of JSON lines. An entry is on disk when append returns. A line that
 * was cut off by a crash is removed, because its append has not returned.
 */
export class Spool {
  /** The entries that are not recorded yet, in order. */
  readonly pending = new Map<number, Entry>();
  /** Recorded usage of holds of the last hour. */
  readonly recent: Entry[] = [];

  readonly #path: string;
  readonly #unlock: () => void;
  #fd: number;
  #size = 0;
  #seq = 0;
  #broken: unknown = null;
  #queue: { line: string; done: (error?: unknown) => void }[] = [];
  #writing: Promise<void> | null = null;

  constructor(path: string) {
    this.#path = path;
    this.#unlock = lock(path + ".lock");
    try {
      this.#fd = this.#load();
    } catch (error) {
      this.#unlock();
      throw error;
    }
  }

  // load reads the file and writes it again without what is no longer needed.
  #load(): number {
    let content: Buffer;
    try {
      content = fs.readFileSync(this.#path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      content = Buffer.alloc(0);
    }
    const lines = content.toString("utf8").split("\n");
    lines.pop(); // empty, or a line that was cut off
    const done = new Map<number, Entry>();
    for (const [i, text] of lines.entries()) {
      let line: Line;
      try {
        line = JSON.parse(text) as Line;
      } catch (error) {
        const where = `read spool ${JSON.stringify(this.#path)}, line ${i + 1}`;
        throw new Error(`${where}: ${String(error)}; correct the line, or move the file away`, { cause: error });
      }
      if ("seq" in line) {
        this.#seq = Math.max(this.#seq, line.seq);
        this.pending.set(line.seq, line);
        continue;
      }
      const seq = "done" in line ? line.done : line.rejected;
      const entry = this.pending.get(seq);
      if (entry?.hold && "done" in line) done.set(seq, entry);
      this.pending.delete(seq);
    }
    const since = Date.now() - remember;
    for (const entry of done.values()) if (Date.parse(entry.occurred_at) >= since) this.recent.push(entry);
    return this.#rewrite();
  }

  // rewrite replaces the file with one that has only recent and pending entries.
  #rewrite(): number {
    const lines: Line[] = [];
    for (const entry of this.recent) lines.push(entry, { done: entry.seq });
    lines.push(...this.pending.values());
    const content = lines.map((line) => JSON.stringify(line) + "\n").join("");
    const fresh = this.#path + ".new";
    const file = fs.openSync(fresh, "w", 0o600);
    try {
      fs.writeFileSync(file, content);
      fs.fsyncSync(file);
    } finally {
      fs.closeSync(file);
    }
    fs.renameSync(fresh, this.#path);
    const folder = fs.openSync(dirname(this.#path), "r");
    try {
      fs.fsyncSync(folder);
    } finally {
      fs.closeSync(folder);
    }
    this.#size = Buffer.byteLength(content);
    return fs.openSync(this.#path, "a", 0o600);
  }

  /** append stores an entry. It throws if the entry is not certainly on disk. */
  async append(entry: Omit<Entry, "seq">): Promise<Entry> {
    const stored = { seq: ++this.#seq, ...entry };
    await this.#write(stored);
    this.pending.set(stored.seq, stored);
    return stored;
  }

  /** finish notes that entries are recorded. */
  async finish(entries: Entry[]): Promise<void> {
    await Promise.all(entries.map((entry) => this.#write({ done: entry.seq })));
    for (const entry of entries) {
      this.pending.delete(entry.seq);
      if (entry.hold) this.recent.push(entry);
    }
    if (this.pending.size === 0 && this.#size > compactAt && !this.#writing) this.#compact();
  }

  /** reject notes that Tollgate refuses an entry for good. The entry goes to a file for people. */
  async reject(entry: Entry, error: string): Promise<void> {
    const file = await open(this.#path + ".rejected", "a", 0o600);
    try {
      await file.appendFile(JSON.stringify({ ...entry, error }) + "\n");
      await file.sync();
    } finally {
      await file.close();
    }
    await this.#write({ rejected: entry.seq, error });
    this.pending.delete(entry.seq);
  }

  #compact(): void {
    const since = Date.now() - remember;
    const kept = this.recent.filter((entry) => Date.parse(entry.occurred_at) >= since);
    this.recent.splice(0, Infinity, ...kept);
    const old = this.#fd;
    this.#fd = this.#rewrite();
    fs.closeSync(old);
  }

  #write(line: Line): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ line: JSON.stringify(line) + "\n", done: (error) => (error === undefined ? resolve() : reject(error)) });
      this.#writing ??= this.#drain();
    });
  }

  // drain writes the lines that wait, and flushes them together.
  async #drain(): Promise<void> {
    await Promise.resolve(); // calls of the same moment share a flush
    while (this.#queue.length > 0) {
      const batch = this.#queue;
      this.#queue = [];
      const error = await this.#flush(batch.map((waiting) => waiting.line).join(""));
      for (const waiting of batch) waiting.done(error);
    }
    this.#writing = null;
  }

  async #flush(text: string): Promise<unknown> {
    if (this.#broken) return this.#broken;
    try {
      await write(this.#fd, text);
      await sync(this.#fd);
      this.#size += Buffer.byteLength(text);
      return undefined;
    } catch (error) {
      // The next line must not follow half a line.
      try {
        fs.ftruncateSync(this.#fd, this.#size);
      } catch (worse) {
        this.#broken = worse;
      }
      return error;
    }
  }

  async close(): Promise<void> {
    await this.#writing;
    this.#broken = new Error("the spool is closed");
    fs.closeSync(this.#fd);
    this.#unlock();
  }
}
