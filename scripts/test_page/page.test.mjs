// The page as a person uses it. A number S in a name is one of the behaviours that users of other servers' pages asked for.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { Readable } from 'node:stream';
import { after, test } from 'node:test';
import { axeFindings, choose, done, end, keyFile, metric, open, opened, post, run, sent, serve, shot, until } from './browser.mjs';

const PROMPT = 'Complete the paragraph: our solar system is';
const base = await serve();
after(end);

const text = (page) => page.inputValue('#text');
const tokens = (page) => page.locator('.token').allTextContents();
const strip = (page, name) => page.textContent(`#strip-${name}`);
const parameter = (page, name, value) => page.fill(`#parameter-${name}`, String(value));

async function completed(page, prompt = PROMPT) {
  await page.fill('#text', prompt);
  await run(page);
}

/** Ends a test: nothing was complained about, and nobody else was asked for anything. */
async function close(page) {
  assert.deepEqual(page.problems, []);
  for (const request of page.asked) assert.equal(new URL(request.url()).origin, new URL(page.url()).origin);
  await page.context().close();
}

test('a completion goes on where the text ends, as the API answers', async () => {
  const page = await opened(base);
  await shot(page, 'start');
  await parameter(page, 'seed', 7);
  await parameter(page, 'temperature', 1);
  await completed(page);
  const { choices } = await post(base, 'v1/completions', { prompt: PROMPT, seed: 7, temperature: 1, max_tokens: 200 });
  assert.equal(await text(page), PROMPT + choices[0].text);
  assert.equal(await page.locator('#mirror mark').allTextContents().then((all) => all.join('')), choices[0].text);
  assert.equal(await strip(page, 'finish'), choices[0].finish_reason);
  assert.equal(await strip(page, 'seed'), '7');
  assert.match(await strip(page, 'first'), /^\d+ ms$/);
  assert.match(await strip(page, 'cache'), /^\d+ %$/);
  await shot(page, 'complete');
  await choose(page, 'view', 'tokens');
  assert.equal((await page.locator('.token:not(.special)').allTextContents()).join(''), choices[0].text);
  await close(page);
});

test('S47: speed is shown while the text comes, and the text comes in pieces', async () => {
  const page = await opened(base);
  await parameter(page, 'max_tokens', 900);
  await parameter(page, 'extra', '{"ignore_eos": true}');
  await page.fill('#text', PROMPT);
  await page.evaluate(() => {
    window.lengths = new Set();
    const shown = document.getElementById('mirror');
    const look = () => window.lengths.add(shown.textContent.length);
    new MutationObserver(look).observe(shown, { subtree: true, childList: true, characterData: true });
  });
  await run(page);
  const lengths = await page.evaluate(() => [...window.lengths]);
  assert.ok(lengths.length > 3, `${lengths}`);
  assert.equal(await strip(page, 'generated'), '900');
  assert.match(await strip(page, 'speed'), /^[\d.]+ tok\/s$/);
  await close(page);
});

test('Stop ends the request at the server', async () => {
  const page = await opened(base);
  await parameter(page, 'max_tokens', 1000);
  await parameter(page, 'extra', '{"ignore_eos": true}');
  const before = await metric(base, 'serve_cancelled_total{model_name="demo",cause="client"}');
  await page.fill('#text', PROMPT);
  await page.click('#run');
  await until('text comes', async () => (await text(page)).length > PROMPT.length);
  await page.keyboard.press('Escape');
  await done(page);
  assert.equal(await strip(page, 'finish'), 'stopped');
  assert.ok(Number(await strip(page, 'generated')) < 1000);
  await until('the server runs nothing', async () => (await metric(base, 'trtllm_num_requests_running')) === 0);
  assert.equal(await metric(base, 'serve_cancelled_total{model_name="demo",cause="client"}'), before + 1);
  // What came is kept, and gone on with by its tokens.
  const kept = await text(page);
  await parameter(page, 'max_tokens', 5);
  await run(page);
  assert.ok((await text(page)).startsWith(kept));
  assert.ok(Array.isArray(sent(page, '/v1/completions').prompt));
  await close(page);
});

