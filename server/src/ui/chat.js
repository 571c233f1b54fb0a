// Chat: a conversation. A version is `{ messages: [{ role, head, content, tokens, finish }] }`, where `tokens` are those after `head`,
// the text that somebody wrote.

import { Refusal } from './api.js';
import { button, make } from './dom.js';
import { chatReader, completionReader, TokenView } from './tokens.js';

export const emptyChat = () => ({ messages: [] });

const ROLES = { user: 'You', assistant: 'Model' };

export class Chat {
	constructor({ turns, message }, { chosen, edited, changed }) {
		Object.assign(this, { turns, message, chosen, edited });
		message.addEventListener('input', changed);
	}

	show(version) {
		this.version = version;
		this.pending = '';
		this.views = [];
		this.turns.replaceChildren(...version.messages.map((message, index) => this.#turn(message, index)));
	}

	look(tokens) {
		this.isTokens = tokens;
		if (this.version) this.show(this.version);
	}

	#turn(message, index) {
		const turn = make('article', `turn ${message.role}`);
		const head = make('div', 'turn-head');
		head.append(make('h2', '', ROLES[message.role]), button('Edit', () => this.#edit(turn, message, index)));
		const body = make('div', 'turn-body');
		turn.append(head, body);
		turn.setAttribute('aria-label', ROLES[message.role]);
		if (this.isTokens && message.role === 'assistant') {
			body.classList.add('tokens');
			this.views[index] = new TokenView(body, (token, of) => this.chosen(token, of, index));
			this.views[index].show(message.head, message.tokens);
		} else {
			body.append(document.createTextNode(message.content));
		}
		return turn;
	}

	/** Lets a message be written anew. What came after it was an answer to the old one, and goes. */
	#edit(turn, message, index) {
		const field = Object.assign(make('textarea', 'edit'), { value: message.content, rows: 4 });
		field.setAttribute('aria-label', `Message of ${ROLES[message.role]}`);
		const cancel = () => this.show(this.version);
		const save = () => {
			const messages = this.version.messages.slice(0, index);
			messages.push({ role: message.role, head: field.value, content: field.value, tokens: [] });
			this.edited({ messages }, message.role === 'user');
		};
		field.addEventListener('keydown', (event) => {
			if (event.key === 'Escape') cancel();
			else if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) save();
			else return;
			event.stopPropagation();
			event.preventDefault();
		});
		const row = make('p', 'row');
		row.append(button(message.role === 'user' ? 'Save and answer' : 'Save', save), button('Cancel', cancel));
		turn.lastChild.replaceWith(field, row);
		field.focus();
	}

	/** What the next run begins with; `body` has the messages. */
	start(system) {
		const messages = structuredClone(this.version.messages);
		const draft = this.message.value;
		if (draft.trim()) messages.push({ role: 'user', content: draft });
		if (!messages.length) throw new Refusal('Write a message first.');
		const body = { messages: said(system, messages) };
		const base = { messages: structuredClone(messages) };
		if (messages.at(-1).role === 'assistant') body.continue_final_message = true;
		else messages.push({ role: 'assistant', head: '', content: '', tokens: [] });
		return { base, version: { messages }, body };
	}

	/** The same with another token in the place of one, and what the chat template is asked to make the prompt of. */
	startWith(system, at, index, { id, logprob, text }) {
		const messages = structuredClone(this.version.messages.slice(0, at + 1));
		const message = messages[at];
		const tokens = [...message.tokens.slice(0, index), { ids: [id], text, logprob, top: message.tokens[index].top }];
		Object.assign(message, { tokens, content: message.head + tokens.map((token) => token.text).join(''), finish: undefined });
		const before = said(system, messages.slice(0, at));
		const template = message.head
			? { messages: [...before, { role: 'assistant', content: message.head }], continue_final_message: true }
			: { messages: before };
		return { version: { messages }, template, ids: tokens.flatMap((token) => token.ids) };
	}

	/** Takes what comes into the last message, from chunks of chat or of completions. */
	receive(isChat) {
		const read = isChat ? chatReader() : completionReader();
		const message = this.version.messages.at(-1);
		const view = this.views[this.version.messages.length - 1];
		return (choice) => {
			const tokens = read(choice);
			const text = (isChat ? choice.delta?.content : choice.text) ?? '';
			message.tokens.push(...tokens);
			message.content += text;
			if (view) view.add(tokens);
			else this.pending += text;
			return tokens;
		};
	}

	flush() {
		if (!this.pending) return;
		this.turns.lastChild.lastChild.lastChild.appendData(this.pending);
		this.pending = '';
	}
}

const said = (system, messages) => [
	...(system ? [{ role: 'system', content: system }] : []),
	...messages.map(({ role, content }) => ({ role, content })),
];
