// Tests the package as `npm pack` makes it: its files, its types, and the examples of the docs.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { folder } from "./server.mjs";

const here = fileURLToPath(new URL("..", import.meta.url)), root = join(here, "..", "..");
let app; // a folder in which the packed file is installed

before((t) => {
  app = folder(t);
  const packed = execFileSync("npm", ["pack", "--ignore-scripts", "--json", "--pack-destination", app], { cwd: here, encoding: "utf8" });
  const [{ filename }] = JSON.parse(packed);
  const modules = join(app, "node_modules");
  mkdirSync(join(modules, "tollgate-client"), { recursive: true });
  execFileSync("tar", ["-xzf", join(app, filename), "--strip-components=1", "-C", join(modules, "tollgate-client")]);
  for (const name of ["openapi-fetch", "openapi-typescript-helpers", "@types"]) {
    symlinkSync(join(here, "node_modules", name), join(modules, name));
  }
  writeFileSync(join(app, "package.json"), '{ "type": "module" }\n');
});

test("the packed file can be imported", () => {
  const installed = join(app, "node_modules", "tollgate-client");
  assert.deepEqual(readdirSync(installed).sort(), ["LICENSE", "README.md", "dist", "package.json"]);
  assert.equal(readFileSync(join(installed, "LICENSE"), "utf8"), readFileSync(join(root, "LICENSE"), "utf8"));
  const { dependencies, license } = JSON.parse(readFileSync(join(installed, "package.json"), "utf8"));
  assert.deepEqual([Object.keys(dependencies), license], [["openapi-fetch"], "Apache-2.0"]);
  const names = execFileSync(process.execPath, ["--input-type=module", "--eval",
    'console.log(Object.keys(await import("tollgate-client")).join())'], { cwd: app, encoding: "utf8" });
  assert.equal(names, "Tollgate,TollgateError\n");
});

// What the examples use besides the client. A line of `missing` must not compile.
const given = `
declare const tollgate: Tollgate;
declare const slack_team_id: string, slack_user_id: string, email: string, idempotency_key: string;
declare function respond(message: SlackMessage | { text: string }): Promise<void>;
declare function write(count: number): Promise<string[]>;
`;

const wrong = [
  'tollgate.check({ emial: "ada@example.com" })',
  'tollgate.check({ email: "ada@example.com", emial: "ada@example.com" })',
  "tollgate.check({ slack_team_id })",
  "tollgate.check({})",
  "tollgate.consume({ email })",
  'tollgate.consume({ email, idempotency_key, quantity: "2" })',
  "tollgate.hold({ email, idempotency_key })",
  "tollgate.withHold({ email, quantity: 1, idempotency_key }, async () => 1)",
  "(await tollgate.consume({ email, idempotency_key })).used",
  "(await tollgate.consume({ email, idempotency_key })).slack.text",
  "tollgate.settle((await tollgate.hold({ email, quantity: 1, idempotency_key })).handle, 1)",
  'new Tollgate({ url: "", apiKey: "", outage: { allow: 1 } })',
  'new Tollgate({ url: "", apiKey: "", outage: "allow", spool: "" })',
];

test("the compiler accepts the examples of the docs, and refuses wrong calls", () => {
  const files = [];
  const add = (name, text) => {
    writeFileSync(join(app, name), text);
    files.push(name);
  };
  const docs = ["README.md", ...readdirSync(join(root, "docs")).filter((name) => name.endsWith(".md")).map((name) => join("docs", name)),
    "clients/typescript/README.md", "examples/bolt/README.md"];
  for (const doc of docs.filter((name) => existsSync(join(root, name)))) {
    for (const [i, [, code]] of [...readFileSync(join(root, doc), "utf8").matchAll(/^```ts\n(.*?)^```$/gms)].entries()) {
      // An example may return, so it is in a function. It may declare what is given.
      const imports = code.split("\n").filter((line) => line.startsWith("import "));
      const rest = code.split("\n").filter((line) => !line.startsWith("import "));
      const needed = imports.some((line) => /\bTollgate\b/.test(line)) ? "" : 'import { Tollgate } from "tollgate-client";';
      add(`${doc.replaceAll(/\W+/g, "-")}-${i + 1}.ts`, ['import type { SlackMessage } from "tollgate-client";', needed, ...imports, given,
        "export async function example() {", ...rest, "}"].join("\n"));
    }
  }
  assert.ok(files.length >= 7, `the docs have ${files.length} examples`);
  add("wrong.ts", ['import { Tollgate } from "tollgate-client";', 'import type { SlackMessage } from "tollgate-client";', given,
    ...wrong.flatMap((line) => ["// @ts-expect-error", `void ${line};`])].join("\n"));
  writeFileSync(join(app, "tsconfig.json"), JSON.stringify({
    compilerOptions: {
      strict: true, noEmit: true, target: "es2022", module: "nodenext", lib: ["es2023"],
      types: ["node"], typeRoots: [join(here, "node_modules", "@types")],
    },
    files,
  }));
  try {
    const tsc = join(here, "node_modules", "typescript", "bin", "tsc");
    execFileSync(process.execPath, [tsc, "--project", app], { encoding: "utf8", stdio: "pipe" });
  } catch (error) {
    assert.fail(`tsc:\n${error.stdout}${error.stderr}`);
  }
});
