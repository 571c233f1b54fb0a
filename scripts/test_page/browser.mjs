// A server and a browser for the tests of the page.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const { BIN, ENGINE, SHOTS, CHROMIUM } = process.env;
const axe = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const children = [];

/** Waits until something is so. */
export async function until(what, isSo, seconds = 30) {
  const deadline = Date.now() + seconds * 1000;
  while (!(await isSo())) {
    if (Date.now() > deadline) throw new Error(`in vain: ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

/** Starts a server; gives its address. */
export async function serve(...flags) {
  const dir = mkdtempSync(join(tmpdir(), 'test-page-'));
  const ready = join(dir, 'ready');
  const all = ['--engine', ENGINE, '--port', '0', '--ready-file', ready, '--served-model-name', 'demo', ...flags];
  children.push(spawn(join(BIN, 'serve-engine'), all, { stdio: ['ignore', 'ignore', 'ignore'] }));
  await until('the server listens', () => existsSync(ready));
  const base = `http://${readFileSync(ready, 'utf8').trim()}/`;
  await until('the engine is open', async () => (await fetch(`${base}ready`)).ok);
  return base;
}

export function keyFile(key) {
  const path = join(mkdtempSync(join(tmpdir(), 'test-page-')), 'keys');
  writeFileSync(path, `ann:${key}\n`);
  return path;
}

export const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });

export async function end() {
  await browser.close();
  for (const child of children) child.kill();
}

/** A page, with what a browser has to complain about in `page.problems`, and what it asked for in `page.asked`. */
export async function open(url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 860 }, ...options });
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.problems = [];
  page.asked = [];
  page.on('console', (message) => {
    // That an answer is an error is what some tests are about.
    const isAnswer = message.text().startsWith('Failed to load resource: the server responded with a status of 4');
    if (['error', 'warning'].includes(message.type()) && !isAnswer) page.problems.push(message.text());
  });
  page.on('pageerror', (error) => page.problems.push(error.stack));
  page.on('dialog', (dialog) => page.problems.push(`a dialog: ${dialog.message()}`));
  page.on('request', (request) => page.asked.push(request));
  await page.goto(url);
  return page;
}

export async function opened(base, options) {
  const page = await open(`${base}ui`, options);
  await page.waitForFunction(() => document.getElementById('model-name').textContent === 'demo');
  return page;
}

export const shot = (page, name) => SHOTS && page.screenshot({ path: join(SHOTS, `${name}.png`) });

/** Checks by axe-core's rules; gives those that are broken. */
export async function axeFindings(page) {
  // By the debugger's way, which the page's policy does not stop.
  await page.evaluate(readFileSync(axe, 'utf8'));
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ['violations'] }));
  return violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join('\n')}`);
}

export const choose = (page, name, value) => page.locator(`input[name="${name}"][value="${value}"]`).check({ force: true });

/** Waits for the end of a run. */
export const done = (page) => page.locator('#stop').waitFor({ state: 'hidden' });

export async function run(page) {
  await page.click('#run');
  await done(page);
}

/** The body of the last request to a path. */
export const sent = (page, path) => page.asked.filter((request) => new URL(request.url()).pathname === path).at(-1)?.postDataJSON();

export async function post(base, path, body) {
  const response = await fetch(base + path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
  return response.json();
}

export async function metric(base, line) {
  const page = await (await fetch(`${base}metrics`)).text();
  return Number(page.split('\n').find((one) => one.startsWith(line)).split(' ').at(-1));
}
