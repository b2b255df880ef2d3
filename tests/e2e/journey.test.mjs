// The journey of a biologist in a real browser: register, upload, watch it live, see outlines, come back later.
import assert from "node:assert/strict";
import test, { after, before } from "node:test";
import { IMAGES, URL_BASE, axe, colouredPixels, createProject, id, launch, newPage, register, shot, until } from "./browser.mjs";

let browser;
before(async () => { browser = await launch(); });
after(async () => { await browser?.close(); });

/** Notes every state that a card shows, from now on, without reloading. */
async function recordStates(page) {
  await page.evaluate(() => {
    window.__states = {};
    const note = () => document.querySelectorAll('[data-testid="image-card"]').forEach((card) => {
      const list = (window.__states[card.dataset.imageId] ??= []);
      if (list.at(-1) !== card.dataset.state) list.push(card.dataset.state);
    });
    new MutationObserver(note).observe(document.body, { subtree: true, childList: true, attributes: true });
    note();
  });
}

test("sign-in page", async () => {
  const page = await newPage(browser);
  await page.goto(URL_BASE);
  await page.locator(id("signin-email")).waitFor();
  await shot(page, "signin");
  assert.deepEqual(await axe(page), []);
  await page.locator(id("signin-email")).fill("nobody@example.org");
  await page.locator(id("signin-password")).fill("certainly the wrong one");
  await page.locator(id("signin-submit")).click();
  await page.locator('[role="alert"]').first().waitFor();
  assert.match(await page.locator('[role="alert"]').first().innerText(), /\w+ \w+/);
  await page.context().close();
});

test("register, upload, live status, outlines, reload", { timeout: 240_000 }, async () => {
  const page = await newPage(browser);
  await register(page);
  await shot(page, "projects-empty");
  await createProject(page, "First spheroids");
  await recordStates(page);
  await page.locator(id("upload-input")).first().setInputFiles(IMAGES);
  await page.locator(id("image-card")).first().waitFor();
  await until(page, () => Object.values(window.__states).flat().some((s) => s === "active" || s === "queued"));
  await shot(page, "gallery-processing");
  await until(page, (n) => document.querySelectorAll('[data-testid="image-card"][data-state="completed"]').length === n,
    { arg: IMAGES.length, timeout: 150_000 });
  const states = await page.evaluate(() => Object.values(window.__states));
  assert.ok(states.some((s) => s.includes("active")), `never seen running: ${JSON.stringify(states)}`);
  await page.waitForTimeout(800);
  await shot(page, "gallery-done");
  assert.deepEqual(await axe(page), []);

  await page.locator(id("image-card")).first().click();
  await until(page, () => window.__viewerReady === true);
  const count = Number((await page.locator(id("object-count")).first().innerText()).replace(/\D/g, ""));
  assert.ok(count > 0);
  const share = await colouredPixels(page, id("viewer-canvas"));
  assert.ok(share > 0.0005, `outlines cover ${share} of the canvas`);
  await shot(page, "viewer");
  assert.deepEqual(await axe(page), []);

  const address = page.url();
  await page.reload();
  await until(page, () => window.__viewerReady === true);
  assert.equal(page.url(), address);
  assert.equal(Number((await page.locator(id("object-count")).first().innerText()).replace(/\D/g, "")), count);
  assert.ok(await colouredPixels(page, id("viewer-canvas")) > 0.0005);

  await page.locator(id("object-row")).first().click();
  await page.waitForTimeout(600);
  await shot(page, "viewer-selected");
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test("a refused file says why", { timeout: 60_000 }, async () => {
  const page = await newPage(browser);
  await register(page);
  await createProject(page, "Bad files");
  await page.locator(id("upload-input")).first().setInputFiles({ name: "diary.tif", mimeType: "image/tiff", buffer: Buffer.from("Dear diary, no image today.") });
  await page.getByText("diary.tif").first().waitFor();
  await until(page, () => /not|cannot|format|image/i.test(document.body.innerText) && document.body.innerText.includes("diary.tif"));
  await shot(page, "upload-refused");
  await page.context().close();
});

test("live state survives a lost connection", { timeout: 60_000 }, async () => {
  const page = await newPage(browser);
  await register(page);
  await until(page, () => document.querySelector('[data-testid="connection-state"]')?.dataset.state === "live");
  await page.context().setOffline(true);
  await until(page, () => document.querySelector('[data-testid="connection-state"]')?.dataset.state !== "live", { timeout: 45_000 });
  await page.context().setOffline(false);
  await until(page, () => document.querySelector('[data-testid="connection-state"]')?.dataset.state === "live", { timeout: 45_000 });
  await page.context().close();
});

for (const [name, options] of [["dark", { colorScheme: "dark" }], ["phone", { viewport: { width: 390, height: 844 } }],
  ["small", { viewport: { width: 1024, height: 768 } }]]) {
  test(`other screens: ${name}`, { timeout: 60_000 }, async () => {
    const page = await newPage(browser, options);
    await register(page);
    await createProject(page, "Look");
    await page.locator(id("upload-input")).first().setInputFiles(IMAGES.slice(0, 1));
    await page.locator(`${id("image-card")}[data-state="completed"]`).first().waitFor({ timeout: 45_000 });
    await page.waitForTimeout(500);
    await shot(page, `gallery-${name}`);
    assert.deepEqual(await axe(page), []);
    await page.locator(id("image-card")).first().click();
    await until(page, () => window.__viewerReady === true);
    await shot(page, `viewer-${name}`);
    for (const path of ["queue", "models", "settings"]) {
      await page.goto(`${URL_BASE}/${path}`);
      await page.waitForLoadState("networkidle").catch(() => {});
      await page.waitForTimeout(400);
      await shot(page, `${path}-${name}`);
      assert.deepEqual(await axe(page), [], path);
    }
    const wide = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth + 1);
    assert.equal(wide, false, "the page scrolls sideways");
    assert.deepEqual(page.problems, []);
    await page.context().close();
  });
}
