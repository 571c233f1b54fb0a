// The OpenAPI document as a page to read.

const make = (tag, ...children) => {
	const element = document.createElement(tag);
	element.append(...children);
	return element;
};

/** A text with what stands between backticks as code. */
const prose = (text = '') => text.split('`').map((part, index) => (index % 2 ? make('code', part) : part));

const document_ = await (await fetch('openapi.json')).json();
const main = document.getElementById('main');

const resolve = (value) =>
	value?.$ref ? resolve(value.$ref.slice(2).split('/').reduce((at, name) => at[name], document_)) : value;
const nameOf = (reference) => reference.split('/').at(-1);
const link = (reference) => Object.assign(make('a', nameOf(reference)), { href: `#${nameOf(reference)}` });

/** What a value may be, in a few words. */
function kind(schema) {
	const other = { ...schema };
	if (other.$ref) return [link(other.$ref)];
	const several = other.anyOf ?? other.oneOf;
	if (several) return several.flatMap((one, index) => [...(index ? [', '] : []), ...kind(one)]);
	if (other.const !== undefined) return [make('code', JSON.stringify(other.const))];
	const types = [other.type ?? 'any value'].flat().filter((type) => type !== 'null');
	const words = [other.enum ? other.enum.map((one) => JSON.stringify(one)).join(' ') : types.join(' or ')];
	const low = other.minimum ?? other.exclusiveMinimum;
	if (other.exclusiveMinimum !== undefined) words.push(` above ${low}`);
	else if (low !== undefined) words.push(` from ${low}`);
	if (other.maximum !== undefined) words.push(` to ${other.maximum}`);
	if (other.items && Object.keys(other.items).length) words.push(' of ', ...kind(other.items));
	return words;
}

/** The fields of a schema, those of its parts and of the objects inside among them. */
function fields(schema, path = '') {
	const whole = resolve(schema) ?? {};
	const parts = (whole.allOf ?? []).flatMap((part) => fields(part, path));
	const own = Object.entries(whole.properties ?? {}).flatMap(([name, field]) => {
		const row = { name: path + name, field, isNeeded: whole.required?.includes(name) };
		return [row, ...(field.$ref ? [] : fields(field, `${path}${name}.`))];
	});
	return [...own, ...parts];
}

function table(caption, rows) {
	const lines = rows.map(({ name, field, isNeeded }) => {
		const about = field.description ?? resolve(field)?.description;
		return make('tr', Object.assign(make('th', make('code', name), isNeeded ? ' needed' : ''), { scope: 'row' }), make('td', ...kind(field)), make('td', ...prose(about)));
	});
	return make('table', make('caption', caption), ...lines);
}

function operation(paths, method, { summary, requestBody, parameters = [], responses, security }) {
	const section = make('section', make('h3', `${method.toUpperCase()} ${paths[0]}`), make('p', ...prose(summary)));
	if (paths.length > 1) section.append(make('p', 'also ', ...paths.slice(1).flatMap((path) => [make('code', path), ' '])));
	if (security?.length === 0) section.append(make('p', 'needs no key'));
	const given = parameters.map(resolve).map(({ name, in: place, schema, required, description }) => {
		return { name: `${place} ${name}`, field: { ...schema, description }, isNeeded: required };
	});
	if (given.length) section.append(table('Parameters', given));
	const body = requestBody?.content['application/json'].schema;
	if (body) section.append(make('p', 'takes ', ...kind(body)));
	for (const [status, response] of Object.entries(responses)) {
		const { description, content = {} } = resolve(response);
		const bodies = Object.entries(content).flatMap(([type, { schema }]) => [' ', make('code', type), ...(schema.$ref ? [' ', link(schema.$ref)] : [])]);
		section.append(make('p', make('code', status), ' ', ...prose(description), ...bodies));
	}
	return section;
}

const { title, version, description } = document_.info;
document.getElementById('title').textContent = `${title} ${version}`;
document.getElementById('description').append(...prose(description));

// Paths that are the same one are shown once.
const groups = new Map();
for (const [path, item] of Object.entries(document_.paths)) {
	const same = item.$ref ?? path;
	groups.set(same, { item: resolve(item), paths: [...(groups.get(same)?.paths ?? []), path] });
}
for (const tag of document_.tags) {
	main.append(make('h2', tag.description));
	for (const { item, paths } of groups.values()) {
		for (const [method, one] of Object.entries(item)) {
			if (one.tags.includes(tag.name)) main.append(operation(paths, method, one));
		}
	}
}
main.append(make('h2', 'Schemas'));
for (const [name, schema] of Object.entries(document_.components.schemas)) {
	const section = make('section', Object.assign(make('h3', name), { id: name }), make('p', ...prose(schema.description)));
	const rows = fields(schema);
	section.append(rows.length ? table('', rows) : make('p', ...kind(schema)));
	main.append(section);
}
if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