test('S44: another token is chosen, and the text goes on from exactly these tokens', async () => {
  const page = await opened(base);
  await parameter(page, 'max_tokens', 40);
  await completed(page);
  await choose(page, 'view', 'tokens');
  const { choices } = await post(base, 'v1/completions', { prompt: PROMPT, max_tokens: 40, return_token_ids: true });
  const before = await tokens(page);
  await page.locator('.token').nth(4).click();
  await page.locator('#details .alternative').first().waitFor();
  assert.equal(await page.locator('#details .alternative').count(), 5);
  await shot(page, 'tokens');
  assert.deepEqual(await axeFindings(page), []);
  const other = page.locator('#details .alternative:not(:disabled)').first();
  await until('the alternative has its text', async () => (await other.locator('.text').textContent()) !== '');
  const chosen = (await other.locator('.text').textContent()).replaceAll('␣', ' ').replaceAll('↵', '\n');
  await other.click();
  await done(page);
  const { prompt } = sent(page, '/v1/completions');
  const known = [...choices[0].prompt_token_ids, ...choices[0].token_ids.slice(0, 4)];
  assert.deepEqual(prompt.slice(0, -1), known);
  assert.notEqual(prompt.at(-1), choices[0].token_ids[4]);
  const again = await post(base, 'v1/completions', { prompt, max_tokens: 40 });
  assert.equal(await text(page), PROMPT + before.slice(0, 4).join('') + chosen + again.choices[0].text);
  // What there was before is a version to come back to.
  await page.click('#older');
  assert.deepEqual(await tokens(page), before);
  await close(page);
});

test('regenerate begins again where the last run began, and an edit is gone on with as text', async () => {
  const page = await opened(base);
  await parameter(page, 'temperature', 1);
  await parameter(page, 'max_tokens', 30);
  await completed(page);
  const first = await strip(page, 'seed');
  await page.click('#again');
  await done(page);
  assert.equal(sent(page, '/v1/completions').prompt, PROMPT);
  assert.notEqual(await strip(page, 'seed'), first);
  await page.fill('#text', 'Jupiter');
  await run(page);
  assert.equal(sent(page, '/v1/completions').prompt, 'Jupiter');
  await close(page);
});

test('a chat: an answer, another one after an edit, another token in it', async () => {
  const page = await opened(base);
  await choose(page, 'mode', 'chat');
  await parameter(page, 'max_tokens', 30);
  await page.fill('#message', 'What is the largest planet?');
  await run(page);
  const messages = [{ role: 'user', content: 'What is the largest planet?' }];
  const { choices } = await post(base, 'v1/chat/completions', { messages, max_tokens: 30 });
  const answer = () => page.locator('.turn.assistant .turn-body').last().textContent();
  assert.equal(await answer(), choices[0].message.content);
  await shot(page, 'chat');
  assert.deepEqual(await axeFindings(page), []);
  await choose(page, 'view', 'tokens');
  await page.locator('.token').nth(2).click();
  const other = page.locator('#details .alternative:not(:disabled)').first();
  await until('the alternative has its text', async () => (await other.locator('.text').textContent()) !== '');
  await other.click();
  await until('the template is applied', () => sent(page, '/v1/completions'));
  await done(page);
  const templated = await post(base, 'apply-template', { messages });
  const { prompt } = sent(page, '/v1/completions');
  assert.deepEqual(prompt.slice(0, templated.tokens.length), templated.tokens);
  assert.equal(prompt.length, templated.tokens.length + 3);
  await choose(page, 'view', 'text');
  await page.locator('.turn.user button').click();
  await page.fill('.turn.user textarea', 'And the smallest?');
  await page.keyboard.press('Control+Enter');
  await done(page);
  assert.deepEqual(sent(page, '/v1/chat/completions').messages, [{ role: 'user', content: 'And the smallest?' }]);
  await close(page);
});

test('an error is shown in the words of the server, at the field that it is about', async () => {
  const page = await opened(base);
  await parameter(page, 'temperature', 3);
  await completed(page);
  const { error } = await post(base, 'v1/completions', { prompt: PROMPT, temperature: 3 });
  assert.equal(await page.locator('#error p').first().textContent(), error.message);
  assert.equal(await page.getAttribute('#parameter-temperature', 'aria-invalid'), 'true');
  await shot(page, 'error');
  assert.deepEqual(await axeFindings(page), []);
  assert.equal(await text(page), PROMPT);
  await page.selectOption('#parameter-format', 'json_schema');
  await parameter(page, 'guide', '{"type": ');
  await run(page);
  assert.match(await page.textContent('#error'), /Schema: this is not JSON/);
  await close(page);
});

