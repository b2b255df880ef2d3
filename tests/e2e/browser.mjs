// One Chromium for the end-to-end tests; each test gets a context of its own. Console errors fail the test.
import { chromium } from "playwright-core";
import fs from "node:fs";
import { PNG } from "pngjs";

export const URL_BASE = process.env.SPHEROSEG_URL;
export const IMAGES = JSON.parse(process.env.SPHEROSEG_IMAGES ?? "[]");
export const SHOTS = process.env.SPHEROSEG_SHOTS ?? new URL("./screenshots", import.meta.url).pathname;
fs.mkdirSync(SHOTS, { recursive: true });

// No address but loopback is ever looked up; everything that would phone home is off.
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
  "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"];

export async function launch() {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
}

/** A page whose console errors and uncaught exceptions are collected in page.problems. */
export async function newPage(browser, options = {}) {
  const context = await browser.newContext({
    ignoreHTTPSErrors: true, viewport: { width: 1440, height: 900 }, locale: "en-GB", ...options });
  const page = await context.newPage();
  page.problems = [];
  page.on("console", (m) => { if (m.type() === "error") page.problems.push(`${m.text()} @ ${m.location().url}`); });
  page.on("pageerror", (e) => page.problems.push(String(e)));
  return page;
}

export const id = (name) => `[data-testid="${name}"]`;

export async function register(page, email = `e2e-${Date.now()}-${Math.random().toString(36).slice(2)}@example.org`) {
  await page.goto(URL_BASE);
  await page.locator(id("register-toggle")).click();
  await page.locator(id("signin-email")).fill(email);
  await page.locator(id("signin-password")).fill("a long enough password");
  await page.locator(id("signin-submit")).click();
  await page.locator(id("project-create")).first().waitFor();
  return email;
}

export async function createProject(page, title) {
  await page.locator(id("project-create")).first().click();
  await page.locator(id("project-title-input")).fill(title);
  await page.locator(id("project-create-submit")).click();
  await page.locator(id("upload-input")).first().waitFor({ state: "attached" });
}

export async function shot(page, name) {
  await page.screenshot({ path: `${SHOTS}/${name}.png` });
}

/** Polls fn in the page until it returns something true. (waitForFunction needs eval, which our CSP rightly forbids.) */
export async function until(page, fn, { arg = null, timeout = 30_000 } = {}) {
  for (const end = Date.now() + timeout; Date.now() < end; await new Promise((r) => setTimeout(r, 100))) {
    if (await page.evaluate(fn, arg)) return;
  }
  throw new Error(`not within ${timeout} ms: ${fn}`);
}

/** Share of clearly coloured pixels in an element: the images are grey, the outlines are not. */
export async function colouredPixels(page, selector) {
  const png = PNG.sync.read(await page.locator(selector).first().screenshot());
  let coloured = 0;
  for (let i = 0; i < png.data.length; i += 4) {
    const [r, g, b] = [png.data[i], png.data[i + 1], png.data[i + 2]];
    if (Math.max(r, g, b) - Math.min(r, g, b) > 60) coloured++;
  }
  return coloured / (png.data.length / 4);
}

/** WCAG findings of axe on the page as it is. */
export async function axe(page) {
  const source = fs.readFileSync(new URL("./node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
  await page.evaluate(source);
  const found = await page.evaluate(() => window.axe.run(document, {
    runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] }));
  return found.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target.join(" ")).slice(0, 3).join(", ")}`);
}
