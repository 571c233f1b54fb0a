// Parameters: one table of them, the form that it makes, and the fields of a request that their values are.

import { Refusal } from './api.js';
import { button, make } from './dom.js';

const number = (name, label, low, high, step, about) => ({ name, label, low, high, step, about, kind: 'number' });

/** In the order of the form. A value is a text; an empty one is the default, which is not sent unless `sent` says so. */
export const PARAMETERS = [
	{ ...number('max_tokens', 'Max tokens', 0, undefined, 1, 'Tokens to generate at most'), sent: '200' },
	number('temperature', 'Temperature', 0, 2, 0.1, '0 always takes the most probable token'),
	number('top_p', 'Top p', 0, 1, 0.05, 'The best tokens whose probabilities reach this'),
	number('top_k', 'Top k', 0, undefined, 1, 'So many of the best tokens; 0 for all'),
	number('min_p', 'Min p', 0, 1, 0.01, 'Tokens at least this times as probable as the best'),
	number('repetition_penalty', 'Repetition penalty', 0, undefined, 0.05, 'Divides the logits of tokens already seen'),
	{ ...number('presence_penalty', 'Presence penalty', -2, 2, 0.1, 'Taken once from tokens generated before'), initial: '0' },
	{ ...number('frequency_penalty', 'Frequency penalty', -2, 2, 0.1, 'Taken as often as a token was generated'), initial: '0' },
	{ ...number('seed', 'Seed', undefined, Number.MAX_SAFE_INTEGER, 1, 'The same seed gives the same text'), initial: 'drawn' },
	{ ...number('logprobs', 'Alternatives', -1, 20, 1, 'Shown for each token; -1: no probabilities'), sent: '5' },
	{ name: 'stop', label: 'Stop strings', kind: 'text', about: 'One a line; \\n is a line break' },
	{ name: 'format', label: 'Output', kind: 'choice' },
	{ name: 'guide', label: 'Schema', kind: 'text', code: true },
	{ name: 'system', label: 'System message', kind: 'text', mode: 'chat' },
	{ name: 'extra', label: 'Other fields', kind: 'text', code: true, about: 'JSON, as {"ignore_eos": true}' },
];

const FORMATS = { '': 'Any text', json_object: 'JSON object', json_schema: 'JSON by a schema', regex: 'Regular expression', grammar: 'Lark grammar' };
const GUIDES = { json_schema: 'Schema', regex: 'Expression', grammar: 'Grammar' };
const PLACEHOLDERS = { json_schema: '{"type": "object", "properties": {}}', regex: '[A-Z][a-z]+', grammar: 'start: "yes" | "no"' };

/** The form. `values` maps names to texts, and is what is saved and shared. */
export class Parameters {
	constructor(form, changed) {
		this.form = form;
		this.values = {};
		this.defaults = {};
		this.rows = new Map();
		for (const parameter of PARAMETERS) this.#add(parameter, changed);
		form.addEventListener('submit', (event) => event.preventDefault());
	}

	#add(parameter, changed) {
		const { name, label, kind, about } = parameter;
		const id = `parameter-${name}`;
		const field = Object.assign(make({ number: 'input', text: 'textarea', choice: 'select' }[kind]), { id, name });
		if (kind === 'number') {
			const { low = '', high = '', step } = parameter;
			Object.assign(field, { type: 'number', min: low, max: high, step });
		} else if (kind === 'text') {
			Object.assign(field, { rows: 2, spellcheck: false, autocapitalize: 'off', className: parameter.code ? 'code' : '' });
		} else {
			for (const [value, text] of Object.entries(FORMATS)) field.append(new Option(text, value));
		}
		const reset = button('↺', () => set(''), 'reset');
		reset.setAttribute('aria-label', `Reset ${label}`);
		const row = make('div', `parameter ${kind}`);
		row.append(Object.assign(make('label', '', label), { htmlFor: id }), field, reset);
		if (about) {
			row.append(Object.assign(make('span', 'hidden', about), { id: `${id}-about` }));
			row.title = about;
			field.setAttribute('aria-describedby', `${id}-about`);
		}
		const set = (value) => {
			this.values[name] = value;
			this.show();
			changed();
			field.focus();
		};
		field.addEventListener('input', () => set(field.value));
		this.form.append(row);
		this.rows.set(name, { row, field, reset, parameter });
	}

	/** Takes values over; what is no parameter of ours is left out. */
	set(values) {
		this.values = {};
		for (const { name } of PARAMETERS) {
			if (typeof values?.[name] === 'string' && values[name]) this.values[name] = values[name];
		}
		this.show();
	}

	/** Shows the values, in this mode. */
	show(mode = this.mode) {
		this.mode = mode;
		const format = this.values.format ?? '';
		for (const [name, { row, field, reset, parameter }] of this.rows) {
			const value = this.values[name] ?? '';
			if (field.value !== value) field.value = value;
			reset.hidden = !value;
			row.hidden = (parameter.mode && parameter.mode !== mode) || (name === 'guide' && !GUIDES[format]);
			if (parameter.kind === 'number') field.placeholder = this.initial(parameter);
		}
		const guide = this.rows.get('guide');
		guide.row.firstChild.textContent = GUIDES[format] ?? 'Schema';
		guide.field.placeholder = PLACEHOLDERS[format] ?? '';
	}

	initial({ name, sent, initial }) {
		const value = this.defaults[name];
		return sent ?? initial ?? (value === undefined ? '' : String(value));
	}

	/** Marks the field that an error is about, by the name that the server has for it. */
	mark(path) {
		const name = path?.split(/[.[]/)[0];
		const wrong = { response_format: 'guide', top_logprobs: 'logprobs' }[name] ?? name;
		for (const [of, { field }] of this.rows) {
			if (of === wrong) field.setAttribute('aria-invalid', 'true');
			else field.removeAttribute('aria-invalid');
		}
	}

	get isGuided() {
		return Boolean(this.values.format);
	}

	/** The fields of a request. */
	fields() {
		const fields = {};
		for (const parameter of PARAMETERS) {
			const value = this.values[parameter.name] || parameter.sent;
			if (parameter.kind !== 'number' || !value) continue;
			if (!Number.isFinite(Number(value))) throw new Refusal(`${parameter.label}: ${value} is no number.`, { param: parameter.name });
			fields[parameter.name] = Number(value);
		}
		const { logprobs, ...rest } = fields;
		if (logprobs >= 0) Object.assign(rest, this.mode === 'chat' ? { logprobs: true, top_logprobs: logprobs } : { logprobs });
		const stop = (this.values.stop ?? '').split('\n').filter(Boolean);
		if (stop.length) rest.stop = stop.map((text) => text.replaceAll('\\n', '\n'));
		const format = this.#format();
		if (format) rest.response_format = format;
		return { ...rest, ...this.#json('extra', 'Other fields', {}) };
	}

	#format() {
		const { format, guide = '' } = this.values;
		if (!format) return undefined;
		if (format === 'json_object') return { type: format };
		if (!guide.trim()) throw new Refusal(`${GUIDES[format]}: there is none yet.`, { param: 'guide' });
		if (format === 'json_schema') return { type: format, json_schema: { name: 'output', schema: this.#json('guide', 'Schema') } };
		return format === 'regex' ? { type: format, pattern: guide } : { type: format, grammar: guide };
	}

	#json(name, label, otherwise) {
		const text = this.values[name]?.trim();
		if (!text) return otherwise;
		try {
			return JSON.parse(text);
		} catch (error) {
			throw new Refusal(`${label}: this is not JSON: ${error.message}`, { param: name });
		}
	}
}
