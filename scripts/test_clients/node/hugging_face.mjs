// Hugging Face's package for Node, whose text generation asks for OpenAI's completions.

import assert from "node:assert/strict";
import { InferenceClient } from "@huggingface/inference";
import { key, prompt, question, runCases, schema, test, url } from "./cases.mjs";

const client = new InferenceClient(key).endpoint(url);

test("chat, streamed or not", async () => {
  const body = { messages: question, max_tokens: 12, temperature: 0 };
  const whole = (await client.chatCompletion(body)).choices[0].message.content;
  let text = "";
  for await (const chunk of client.chatCompletionStream(body)) text += chunk.choices[0]?.delta.content ?? "";
  assert.ok(whole);
  assert.equal(text, whole);
});

test("structured output", async () => {
  const format = { type: "json_schema", json_schema: { name: "planet", schema } };
  const answer = await client.chatCompletion({ messages: question, max_tokens: 100, response_format: format });
  assert.deepEqual(Object.keys(JSON.parse(answer.choices[0].message.content)).sort(), ["moons", "planet"]);
});

test("text generation, streamed or not", async () => {
  const body = { inputs: prompt, parameters: { max_new_tokens: 12 } };
  const whole = (await client.textGeneration(body)).generated_text;
  let text = "";
  for await (const event of client.textGenerationStream(body)) text += event.choices[0].text;
  assert.ok(whole);
  assert.equal(text, whole);
});

test("a wrong key", async () => {
  await assert.rejects(new InferenceClient("wrong").endpoint(url).chatCompletion({ messages: question, max_tokens: 1 }));
});

await runCases("@huggingface/inference (npm)", "@huggingface/inference");
