// Rules that the compiler does not check: length of files, forbidden constructs, keys in all catalogues.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const MAX_LINES = 600;
const rules = [
  [/\beval\s*\(|new Function\b/, "no code from strings: the content security policy forbids it"],
  [/\binnerHTML\b|dangerouslySetInnerHTML/, "no markup from strings"],
  [/\bconsole\.(log|debug)\b/, "no notes to the console"],
  [/\bany\b(?=[\s;,)>\]|=])(?<=: any|<any|as any)/, "no any"],
  [/@ts-(ignore|nocheck)/, "no silenced compiler"],
];
const problems = [];

function check(path) {
  const text = readFileSync(path, "utf8");
  const lines = text.split("\n");
  if (lines.length > MAX_LINES) problems.push(`${path}: ${lines.length} lines, at most ${MAX_LINES}`);
  lines.forEach((line, at) => {
    for (const [pattern, why] of rules) if (pattern.test(line)) problems.push(`${path}:${at + 1}: ${why}`);
  });
}

function walk(folder) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) walk(path);
    else if (/\.(ts|tsx)$/.test(entry.name)) check(path);
    else if (/\.css$/.test(entry.name) && readFileSync(path, "utf8").split("\n").length > MAX_LINES) problems.push(`${path}: too long`);
  }
}

walk("src");
walk("test");
for (const problem of problems) console.error(problem);
process.exit(problems.length ? 1 : 0);
