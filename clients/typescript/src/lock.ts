import { closeSync, fsyncSync, linkSync, openSync, readFileSync, renameSync, unlinkSync, writeSync } from "node:fs";
import { randomUUID } from "node:crypto";

// The locks of this process, by path.
const held = new Set<string>();

/**
 * lock makes sure that only one process uses a spool, and returns a function that releases the lock. A
 * process that was killed leaves its lock file behind, so the file names its process, and the lock
 * of a process that is gone is taken over.
 */
export function lock(path: string): () => void {
  if (held.has(path)) throw new Error(`lock ${JSON.stringify(path)}: another client of this process uses this spool`);
  const mine = JSON.stringify({ pid: process.pid, started: startOf(process.pid), id: randomUUID() }) + "\n";
  for (let tries = 0; ; tries++) {
    try {
      const fd = openSync(path, "wx", 0o600);
      try {
        writeSync(fd, mine);
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST" || tries === 5) throw error;
    }
    takeOver(path);
  }
  held.add(path);
  return () => {
    held.delete(path);
    if (read(path) === mine) unlinkSync(path);
  };
}

// takeOver removes the lock of a process that is gone. It throws if the process is running.
function takeOver(path: string): void {
  const theirs = read(path);
  if (theirs === null) return;
  const pid = owner(theirs);
  if (pid !== null) throw new Error(`lock ${JSON.stringify(path)}: process ${pid} uses this spool; give each process its own`);
  const aside = `${path}.${randomUUID()}`;
  try {
    renameSync(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  // Another process may have taken the lock over in between. Then it gets its lock back.
  const same = read(aside) === theirs;
  if (!same) linkSync(aside, path);
  unlinkSync(aside);
}

function read(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}

// owner returns the process of a lock; null if it is gone. Process IDs are used again, and in a
// container a process often has the ID of the previous one. So on Linux, the start times are
// compared, too.
function owner(content: string): number | null {
  let pid: unknown, started: unknown;
  try {
    ({ pid, started } = JSON.parse(content) as { pid: unknown; started: unknown });
  } catch {
    return null; // incomplete: the process was killed while it wrote the file
  }
  if (typeof pid !== "number" || pid === process.pid) return null;
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return null;
  }
  const now = startOf(pid);
  return now !== null && now !== started ? null : pid;
}

// startOf returns when a process started, as text that is compared only; null if unknown.
function startOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return `${readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim()}/${fields[19]}`;
  } catch {
    return null;
  }
}
