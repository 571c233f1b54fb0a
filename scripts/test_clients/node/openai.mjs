// OpenAI's package for Node.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { busyUrl, cancels, key, long, many, model, occupied, prompt, question, runCases, schema, test, url } from "./cases.mjs";

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key });
const chat = { model, messages: question, max_tokens: 12, temperature: 0 };
const text = { model, prompt, max_tokens: 12, temperature: 0 };

async function all(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

test("models", async () => {
  const ids = (await all(await client.models.list())).map((each) => each.id);
  assert.deepEqual(ids, [model]);
});

test("completion, streamed or not", async () => {
  const whole = (await client.completions.create(text)).choices[0];
  const chunks = await all(await client.completions.create({ ...text, stream: true }));
  assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(""), whole.text);
  assert.equal(chunks.at(-1).choices[0].finish_reason, "length");
});

test("chat, streamed or not", async () => {
  const whole = (await client.chat.completions.create(chat)).choices[0].message.content;
  const chunks = await all(await client.chat.completions.create({ ...chat, stream: true, stream_options: { include_usage: true } }));
  assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), whole);
  assert.equal(chunks.at(-1).usage.completion_tokens, 12);
  const helped = await client.chat.completions.stream(chat).finalContent();
  assert.equal(helped, whole);
});

test("n, stop, logprobs", async () => {
  const options = { n: 2, stop: ["."], max_tokens: 40, logprobs: true, top_logprobs: 2, temperature: 1, seed: 1 };
  const { choices } = await client.chat.completions.create({ ...chat, ...options });
  assert.equal(choices.length, 2);
  for (const choice of choices) assert.ok(!choice.message.content.includes("."));
  assert.equal(choices[0].logprobs.content[0].top_logprobs.length, 2);
});

test("structured output", async () => {
  const format = { type: "json_schema", json_schema: { name: "planet", schema, strict: true } };
  const answer = await client.chat.completions.parse({ ...chat, max_tokens: 100, response_format: format });
  assert.deepEqual(Object.keys(JSON.parse(answer.choices[0].message.content)).sort(), ["moons", "planet"]);
});

test("400, 401, 404", async () => {
  await assert.rejects(client.chat.completions.create({ ...chat, max_tokens: -1 }), OpenAI.BadRequestError);
  await assert.rejects(client.withOptions({ apiKey: "wrong" }).models.list(), OpenAI.AuthenticationError);
  await assert.rejects(client.chat.completions.create({ ...chat, model: "another" }), OpenAI.NotFoundError);
});

test("503, Retry-After honoured", async () => {
  const seen = [];
  let stop = () => {};
  const watched = async (...request) => {
    const response = await fetch(...request);
    seen.push({ status: response.status, after: response.headers.get("retry-after"), time: performance.now() });
    stop();
    return response;
  };
  const busy = new OpenAI({ baseURL: `${busyUrl}/v1`, apiKey: "-", fetch: watched, maxRetries: 0 });
  await occupied(() => assert.rejects(busy.completions.create({ ...text, max_tokens: 1 }), OpenAI.InternalServerError));
  seen.length = 0;
  await occupied(async (ends) => {
    stop = ends;
    await busy.completions.create({ ...text, max_tokens: 1 }, { maxRetries: 3 });
  });
  assert.deepEqual([seen[0].status, seen.at(-1).status], [503, 200]);
  assert.ok(seen[1].time - seen[0].time >= Number(seen[0].after) * 1000 - 20, JSON.stringify(seen));
});

test("cancel", async () => {
  await cancels(async () => {
    const stream = await client.completions.create({ ...text, max_tokens: long, n: many, stream: true, ignore_eos: true });
    for await (const _ of stream) break;
  });
  await cancels(async () => {
    const controller = new AbortController();
    const answer = client.completions.create({ ...text, max_tokens: long, n: many, ignore_eos: true }, { signal: controller.signal });
    setTimeout(() => controller.abort(), 500);
    await assert.rejects(answer, OpenAI.APIUserAbortError);
  });
});

await runCases("openai (npm)", "openai");
