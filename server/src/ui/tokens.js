// Tokens: what the answers of the two APIs say of them, the view of them, and the details of one.

import { tokenText } from './api.js';
import { button as makeButton, make } from './dom.js';

const percent = (logprob) => {
	const share = Math.exp(logprob) * 100;
	return share >= 99.95 ? '100 %' : share >= 0.1 ? `${share.toFixed(1)} %` : share > 0 ? '< 0.1 %' : '0 %';
};

/** White space and what is not to be seen, made visible. */
export const visible = (text) => text.replace(/ /g, '␣').replace(/\n/g, '↵').replace(/\t/g, '⇥') || '∅';

const idOf = (name) => Number(name.slice('token_id:'.length));

/**
 * Reads the tokens of completions' chunks: `{ ids, text, logprob, top: [{ id, logprob, text? }] }`. Without log-probabilities a
 * token stands for all of its chunk.
 */
export function completionReader() {
	let before = 0;
	return ({ text, logprobs, token_ids: ids = [] }) => {
		const letters = Array.from(text ?? '');
		const offsets = logprobs?.text_offset ?? [];
		const from = before;
		before += letters.length;
		if (!logprobs) return text || ids.length ? [{ ids, text }] : [];
		return logprobs.tokens.map((name, index) => ({
			ids: [idOf(name)],
			text: letters.slice(offsets[index] - from, offsets[index + 1] === undefined ? undefined : offsets[index + 1] - from).join(''),
			logprob: logprobs.token_logprobs[index],
			top: Object.entries(logprobs.top_logprobs[index] ?? {})
				.map(([name, logprob]) => ({ id: idOf(name), logprob }))
				.sort((one, other) => other.logprob - one.logprob),
		}));
	};
}

/** The same of chat's chunks, whose tokens have bytes: those of a character that is not whole yet wait for the next token. */
export function chatReader() {
	const decoder = new TextDecoder();
	const bytes = (list) => new Uint8Array(list ?? []);
	return ({ delta, logprobs, token_ids: ids = [] }) => {
		if (!logprobs?.content) return delta?.content || ids.length ? [{ ids, text: delta?.content ?? '' }] : [];
		return logprobs.content.map((entry) => ({
			ids: [idOf(entry.token)],
			text: decoder.decode(bytes(entry.bytes), { stream: true }),
			logprob: entry.logprob,
			top: entry.top_logprobs.map((top) => ({ id: idOf(top.token), logprob: top.logprob, text: new TextDecoder().decode(bytes(top.bytes)) })),
		}));
	};
}

/** A text as its tokens, each a button. One of them at a time is reached by the Tab key, the others by arrows. */
export class TokenView {
	constructor(element, chosen) {
		this.element = element;
		this.chosen = chosen;
		this.tokens = [];
		element.addEventListener('click', ({ target }) => this.#open(target));
		element.addEventListener('keydown', (event) => this.#move(event));
	}

	/** Shows a prompt and tokens after it. */
	show(prompt, tokens) {
		this.prompt = prompt;
		this.tokens = [];
		this.element.replaceChildren();
		if (prompt) this.element.append(make('span', 'prompt', prompt));
		this.add(tokens);
	}

	add(tokens) {
		for (const token of tokens) {
			// No <button>: it would not be broken between lines as text is.
			const button = make('span', 'token', token.text);
			button.role = 'button';
			button.tabIndex = this.tokens.length ? -1 : 0;
			button.dataset.index = this.tokens.length;
			if (!token.text.trim()) button.setAttribute('aria-label', visible(token.text));
			if (token.text.startsWith('\n')) button.classList.add('break');
			if (!token.text) this.#name(button, token);
			if (token.logprob !== undefined && token.logprob !== null) {
				const share = Math.exp(token.logprob);
				button.dataset.band = share >= 0.75 ? 0 : share >= 0.4 ? 1 : share >= 0.15 ? 2 : share >= 0.05 ? 3 : 4;
				button.title = `${visible(token.text)}  ${percent(token.logprob)}`;
			}
			this.tokens.push(token);
			this.element.append(button);
		}
	}

	/** A token that adds no text is shown by its name. */
	async #name(button, token) {
		button.classList.add('special');
		const { name } = await tokenText(token.ids[0]);
		button.textContent = name;
		button.setAttribute('aria-label', name);
	}

	#open(target) {
		const button = target.closest?.('.token');
		if (!button) return;
		this.#reach(button);
		this.chosen(Number(button.dataset.index), button);
	}

	#reach(button) {
		for (const other of this.element.querySelectorAll('.token[tabindex="0"]')) other.tabIndex = -1;
		button.tabIndex = 0;
	}

	#move(event) {
		if (event.key === 'Enter' || event.key === ' ') {
			if (event.ctrlKey || event.metaKey) return;
			event.preventDefault();
			this.#open(event.target);
		}
		const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
		const button = event.target.closest('.token');
		if (!step || !button) return;
		event.preventDefault();
		const all = this.element.querySelectorAll('.token');
		const to = all[Math.min(Math.max(Number(button.dataset.index) + step, 0), all.length - 1)];
		this.#reach(to);
		to.focus();
	}
}

/** Shows what else a token could have been. `choose` is called with the alternative, or is a sentence that says why there is none. */
export function showDetails(section, token, { choose, close }) {
	const head = make('div', 'head');
	const name = make('h2', '', visible(token.text));
	const facts = [token.logprob === undefined ? 'no probability' : percent(token.logprob), `id ${token.ids.join(', ')}`];
	if (token.logprob !== undefined) facts.splice(1, 0, `log-probability ${token.logprob.toFixed(3)}`);
	const shut = makeButton('Close ', close);
	shut.append(make('kbd', '', 'Esc'));
	head.append(name, make('span', 'facts', facts.join(' · ')), shut);
	section.replaceChildren(head);
	const list = make('ol', 'alternatives');
	list.setAttribute('aria-label', 'Go on with');
	for (const top of token.top ?? []) {
		const button = makeButton('', () => choose(top), 'alternative');
		const text = make('span', 'text');
		const bar = make('span', 'bar-of');
		bar.style.setProperty('--share', Math.exp(top.logprob));
		button.append(text, bar, make('span', 'share', percent(top.logprob)));
		if (top.text) text.textContent = visible(top.text);
		else tokenText(top.id).then(({ name }) => (text.textContent = visible(name)));
		const isChosen = top.id === token.ids[0];
		if (isChosen) button.setAttribute('aria-current', 'true');
		button.disabled = isChosen || typeof choose === 'string';
		const item = make('li');
		item.append(button);
		list.append(item);
	}
	if (token.top?.length) section.append(list);
	section.append(make('p', 'hint', typeof choose === 'string' ? choose : 'Choose a token: the text is cut here and goes on with it.'));
	section.hidden = false;
	(section.querySelector('.alternative:not(:disabled)') ?? shut).focus();
}
