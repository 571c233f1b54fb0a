// The Vercel AI SDK, by its provider for servers of OpenAI's API.

import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateObject, generateText, jsonSchema, streamText } from "ai";
import { busyUrl, cancels, key, long, model, occupied, prompt, runCases, schema, test, url } from "./cases.mjs";

function provider(options = {}) {
  return createOpenAICompatible({ name: "served", baseURL: `${url}/v1`, apiKey: key, supportsStructuredOutputs: true, ...options });
}

const served = provider();
const question = "Which planet is the largest?";
const chat = { model: served.chatModel(model), prompt: question, maxOutputTokens: 12, temperature: 0, maxRetries: 0 };

async function status(run, wanted) {
  await assert.rejects(run, (error) => APICallError.isInstance(error) && error.statusCode === wanted);
}

test("completion", async () => {
  const answer = await generateText({ ...chat, model: served.completionModel(model), prompt });
  assert.ok(answer.text);
});

test("chat, streamed or not", async () => {
  const whole = await generateText(chat);
  assert.equal(whole.finishReason, "length");
  assert.equal(whole.usage.outputTokens, 12);
  const stream = streamText(chat);
  let text = "";
  for await (const part of stream.textStream) text += part;
  assert.equal(text, whole.text);
  assert.equal(await stream.finishReason, "length");
});

test("stop", async () => {
  const answer = await generateText({ ...chat, maxOutputTokens: 60, stopSequences: ["."] });
  assert.ok(!answer.text.includes(".") && answer.finishReason === "stop");
});

test("structured output", async () => {
  const answer = await generateObject({ ...chat, maxOutputTokens: 100, schema: jsonSchema(schema) });
  assert.deepEqual(Object.keys(answer.object).sort(), ["moons", "planet"]);
});

test("400, 401, 404, 503", async () => {
  await status(generateText({ ...chat, temperature: -1 }), 400);
  await status(generateText({ ...chat, model: provider({ apiKey: "wrong" }).chatModel(model) }), 401);
  await status(generateText({ ...chat, model: served.chatModel("another") }), 404);
  await occupied(() => status(generateText({ ...chat, model: provider({ baseURL: `${busyUrl}/v1` }).chatModel(model) }), 503));
});

test("503, and a retry", async () => {
  await occupied(async (stop) => {
    stop();
    await generateText({ ...chat, model: provider({ baseURL: `${busyUrl}/v1` }).chatModel(model), maxRetries: 4 });
  });
});

test("cancel", async () => {
  await cancels(async () => {
    const controllers = Array.from({ length: 64 }, () => new AbortController());
    const streams = controllers.map((controller) => {
      const ignoring = provider({ transformRequestBody: (body) => ({ ...body, ignore_eos: true }) }).chatModel(model);
      const stream = streamText({ ...chat, model: ignoring, maxOutputTokens: long, abortSignal: controller.signal, onError() {} });
      return stream.textStream[Symbol.asyncIterator]();
    });
    await Promise.all(streams.map((stream) => stream.next()));
    for (const controller of controllers) controller.abort();
  });
});

await runCases("AI SDK (npm)", "ai");
