// Cases of a client against the server: what they need of it, running them, and reporting. As cases.py has it.

import { readFileSync } from "node:fs";

export const { SERVER_URL: url, SERVER_KEY: key, BUSY_URL: busyUrl } = process.env;
export const model = "demo";
export const prompt = "Complete the paragraph: our solar system is";
export const question = [{ role: "user", content: "Which planet is the largest?" }];
export const schema = {
  type: "object",
  properties: { planet: { type: "string", maxLength: 12 }, moons: { type: "integer", minimum: 0, maximum: 99 } },
  required: ["planet", "moons"],
  additionalProperties: false,
};
// Sequences and tokens that take a server seconds, so that there is something to cancel.
export const [many, long] = [64, 900];

const cases = [];

export function test(name, run) {
  cases.push([name, run]);
}

// Runs every case and writes a line of JSON for each to standard output.
export async function runCases(client, packageName) {
  const { version } = JSON.parse(readFileSync(`node_modules/${packageName}/package.json`));
  for (const [name, run] of cases) {
    let problem = null;
    try {
      await run();
    } catch (error) {
      problem = error.stack ?? String(error);
      process.exitCode = 1;
    }
    console.log(JSON.stringify({ client, version, case: name, problem }));
  }
}

export function sleep(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

async function metric(line) {
  const lines = (await (await fetch(`${url}/metrics`)).text()).split("\n");
  return lines.filter((each) => each.startsWith(`${line} `)).reduce((sum, each) => sum + Number(each.split(" ").at(-1)), 0);
}

// Expects that what `run` starts is cancelled by its end, and that its slots are free soon after.
export async function cancels(run) {
  const cancelled = `serve_cancelled_total{model_name="${model}",cause="client"}`;
  const before = await metric(cancelled);
  await run();
  for (let turn = 0; turn < 100; turn++) {
    const busy = await metric(`trtllm_num_requests_running{model_name="${model}"}`);
    if (busy === 0 && (await metric(cancelled)) > before) return;
    await sleep(50);
  }
  throw new Error("5 s later it was not cancelled");
}

async function post(body) {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(`${busyUrl}/v1/completions`, { method: "POST", headers, body: JSON.stringify(body) });
  await response.text();
  return response.status;
}

// Runs `run` while the busy server is full; the function that it is given ends that.
export async function occupied(run) {
  let over = false;
  const stop = () => (over = true);
  const occupy = async () => {
    while (!over) await post({ prompt, max_tokens: long, ignore_eos: true });
  };
  const threads = [occupy(), occupy(), occupy()];
  try {
    let isFull = false;
    for (let turn = 0; turn < 200 && !isFull; turn++) {
      isFull = (await post({ prompt: "a", max_tokens: 1 })) === 503;
      if (!isFull) await sleep(20);
    }
    if (!isFull) throw new Error("the busy server never was full");
    await run(stop);
  } finally {
    stop();
    await Promise.all(threads);
  }
}