test('what a model writes is text, whatever it looks like', async () => {
  const page = await opened(base);
  const hostile = `<img src=x onerror=alert(1)><script>alert(2)</script>`;
  await page.selectOption('#parameter-format', 'regex');
  await parameter(page, 'guide', hostile.replaceAll('(', '\\(').replaceAll(')', '\\)'));
  await completed(page);
  assert.equal(await text(page), PROMPT + hostile);
  await choose(page, 'view', 'tokens');
  await page.locator('.token').first().click();
  assert.match(await page.textContent('#details'), /has a form/);
  await choose(page, 'mode', 'chat');
  await page.fill('#message', hostile);
  await run(page);
  for (const view of ['text', 'tokens']) {
    await choose(page, 'view', view);
    assert.equal(await page.locator('img, main script').count(), 0);
  }
  await close(page);
});

test('S45: a selection and a place in the text survive what comes', async () => {
  const page = await opened(base, { viewport: { width: 1000, height: 420 } });
  await parameter(page, 'max_tokens', 500);
  await parameter(page, 'extra', '{"ignore_eos": true}');
  await page.fill('#text', `${PROMPT}\n`.repeat(30));
  await page.evaluate(() => document.getElementById('text').setSelectionRange(5, 15));
  await page.evaluate(() => (document.getElementById('sheet').scrollTop = 60));
  await page.click('#run');
  await done(page);
  const where = await page.evaluate(() => {
    const field = document.getElementById('text');
    return [field.selectionStart, field.selectionEnd, document.getElementById('sheet').scrollTop];
  });
  assert.deepEqual(where, [5, 15, 60]);
  // At the end the page goes along.
  await page.evaluate(() => (document.getElementById('sheet').scrollTop = 1e6));
  await parameter(page, 'max_tokens', 150);
  await run(page);
  const rest = await page.evaluate(() => {
    const { scrollHeight, scrollTop, clientHeight } = document.getElementById('sheet');
    return scrollHeight - scrollTop - clientHeight;
  });
  assert.ok(rest < 2, `${rest}`);
  await close(page);
});

test('S46: everything is done by keyboard, and sentences are spoken', async () => {
  const page = await opened(base);
  const reach = async (selector) => {
    for (let presses = 0; presses < 60; presses += 1) {
      if (await page.evaluate((of) => document.activeElement.matches(of), selector)) return;
      await page.keyboard.press('Tab');
    }
    assert.fail(`${selector} is not reached by Tab`);
  };
  await reach('#text');
  await page.keyboard.type(PROMPT);
  await page.keyboard.press('Control+Enter');
  await done(page);
  await until('sentences are spoken', async () => /Finished: /.test(await page.textContent('#spoken')));
  assert.ok((await page.textContent('#spoken')).length > 20);
  await reach('input[name="view"]');
  await page.keyboard.press('ArrowRight');
  await reach('.token');
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('ArrowRight');
  assert.equal(await page.evaluate(() => document.activeElement.dataset.index), '2');
  await page.keyboard.press('Enter');
  await until('an alternative has the focus', () => page.evaluate(() => document.activeElement.matches('.alternative')));
  await page.keyboard.press('Escape');
  assert.equal(await page.evaluate(() => document.activeElement.dataset.index), '2');
  await page.keyboard.press('Enter');
  await until('the alternative has its text', () => page.evaluate(() => document.activeElement.querySelector('.text').textContent !== ''));
  await page.keyboard.press('Enter');
  await done(page);
  assert.ok(Array.isArray(sent(page, '/v1/completions').prompt));
  await reach('#copy-as');
  await page.keyboard.press('Enter');
  assert.ok(await page.locator('#copy-dialog').isVisible());
  assert.deepEqual(await axeFindings(page), []);
  await page.keyboard.press('Escape');
  assert.ok(!(await page.locator('#copy-dialog').isVisible()));
  await close(page);
});

