// Complete: one text, which the model goes on with. What it wrote is marked.
//
// A version is `{ text, marks, prompt: { text, ids }, tokens, finish, stop }`: as long as `text` is the prompt's and the tokens', the
// model goes on from exactly these tokens; once it was edited, from the text.

import { make } from './dom.js';
import { completionReader, TokenView } from './tokens.js';

export const emptyText = () => ({ text: '', marks: [], prompt: { text: '' }, tokens: [] });

const textOf = (tokens) => tokens.map((token) => token.text).join('');
const idsOf = (tokens) => tokens.flatMap((token) => token.ids);

/** The marks of a text whose part from `start` to `end` was replaced by `length` letters. */
function shifted(marks, start, end, length) {
	const by = length - (end - start);
	const parts = marks.flatMap(([from, to]) => [
		[from, Math.min(to, start)],
		[Math.max(from, end) + by, to + by],
	]);
	return parts.filter(([from, to]) => from < to);
}

export class Complete {
	constructor({ text, mirror, tokens }, { edited, chosen }) {
		Object.assign(this, { field: text, mirror, tokensElement: tokens });
		this.view = new TokenView(tokens, chosen);
		this.pending = '';
		text.addEventListener('input', () => {
			this.#edit();
			edited();
		});
	}

	show(version) {
		this.version = version;
		this.pending = '';
		if (this.field.value !== version.text) this.field.value = version.text;
		this.#mark();
		this.view.show(version.tokens.length ? version.prompt.text : version.text, version.tokens);
	}

	/** Shows the text to be written, or its tokens. */
	look(tokens) {
		this.field.parentElement.hidden = tokens;
		this.tokensElement.hidden = !tokens;
	}

	#mark() {
		this.mirror.replaceChildren();
		let at = 0;
		for (const [from, to] of this.version.marks) {
			this.mirror.append(this.version.text.slice(at, from), make('mark', '', this.version.text.slice(from, to)));
			at = to;
		}
		this.mirror.append(this.version.text.slice(at), '\u200b');
	}

	#edit() {
		const [before, after] = [this.version.text, this.field.value];
		const most = Math.min(before.length, after.length);
		let start = 0;
		while (start < most && before[start] === after[start]) start += 1;
		let rest = 0;
		while (rest < most - start && before.at(-1 - rest) === after.at(-1 - rest)) rest += 1;
		const [end, length] = [before.length - rest, after.length - rest - start];
		const marks = shifted(this.version.marks, start, end, length);
		Object.assign(this.version, { text: after, marks, prompt: { text: after }, tokens: [], finish: undefined });
		this.#mark();
		this.view.show(after, []);
	}

	/** What the next run begins with, and its prompt. */
	start() {
		const { text, marks, prompt, tokens, finish, stop } = this.version;
		// A stop string cuts its last token: there the text goes on, not the tokens.
		const isWhole = tokens.length && prompt.ids && text === prompt.text + textOf(tokens) && typeof stop !== 'string';
		if (!isWhole) return { base: { text, marks, prompt: { text }, tokens: [] }, prompt: text };
		// What ended the text is not gone on with.
		const kept = finish === 'stop' && !tokens.at(-1).text ? tokens.slice(0, -1) : tokens;
		return { base: { text, marks, prompt, tokens: kept }, prompt: [...prompt.ids, ...idsOf(kept)] };
	}

	/** The same from the token at `index`, with another one in its place. */
	startWith(index, { id, logprob, text }) {
		const { prompt, tokens, marks } = this.version;
		const kept = [...tokens.slice(0, index), { ids: [id], text, logprob, top: tokens[index].top }];
		const whole = prompt.text + textOf(kept);
		const cut = marks.map(([from, to]) => [from, Math.min(to, prompt.text.length)]).filter(([from, to]) => from < to);
		const base = { text: whole, marks: [...cut, [prompt.text.length, whole.length]], prompt, tokens: kept };
		return { base, prompt: [...prompt.ids, ...idsOf(kept)] };
	}

	get canChoose() {
		return Boolean(this.version.prompt.ids);
	}

	/** Takes what comes into the version that is shown. */
	receive() {
		const read = completionReader();
		const { version } = this;
		return (choice) => {
			version.prompt.ids ??= choice.prompt_token_ids;
			const tokens = read(choice);
			version.tokens.push(...tokens);
			if (choice.text) {
				const last = version.marks.at(-1);
				if (last?.[1] === version.text.length) last[1] += choice.text.length;
				else version.marks.push([version.text.length, version.text.length + choice.text.length]);
				version.text += choice.text;
				this.pending += choice.text;
			}
			this.view.add(tokens);
			return tokens;
		};
	}

	/** Writes what came into the text; what is selected stays so. */
	flush() {
		if (!this.pending) return;
		const end = this.field.value.length;
		this.field.setRangeText(this.pending, end, end, 'preserve');
		const last = this.mirror.lastChild.previousSibling;
		const mark = last?.nodeName === 'MARK' ? last : make('mark');
		if (mark !== last) this.mirror.lastChild.before(mark);
		if (mark.lastChild) mark.lastChild.appendData(this.pending);
		else mark.append(this.pending);
		this.pending = '';
	}
}
