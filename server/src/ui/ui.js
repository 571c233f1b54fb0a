// The page: it brings together a mode (complete.js, chat.js), parameters, one run at a time, and the versions that runs make.

import { getJson, key, postJson, Refusal, stream, tokenText } from './api.js';
import { Chat, emptyChat } from './chat.js';
import { Complete, emptyText } from './complete.js';
import { $, make } from './dom.js';
import { Parameters } from './parameters.js';
import { snippets } from './snippets.js';
import { Strip } from './strip.js';
import { showDetails } from './tokens.js';

const STORED = 'serve-engine';
const MOST_VERSIONS = 50;
const PATHS = { complete: 'v1/completions', chat: 'v1/chat/completions' };

const picked = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
const pick = (name, value) => {
	for (const input of document.getElementsByName(name)) input.checked ||= input.value === value;
};

const parameters = new Parameters($('parameters'), () => save());
const strip = new Strip($('strip'));
const complete = new Complete(
	{ text: $('text'), mirror: $('mirror'), tokens: $('text-tokens') },
	{ edited: () => (save(), label()), chosen: (index, button) => details(complete.version.tokens[index], button, index) },
);
const chat = new Chat(
	{ turns: $('turns'), message: $('message') },
	{
		chosen: (index, button, at) => details(chat.version.messages[at].tokens[index], button, index, at),
		edited: (version, isQuestion) => (add(version), isQuestion ? run() : undefined),
		changed: () => (save(), label()),
	},
);

let mode = 'complete';
let facts = {};
let running; // the AbortController of the run under way
let last; // the last request: its path and body
const histories = { complete: { list: [emptyText()], at: 0 }, chat: { list: [emptyChat()], at: 0 } };
const modeOf = { complete, chat };

// ---- Versions

const history = () => histories[mode];
const current = () => history().list[history().at];

function add(version) {
	const of = history();
	// What was not written in is no version to come back to.
	if (version !== current()) of.list.push(version);
	if (of.list.length > MOST_VERSIONS) of.list.shift();
	of.at = of.list.length - 1;
	show();
}

function show() {
	const { list, at } = history();
	closeDetails();
	modeOf[mode].show(list[at]);
	navigate();
	label();
	save();
}

function navigate() {
	const { list, at } = history();
	$('versions').hidden = list.length < 2;
	$('version-number').textContent = `${at + 1} / ${list.length}`;
	$('older').disabled = running || at === 0;
	$('newer').disabled = running || at === list.length - 1;
}

/** Nothing has come of a run: it has made no version. */
function undo() {
	const of = history();
	of.list.pop();
	of.at = Math.min(of.was, of.list.length - 1);
	if (mode === 'chat') $('message').value ||= of.draft;
	show();
}

function step(by) {
	if (running) return;
	history().at += by;
	show();
}

// ---- A run

/** Sends a request; what comes goes into the version that is shown. */
async function generate(path, body, receive) {
	const sheet = mode === 'chat' ? $('turns') : $('sheet');
	const version = current();
	const ending = mode === 'chat' ? version.messages.at(-1) : version;
	const of = modeOf[mode];
	const controller = (running = new AbortController());
	last = { path, body };
	let isDue = false;
	const flush = () => {
		isDue = false;
		const isAtEnd = sheet.scrollHeight - sheet.scrollTop - sheet.clientHeight < 48;
		of.flush();
		strip.show();
		if (isAtEnd) sheet.scrollTop = sheet.scrollHeight;
	};
	strip.begin();
	busy(true);
	let finish;
	try {
		await stream(path, body, controller.signal, {
			head: (headers) => {
				strip.head(headers, body.seed);
				const ignored = headers.get('x-ignored-fields');
				if (ignored) hint(`Ignored: ${ignored}`);
			},
			event: ({ choices, usage }) => {
				for (const choice of choices.filter(({ index }) => index === 0)) {
					const tokens = receive(choice);
					strip.came(tokens.reduce((sum, token) => sum + token.ids.length, 0));
					speak(choice.text ?? choice.delta?.content ?? '');
					if (choice.finish_reason) {
						finish = choice.finish_reason;
						ending.stop = choice.stop_reason;
					}
				}
				if (usage) strip.usage(usage);
				if (!isDue) requestAnimationFrame(flush);
				isDue = true;
			},
		});
	} catch (error) {
		finish = controller.signal.aborted ? 'stopped' : 'failed';
		if (finish === 'failed') fail(error);
	}
	ending.finish = finish;
	running = undefined;
	if (finish === 'failed' && !strip.tokens) undo();
	flush();
	const stop = ending.stop === undefined || ending.stop === null ? '' : ` (${JSON.stringify(ending.stop)})`;
	strip.end(finish + stop);
	speak(`\n${finish === 'failed' ? '' : `Finished: ${finish}.`}\n`);
	busy(false);
	label();
	save();
}

