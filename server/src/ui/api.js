// The server: its key, its answers, its streams of events, its metrics.

const KEY = 'serve-engine.key';

/** The API key, for as long as the tab is open. */
export const key = {
	get: () => sessionStorage.getItem(KEY) ?? '',
	set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/** What the server, or this page, will not do, and why. */
export class Refusal extends Error {
	constructor(message, { status, code, param, id, retryAfter } = {}) {
		super(message);
		Object.assign(this, { status, code, param, id, retryAfter });
	}

	static of(error, response) {
		return new Refusal(error?.message ?? `The server answered ${response.status}.`, {
			status: response.ok ? undefined : response.status,
			code: error?.code,
			param: error?.param,
			id: response.headers.get('x-request-id'),
			retryAfter: response.headers.get('retry-after'),
		});
	}
}

async function ask(path, init) {
	const headers = { ...init.headers };
	if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
	let response;
	try {
		response = await fetch(path, { ...init, headers });
	} catch (error) {
		if (init.signal?.aborted) throw error;
		throw new Refusal('The server does not answer. Is it running?');
	}
	if (response.ok) return response;
	const body = await response.json().catch(() => undefined);
	throw Refusal.of(body?.error, response);
}

const posted = (body, signal) => ({
	method: 'POST',
	headers: { 'Content-Type': 'application/json' },
	body: JSON.stringify(body),
	signal,
});

export const getJson = async (path) => (await ask(path, {})).json();
export const postJson = async (path, body, signal) => (await ask(path, posted(body, signal))).json();

/** Posts a body and hands on each event of the stream. Aborting the signal closes the connection, which cancels the request. */
export async function stream(path, body, signal, { head, event }) {
	const response = await ask(path, posted(body, signal));
	head(response.headers);
	const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
	let rest = '';
	for (;;) {
		let chunk;
		try {
			chunk = await reader.read();
		} catch (error) {
			if (signal.aborted) throw error;
			chunk = { done: true };
		}
		if (chunk.done) throw new Refusal('The connection ended before the answer did.');
		const frames = (rest + chunk.value).split('\n\n');
		rest = frames.pop();
		for (const frame of frames) {
			if (!frame.startsWith('data: ')) continue; // a comment that keeps the connection open
			const data = frame.slice('data: '.length);
			if (data === '[DONE]') return;
			const value = JSON.parse(data);
			if (value.error) throw Refusal.of(value.error, response);
			event(value);
		}
	}
}

/** How busy the server is; nothing where metrics are kept from us. */
export async function load() {
	const response = await ask('metrics', {}).catch(() => undefined);
	if (!response) return undefined;
	const page = await response.text();
	const value = (name) => Number(page.match(new RegExp(`^trtllm_${name}(?:\\{.*\\})? (\\S+)$`, 'm'))?.[1]);
	return {
		running: value('num_requests_running'),
		waiting: value('num_requests_waiting'),
		cache: value('kv_cache_utilization'),
	};
}

const texts = new Map();

/** A token by itself: the text that it adds, and the name of one that adds none. */
export function tokenText(id) {
	const ask = async (skip_special_tokens) => (await postJson('detokenize', { tokens: [id], skip_special_tokens })).prompt;
	const both = async () => {
		const text = await ask(true);
		return { text, name: text || (await ask(false)) };
	};
	if (!texts.has(id)) texts.set(id, both().catch(() => ({ name: `token ${id}` })));
	return texts.get(id);
}
