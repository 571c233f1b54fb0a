// Elements. Text is always put in as text: what a model writes is never read as HTML.

export const $ = (id) => document.getElementById(id);

/** An element of a class, with a text. */
export const make = (tag, className = '', textContent = '') => Object.assign(document.createElement(tag), { className, textContent });

export function button(text, action, className = '') {
	const made = Object.assign(make('button', className, text), { type: 'button' });
	if (action) made.addEventListener('click', action);
	return made;
}