function request(more) {
	const fields = parameters.fields();
	return {
		model: facts.name,
		...more,
		...fields,
		stream: true,
		stream_options: { include_usage: true },
		return_token_ids: true,
		return_tokens_as_token_ids: true,
	};
}

/** Begins a run: of `from`, or of what is shown. */
function begin(from) {
	if (mode === 'complete') {
		const { base, prompt } = from ?? complete.start();
		return { path: PATHS.complete, body: request({ prompt }), version: { ...structuredClone(base), before: base } };
	}
	const { base, version, body } = chat.start(parameters.values.system);
	return { path: PATHS.chat, body: request(body), version: { ...version, before: base } };
}

async function run(from) {
	if (running) return;
	clear();
	let made;
	try {
		made = begin(from);
	} catch (error) {
		fail(error);
		return;
	}
	Object.assign(history(), { was: history().at, draft: $('message').value });
	add(made.version);
	if (mode === 'chat') {
		$('message').value = '';
		$('turns').scrollTop = $('turns').scrollHeight;
	}
	await generate(made.path, made.body, modeOf[mode].receive(true));
}

/** Once more, from where the last run began. */
function again() {
	const { before } = current();
	if (!before) return;
	add(structuredClone(before));
	if (mode === 'chat') $('message').value = '';
	run();
}

/** Cuts at a token, puts another in its place, and goes on from these very tokens. */
async function choose(top, index, at) {
	closeDetails();
	clear();
	top.text ||= (await tokenText(top.id)).text;
	if (top.text === undefined) {
		fail(new Refusal('The server does not say what text this token is.'));
		return;
	}
	if (mode === 'complete') {
		await run(complete.startWith(index, top));
		return;
	}
	const { version, template, ids } = chat.startWith(parameters.values.system, at, index, top);
	try {
		const { tokens } = await postJson('apply-template', { model: facts.name, ...template });
		if (running) return;
		const { top_logprobs, logprobs, ...fields } = request({ prompt: [...tokens, ...ids] });
		const body = logprobs ? { ...fields, logprobs: top_logprobs } : fields;
		add({ ...version, before: { messages: version.messages.slice(0, -1) } });
		await generate(PATHS.complete, body, chat.receive(false));
	} catch (error) {
		fail(error);
	}
}

function busy(is) {
	const [run, stop] = [$('run'), $('stop')];
	const isFocused = [run, stop].includes(document.activeElement);
	run.hidden = is;
	stop.hidden = !is;
	if (isFocused) (is ? stop : run).focus();
	$('text').readOnly = is;
	for (const id of ['again', 'new']) $(id).disabled = is;
	navigate();
}

/** What the button does now. */
function label() {
	const version = current();
	let does = version.tokens?.length ? 'Continue' : 'Complete';
	if (mode === 'chat') {
		const isAnswered = version.messages.at(-1)?.role === 'assistant';
		does = $('message').value.trim() || !version.messages.length ? 'Send' : isAnswered ? 'Continue' : 'Answer';
	}
	$('run').firstChild.data = `${does} `;
	if (!running) $('again').disabled = !version.before;
}

// ---- Details of a token

let opener;

