// The strip below: how fast the answer comes, what it was made of, and how busy the server is.

import { load } from './api.js';
import { make } from './dom.js';

const NAMES = {
	speed: 'Speed',
	first: 'First token',
	prompt: 'Prompt',
	cached: 'Cached',
	generated: 'Generated',
	finish: 'Finish',
	seed: 'Seed',
	running: 'Running',
	waiting: 'Waiting',
	cache: 'KV cache',
};
const NOTHING = '–';

/** Milliseconds between looks at the server, with an answer under way and without. */
const PAUSES = [1000, 5000];

export class Strip {
	constructor(list) {
		this.cells = {};
		for (const [name, label] of Object.entries(NAMES)) {
			const item = make('div');
			this.cells[name] = Object.assign(make('dd', '', NOTHING), { id: `strip-${name}` });
			item.append(make('dt', '', label), this.cells[name]);
			list.append(item);
		}
		this.#look();
		document.addEventListener('visibilitychange', () => this.#look());
	}

	#set(name, value) {
		const text = value === undefined || Number.isNaN(value) ? NOTHING : String(value);
		if (this.cells[name].textContent !== text) this.cells[name].textContent = text;
	}

	begin() {
		this.began = performance.now();
		this.first = this.last = undefined;
		this.tokens = this.withFirst = 0;
		this.isRunning = true;
		for (const name of ['speed', 'first', 'prompt', 'cached', 'generated', 'finish', 'seed']) this.#set(name, undefined);
		this.#look();
	}

	/** What the head of the answer says. */
	head(headers, seed) {
		this.#set('prompt', headers.get('x-prompt-tokens') ?? undefined);
		this.#set('seed', headers.get('x-seed') ?? seed);
	}

	/** So many tokens came. */
	came(count) {
		if (!count) return;
		this.last = performance.now();
		this.tokens += count;
		if (this.first === undefined) {
			this.first = this.last;
			this.withFirst = this.tokens;
			this.#set('first', `${Math.round(this.first - this.began)} ms`);
		}
	}

	/** Shows what was counted. */
	show() {
		this.#set('generated', this.tokens);
		// What comes at once was not generated at once.
		const isFlow = this.last - this.first > 100;
		const tokens = this.tokens - (isFlow ? this.withFirst : 0);
		const speed = (tokens / (this.last - (isFlow ? this.first : this.began))) * 1000;
		if (tokens) this.#set('speed', `${speed.toFixed(speed < 100 ? 1 : 0)} tok/s`);
	}

	usage({ prompt_tokens, completion_tokens, prompt_tokens_details }) {
		this.#set('prompt', prompt_tokens);
		this.#set('cached', prompt_tokens_details?.cached_tokens);
		this.tokens = completion_tokens;
	}

	end(finish) {
		this.isRunning = false;
		this.show();
		this.#set('finish', finish);
		this.#look();
	}

	async #look() {
		clearTimeout(this.timer);
		if (document.hidden) return;
		const look = (this.looking = Symbol('look'));
		const now = await load();
		if (look !== this.looking) return;
		this.#set('running', now?.running);
		this.#set('waiting', now?.waiting);
		this.#set('cache', now && !Number.isNaN(now.cache) ? `${Math.round(now.cache * 100)} %` : undefined);
		clearTimeout(this.timer);
		this.timer = setTimeout(() => this.#look(), PAUSES[this.isRunning ? 0 : 1]);
	}
}
