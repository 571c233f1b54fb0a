// A request as a program that sends it. The key is a variable; everything else is what this page sends.

// What openai's Python package has arguments for; the rest goes through extra_body.
const ARGUMENTS = {
  completions: 'model prompt max_tokens temperature top_p stop seed presence_penalty frequency_penalty logprobs stream stream_options n best_of echo logit_bias user',
  'chat.completions':
    'model messages max_tokens temperature top_p stop seed presence_penalty frequency_penalty logprobs top_logprobs response_format stream stream_options n logit_bias user',
};

const indented = (text, by) => text.replaceAll('\n', `\n${' '.repeat(by)}`);

/** A value in Python, whose strings are written as JSON's. */
function python(value, by = 0) {
  const pad = ' '.repeat(by + 4);
  if (value === null) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (typeof value !== 'object') return JSON.stringify(value);
  const isList = Array.isArray(value);
  const entries = isList
    ? value.map((entry) => python(entry, by + 4))
    : Object.entries(value).map(([name, entry]) => `${JSON.stringify(name)}: ${python(entry, by + 4)}`);
  const [open, close] = isList ? '[]' : '{}';
  const line = open + entries.join(', ') + close;
  if (line.length < 90 && !line.includes('\n')) return line;
  if (isList && value.every((entry) => typeof entry === 'number')) return line;
  return `${open}\n${entries.map((entry) => pad + entry).join(',\n')},\n${' '.repeat(by)}${close}`;
}

// Lists of numbers on one line, everything else as JSON.stringify has it. No text has a line break in it there.
const json = (body) =>
  JSON.stringify(body, null, 2).replace(/\[\n\s+(-?\d[^[\]{}"]*?)\n\s*\]/g, (_, list) => `[${list.replace(/\s+/g, ' ')}]`);

export const snippets = {
  curl(base, path, body) {
    const quoted = json(body).replaceAll("'", `'\\''`);
    return `curl -N ${base}${path} \\
  -H "Authorization: Bearer $API_KEY" \\
  -H 'Content-Type: application/json' \\
  -d '${quoted}'`;
  },

  python(base, path, body) {
    const call = path === 'v1/completions' ? 'completions' : 'chat.completions';
    const known = ARGUMENTS[call].split(' ');
    const more = Object.entries(body).filter(([name]) => !known.includes(name));
    const entries = Object.entries(body).filter(([name]) => known.includes(name));
    const lines = entries.map(([name, value]) => `    ${name}=${python(value, 4)},`);
    if (more.length) lines.push(`    extra_body=${python(Object.fromEntries(more), 4)},`);
    const text = call === 'completions' ? 'choice.text' : 'choice.delta.content or ""';
    return `import os
from openai import OpenAI

client = OpenAI(base_url="${base}v1", api_key=os.environ["API_KEY"])
stream = client.${call}.create(
${lines.join('\n')}
)
for chunk in stream:
    for choice in chunk.choices:
        print(${text}, end="", flush=True)
print()`;
  },

  javascript(base, path, body) {
    const text = path === 'v1/completions' ? 'choice.text' : "choice.delta.content ?? ''";
    return `const response = await fetch('${base}${path}', {
  method: 'POST',
  headers: {
    Authorization: \`Bearer \${process.env.API_KEY}\`,
    'Content-Type': 'application/json',
  },
  body: JSON.stringify(${indented(json(body), 2)}),
});
if (!response.ok) throw new Error(await response.text());
let rest = '';
for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
  const frames = (rest + chunk).split('\\n\\n');
  rest = frames.pop();
  for (const frame of frames) {
    if (!frame.startsWith('data: {')) continue;
    const event = JSON.parse(frame.slice(6));
    if (event.error) throw new Error(event.error.message);
    for (const choice of event.choices) process.stdout.write(${text});
  }
}`;
  },
};