function details(token, button, index, at) {
	opener = button;
	document.querySelector('.token[aria-expanded]')?.removeAttribute('aria-expanded');
	button.setAttribute('aria-expanded', 'true');
	showDetails($('details'), token, { choose: reason(at) ?? ((top) => choose(top, index, at)), close: closeDetails });
}

function reason(at) {
	if (running) return 'Stop the answer to choose another token.';
	if (parameters.isGuided) return 'The output has a form: it would have to begin anew, and cannot go on from a token.';
	if (at === undefined && !complete.canChoose) return 'The tokens of the prompt are not known.';
	return undefined;
}

function closeDetails() {
	if ($('details').hidden) return;
	$('details').hidden = true;
	opener?.removeAttribute('aria-expanded');
	opener?.focus();
}

// ---- What is said

function fail(error) {
	const facts = [error.status && `status ${error.status}`, error.code, error.id && `request ${error.id}`].filter(Boolean);
	const box = $('error');
	if (error.retryAfter) facts.push(`try again in ${error.retryAfter} s`);
	box.replaceChildren(make('p', '', error.message), make('p', 'facts', facts.join(' · ')));
	box.hidden = false;
	if (error.status === 401) askForKey();
	else if (error.param) parameters.mark(error.param);
}

function clear() {
	$('error').hidden = true;
	hint('');
	parameters.mark(undefined);
}

const hint = (text) => ($('hint').textContent = text);

let unspoken = '';
/** A screen reader is given whole sentences. */
function speak(text) {
	unspoken += text;
	const end = unspoken.search(/[.!?…:]\s[^.!?…:]*$|\n[^\n]*$/);
	if (end < 0) return;
	const sentences = unspoken.slice(0, end + 1).trim();
	unspoken = unspoken.slice(end + 1);
	if (!sentences) return;
	$('spoken').append(make('p', '', sentences));
	while ($('spoken').childElementCount > 4) $('spoken').firstChild.remove();
}

// ---- The key

function askForKey() {
	$('key').value = key.get();
	if (!$('key-dialog').open) $('key-dialog').showModal();
}

$('key-dialog').addEventListener('close', () => {
	const { returnValue } = $('key-dialog');
	if (returnValue === 'use') key.set($('key').value.trim());
	if (returnValue === 'forget') key.set('');
	$('key').value = '';
	if (returnValue === 'use') start();
});

// ---- Saving, sharing, copying, exporting

const shared = () => {
	const version = current();
	const content = mode === 'chat' ? { messages: version.messages.map(({ role, content }) => ({ role, content })) } : { text: version.text };
	return { mode, values: parameters.values, ...content };
};

function save() {
	const page = { ...shared(), theme: $('theme').value, view: picked('view'), underline: $('underline').checked };
	const other = mode === 'chat' ? { text: histories.complete.list[histories.complete.at].text } : { messages: histories.chat.list[histories.chat.at].messages };
	try {
		localStorage.setItem(STORED, JSON.stringify({ ...other, ...page, draft: $('message').value }));
	} catch {
		// A store that is full or closed is no reason to stop.
	}
}

/** Takes over what was saved or shared, as far as it is what it should be. */
function restore(saved) {
	const { text, messages, values, draft } = saved ?? {};
	if (typeof text === 'string') histories.complete = { list: [{ ...emptyText(), text, prompt: { text } }], at: 0 };
	if (Array.isArray(messages)) {
		const are = messages.filter((one) => ['user', 'assistant'].includes(one?.role) && typeof one.content === 'string');
		const list = [{ messages: are.map(({ role, content }) => ({ role, content, head: content, tokens: [] })) }];
		histories.chat = { list, at: 0 };
	}
	if (typeof draft === 'string') $('message').value = draft;
	parameters.set(values);
}

function read(text, decode = String) {
	try {
		return JSON.parse(decode(text));
	} catch {
		return undefined;
	}
}

async function toClipboard(text, done) {
	try {
		await navigator.clipboard.writeText(text);
		hint(done);
		return true;
	} catch {
		return false;
	}
}

