// A request as a program that sends it. The key is a variable; everything else is what this page sends.

// Lists of numbers on one line, everything else as JSON.stringify has it. No text has a line break in it there.
const json = (body) =>
	JSON.stringify(body, null, 2).replace(/\[\n\s+(-?\d[^[\]{}"]*?)\n\s*\]/g, (_, list) => `[${list.replace(/\s+/g, ' ')}]`);

/** The same in Python, whose words differ, and whose strings do not. */
const python = (value) =>
	json(value)
		.replace(/"(?:[^"\\]|\\.)*"|true|false|null/g, (part) => ({ true: 'True', false: 'False', null: 'None' })[part] ?? part)
		.replaceAll('\n', '\n    ');

export const snippets = {
	curl(base, path, body) {
		const quoted = json(body).replaceAll("'", `'\\''`);
		return `curl -N ${base}${path} \\
  -H "Authorization: Bearer $API_KEY" \\
  -H 'Content-Type: application/json' \\
  -d '${quoted}'`;
	},

	python(base, path, body) {
		const isChat = path.includes('chat');
		const { model, messages, prompt, stream, ...more } = body;
		return `import os
from openai import OpenAI

client = OpenAI(base_url="${base}v1", api_key=os.environ["API_KEY"])
stream = client.${isChat ? 'chat.completions' : 'completions'}.create(
    model=${python(model)},
    ${isChat ? 'messages' : 'prompt'}=${python(messages ?? prompt)},
    stream=True,
    extra_body=${python(more)},
)
for chunk in stream:
    for choice in chunk.choices:
        print(${isChat ? 'choice.delta.content or ""' : 'choice.text'}, end="", flush=True)
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
  body: JSON.stringify(${json(body).replaceAll('\n', '\n  ')}),
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