test('dark and light, by the system and by choice', async () => {
  const colour = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await opened(base, { colorScheme: 'dark' });
  const light = await opened(base, { colorScheme: 'light' });
  assert.notEqual(await colour(dark), await colour(light));
  await completed(dark);
  await choose(dark, 'view', 'tokens');
  await dark.locator('.token').nth(1).click();
  await dark.locator('#underline').check();
  await shot(dark, 'dark');
  assert.deepEqual(await axeFindings(dark), []);
  await dark.selectOption('#theme', 'light');
  assert.equal(await colour(dark), await colour(light));
  await dark.reload();
  assert.equal(await colour(dark), await colour(light));
  await close(dark);
  await close(light);
});

test('S45: on a phone nothing is cut off, and Enter is a new line', async () => {
  const page = await opened(base, { viewport: { width: 390, height: 800 }, hasTouch: true, isMobile: true });
  await page.fill('#text', PROMPT);
  await page.focus('#text');
  await page.keyboard.press('Enter');
  assert.equal(await text(page), `${PROMPT}\n`);
  assert.equal(await page.locator('#run').isVisible(), true);
  await run(page);
  await shot(page, 'phone');
  for (const mode of ['complete', 'chat']) {
    await choose(page, 'mode', mode);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  }
  await page.fill('#message', 'a');
  await page.focus('#message');
  await page.keyboard.press('Enter');
  assert.equal(await page.inputValue('#message'), 'a\n');
  assert.deepEqual(await axeFindings(page), []);
  await shot(page, 'phone-chat');
  await close(page);
});

test('a key is asked for, kept for the tab, and nowhere else', async () => {
  const guarded = await serve('--api-key-file', keyFile('Secret1'));
  const page = await open(`${guarded}ui`);
  const use = async (key) => {
    await page.locator('#key-dialog').waitFor();
    await page.fill('#key', key);
    await page.keyboard.press('Enter');
  };
  await page.locator('#key-dialog').waitFor();
  assert.deepEqual(await axeFindings(page), []);
  await shot(page, 'key');
  await use('wrong');
  await until('the server says no', async () => /the API key is not valid/.test(await page.textContent('#error')));
  await use('Secret1');
  await page.waitForFunction(() => document.getElementById('model-name').textContent === 'demo');
  await completed(page);
  assert.ok((await text(page)).length > PROMPT.length);
  const stores = await page.evaluate(() => [JSON.stringify(localStorage), JSON.stringify(sessionStorage), document.cookie]);
  assert.deepEqual(stores.map((store) => store.includes('Secret1')), [false, true, false]);
  await page.click('#copy-as');
  assert.ok(!(await page.textContent('#snippet')).includes('Secret1'));
  await close(page);
});