async function share() {
	const url = `${location.href.split('#')[0]}#${encodeURIComponent(JSON.stringify(shared()))}`;
	window.history.replaceState(null, '', url);
	if (!(await toClipboard(url, 'The link is copied.'))) hint('The link is in the address bar.');
}

/** The last request that was sent, or the first one that would be. */
function snippet() {
	try {
		const { path, body } = last ?? begin();
		$('snippet').textContent = snippets[picked('language')](new URL('.', location.href).href, path, body);
	} catch (error) {
		$('snippet').textContent = error.message;
	}
}

function copyAs() {
	snippet();
	$('copy-dialog').showModal();
}

function exported() {
	const all = { server: facts, parameters: parameters.values, last, ...history() };
	const url = URL.createObjectURL(new Blob([JSON.stringify(all, null, 2)], { type: 'application/json' }));
	Object.assign(make('a'), { href: url, download: `${mode}.json` }).click();
}

// ---- Modes and views

function setMode(to) {
	mode = to === 'chat' && facts.has_chat_template ? 'chat' : 'complete';
	pick('mode', mode);
	$('complete').hidden = mode === 'chat';
	$('chat').hidden = mode !== 'chat';
	parameters.show(mode);
	setView();
	show();
}

function setView() {
	const isTokens = picked('view') === 'tokens';
	closeDetails();
	complete.look(isTokens);
	chat.look(isTokens);
	$('underline-option').hidden = !isTokens;
}

function setTheme() {
	document.documentElement.dataset.theme = $('theme').value;
}

const clicks = {
	run: () => run(),
	stop: () => running?.abort(),
	again,
	older: () => step(-1),
	newer: () => step(1),
	new: () => {
		add(mode === 'chat' ? emptyChat() : emptyText());
		(mode === 'chat' ? $('message') : $('text')).focus();
	},
	share,
	'copy-as': copyAs,
	export: exported,
	'key-button': askForKey,
	'copy-close': () => $('copy-dialog').close(),
	copy: async () => {
		if (await toClipboard($('snippet').textContent, 'The code is copied.')) $('copy-dialog').close();
		else getSelection().selectAllChildren($('snippet'));
	},
};
for (const [id, action] of Object.entries(clicks)) $(id).addEventListener('click', action);

document.addEventListener('change', ({ target }) => {
	if (target.name === 'mode' && !running) setMode(target.value);
	else if (target.name === 'mode') pick('mode', mode);
	if (target.name === 'view') setView();
	if (target.name === 'language') snippet();
	if (target.id === 'theme') setTheme();
	if (target.id === 'underline') document.body.classList.toggle('underlines', target.checked);
	save();
});

document.addEventListener('keydown', (event) => {
	if (event.defaultPrevented || document.querySelector('dialog[open]')) return;
	if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) run();
	else if (event.key === 'Escape' && !$('details').hidden) closeDetails();
	else if (event.key === 'Escape') running?.abort();
	else return;
	event.preventDefault();
});

// ---- The start

async function start() {
	clear();
	try {
		facts = await getJson('ui/model.json');
	} catch (error) {
		fail(error);
		if (error.code === 'loading') setTimeout(start, 1000 * (error.retryAfter ?? 1));
		return;
	}
	$('model-name').textContent = facts.name;
	$('model-facts').textContent = `${facts.max_model_len} tokens`;
	document.title = `${facts.name} – serve-engine`;
	parameters.defaults = facts.defaults;
	$('modes').hidden = !facts.has_chat_template;
	setMode(wanted);
}

const link = read(location.hash.slice(1), decodeURIComponent);
const stored = read(localStorage.getItem(STORED));
if (link) window.history.replaceState(null, '', location.href.split('#')[0]);
restore({ ...stored, ...link });
const wanted = link?.mode ?? stored?.mode;
$('theme').value = ['light', 'dark'].includes(stored?.theme) ? stored.theme : '';
setTheme();
$('panel').open = !matchMedia('(max-width: 52rem)').matches;
pick('view', stored?.view);
$('underline').checked = stored?.underline === true;
document.body.classList.toggle('underlines', $('underline').checked);
parameters.show('complete');
setView();
show();
start();
