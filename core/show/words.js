// What the page knows and how it says it. Everything a file says enters as text, never as markup.

const page = JSON.parse(document.getElementById('page').textContent);
const TRUTH = page.truth ? page.panels.length : -1; // the ground truth's panel stands after the files'
const state = { view: page.first, mode: 'both', against: 0, annotator: 0, off: new Set() }; // off: categories that are not drawn
const LABELS = { threshold: 'Threshold θ', count: 'Recorded at', source: 'Source', level: 'Level' };
const coarse = matchMedia('(pointer: coarse)').matches;

const number = new Intl.NumberFormat('en');
const plural = (count, noun) => `${number.format(count)} ${noun}${count === 1 ? '' : 's'}`;
const classes = (count) => `${number.format(count)} ${count === 1 ? 'class' : 'classes'}`;
const rightOf = (share) => `${percent(share)} of pixels right`;
const short = (value) => (typeof value === 'number' ? String(+value.toPrecision(4)) : value);
const sentence = (key) => key.charAt(0).toUpperCase() + key.slice(1).replaceAll('_', ' ');
const foundOf = (hits, total) => `${number.format(hits)} of ${number.format(total)} found at IoU ${short(page.truth.at)}`;

function percent(share) {
  const value = 100 * share;
  if (value >= 9.95) return `${Math.round(value)} %`;
  if (value >= 0.995) return `${value.toFixed(1)} %`;
  if (value >= 0.01) return `${value.toFixed(2)} %`;
  return value > 0 ? '< 0.01 %' : '0 %';
}

/** An element with classes, text and children; text never becomes markup. */
function make(tag, { cls = '', text = null, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  if (cls) element.className = cls;
  if (text !== null) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Choices side by side, of which one holds: radio buttons that look like one control. `options` are [text, value, label]. */
function segments(name, options, chosen) {
  const inputs = options.map(([text, value, label]) => {
    const input = make('input', { type: 'radio', name, value, 'aria-label': label });
    input.checked = value === chosen;
    return make('label', { title: label }, input, make('span', { text }));
  });
  return make('span', { cls: 'segments' }, ...inputs);
}