test('the request as code is the request: each program prints what the page shows', async () => {
  const page = await opened(base);
  const prompt = 'It\'s "quoted", back\\slashed,\nin [ 1, 2 ] lines, $HOME and `ticks`: true null';
  await parameter(page, 'seed', 5);
  await parameter(page, 'temperature', 1);
  await parameter(page, 'stop', '\\n\\n\nzzz');
  await completed(page, prompt);
  const expected = (await text(page)).slice(prompt.length);
  assert.ok(expected.length > 20);
  await page.click('#copy-as');
  await shot(page, 'copy');
  const env = { ...process.env, API_KEY: 'none' };
  const programs = {
    curl: (code) => {
      const out = execFileSync('bash', ['-c', code], { env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
      const events = out.split('\n').filter((line) => line.startsWith('data: {'));
      return events.map((line) => JSON.parse(line.slice(6)).choices.map((choice) => choice.text).join('')).join('');
    },
    python: (code) => execFileSync(process.env.PYTHON, ['-c', code], { env, encoding: 'utf8' }).replace(/\n$/, ''),
    javascript: (code) => execFileSync('node', ['--input-type=module', '-e', code], { env, encoding: 'utf8' }),
  };
  for (const [language, execute] of Object.entries(programs)) {
    await choose(page, 'language', language);
    assert.equal(execute(await page.textContent('#snippet')), expected, language);
  }
  await page.click('#copy');
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^const response = await fetch/);
  await close(page);
});

test('parameters are kept and shared, and a link cannot do more than fill them in', async () => {
  const page = await opened(base);
  await parameter(page, 'top_p', 0.5);
  await page.fill('#text', 'Kept');
  await page.reload();
  assert.deepEqual([await text(page), await page.inputValue('#parameter-top_p')], ['Kept', '0.5']);
  await page.click('#share');
  const link = page.url();
  assert.match(link, /#/);
  const other = await opened(base);
  await other.goto('about:blank');
  await other.goto(link);
  await until('the link is read', async () => (await text(other)) === 'Kept');
  assert.equal(await other.inputValue('#parameter-top_p'), '0.5');
  assert.ok(other.asked.every((request) => !request.url().includes('Kept')));
  await page.locator('.parameter:has(#parameter-top_p) .reset').click();
  assert.equal(await page.inputValue('#parameter-top_p'), '');
  for (const bad of ['%', 'null', '[]', '{"values":{"top_p":{}},"text":5,"messages":[null,{"role":"x"}],"mode":"x"}']) {
    await other.goto('about:blank');
    await other.goto(`${base}ui#${bad}`);
    await other.waitForFunction(() => document.getElementById('model-name').textContent === 'demo');
  }
  assert.deepEqual(other.problems, []);
  await close(page);
});

test('a conversation is exported as JSON', async () => {
  const page = await opened(base);
  await completed(page);
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#export')]);
  const { server, list, at, last } = JSON.parse(readFileSync(await download.path(), 'utf8'));
  assert.equal(server.name, 'demo');
  assert.equal(list[at].text, await text(page));
  assert.deepEqual(last.body, sent(page, '/v1/completions'));
  await close(page);
});

test('without probabilities a text is still gone on with by its tokens', async () => {
  const page = await opened(base);
  await parameter(page, 'logprobs', -1);
  await parameter(page, 'max_tokens', 12);
  await completed(page);
  const { choices } = await post(base, 'v1/completions', { prompt: PROMPT, max_tokens: 12, return_token_ids: true });
  assert.equal(await text(page), PROMPT + choices[0].text);
  await run(page);
  assert.equal(sent(page, '/v1/completions').logprobs, undefined);
  assert.deepEqual(sent(page, '/v1/completions').prompt, [...choices[0].prompt_token_ids, ...choices[0].token_ids]);
  await choose(page, 'view', 'tokens');
  await page.locator('.token').first().click();
  assert.match(await page.textContent('#details'), /no probability/);
  await close(page);
});

test('a proxy may serve all of it below a path', async () => {
  const proxy = createServer(async (request, response) => {
    const body = request.method === 'POST' ? await new Response(Readable.toWeb(request)).text() : undefined;
    const answer = await fetch(base + request.url.slice('/below/'.length), {
      method: request.method,
      headers: body ? { 'Content-Type': 'application/json' } : { Accept: request.headers.accept },
      body,
      redirect: 'manual',
    });
    response.writeHead(answer.status, Object.fromEntries([...answer.headers].filter(([name]) => name !== 'transfer-encoding')));
    response.end(Buffer.from(await answer.arrayBuffer()));
  }).listen(0, '127.0.0.1');
  await until('the proxy listens', () => proxy.listening);
  const page = await open(`http://127.0.0.1:${proxy.address().port}/below/`);
  await page.waitForFunction(() => document.getElementById('model-name').textContent === 'demo');
  assert.ok(page.url().endsWith('/below/ui'));
  await completed(page);
  assert.ok((await text(page)).length > PROMPT.length);
  await close(page);
  proxy.close();
});

test('the API can be read about', async () => {
  for (const [name, viewport] of Object.entries({ docs: { width: 1100, height: 900 }, 'docs-phone': { width: 390, height: 800 } })) {
    const page = await open(`${base}docs`, { viewport });
    await page.locator('#CompletionRequest').waitFor();
    for (const path of Object.keys((await (await fetch(`${base}openapi.json`)).json()).paths)) {
      assert.ok((await page.textContent('main')).includes(path), path);
    }
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
    assert.deepEqual(await axeFindings(page), []);
    await shot(page, name);
    await close(page);
  }
});

test('answers are what the OpenAPI document says, and nothing else', () => {
  execFileSync(process.env.PYTHON, ['answers.py', base], { stdio: 'inherit' });
});
