// One image with its masks: its canvases, its card and list, and what pointer and touch do on them.
// Everything a file says enters as text, never as markup.

const page = JSON.parse(document.getElementById('page').textContent);
const state = { view: page.first, mode: 'both' };
const LONGEST_CANVAS = 1440; // pixels; a canvas finer than the screen makes smooth lines
const SHORT_LIST = 6; // rows a phone shows before it is asked for more
const NESTED = new Set(['threshold', 'count']);
const LABELS = { threshold: 'Threshold θ', count: 'Recorded at', source: 'Source', level: 'Level' };

const number = new Intl.NumberFormat('en');
const plural = (count, noun) => `${number.format(count)} ${noun}${count === 1 ? '' : 's'}`;
const short = (value) => (typeof value === 'number' ? String(+value.toPrecision(4)) : value);
const sentence = (key) => key.charAt(0).toUpperCase() + key.slice(1).replaceAll('_', ' ');

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

const scratch = document.createElement('canvas');
const coarse = matchMedia('(pointer: coarse)').matches;

/** Items to draw, one a frame and the nearest first, so that scrolling stays smooth. */
const soon = {
  items: new Set(),
  add(item) {
    if (!this.items.size) requestAnimationFrame(() => this.next());
    this.items.add(item);
  },
  delete(item) {
    this.items.delete(item);
  },
  next() {
    const middle = innerHeight / 2;
    const distance = (item) => {
      const box = item.section.getBoundingClientRect();
      return Math.abs((box.top + box.bottom) / 2 - middle);
    };
    let nearest = null;
    for (const item of this.items) if (!nearest || distance(item) < distance(nearest)) nearest = item;
    if (!nearest) return;
    this.items.delete(nearest);
    nearest.render();
    if (this.items.size) requestAnimationFrame(() => this.next());
  },
};

class Item {
  constructor(section) {
    this.section = section;
    this.picture = section.querySelector('.picture');
    this.image = section.querySelector('img');
    this.masks = null; // until the image comes near
    this.canvases = null;
    this.near = false;
    this.focused = null;
    this.held = null;
    this.card = make('div', { cls: 'card' });
    this.list = make('ol', { cls: 'list' });
    this.more = make('button', { cls: 'more', type: 'button', hidden: '' });
    section.append(make('aside', { cls: 'panel', 'aria-label': 'Masks' }, make('div', { cls: 'inside' }, this.card, this.list, this.more)));
  }

  load() {
    if (this.masks) return;
    const script = this.section.querySelector('script');
    const data = JSON.parse(script.textContent);
    script.remove();
    this.width = data.width;
    this.height = data.height;
    this.masks = data.masks;
    this.views = data.views;
    this.masks.forEach((mask) => {
      mask.ends = runEnds(mask.rle);
      mask.share = mask.area / (data.width * data.height);
    });
    for (const mask of this.masks) if (mask.parent !== undefined) this.masks[mask.parent].parts = (this.masks[mask.parent].parts || 0) + 1;
    if (this.masks.length) this.listen();
    else this.card.append(make('p', { cls: 'quiet', text: 'No masks in this image.' }));
  }

  /** Positions of the masks that the chosen view shows, larger first. */
  members() {
    const all = this.masks.map((_, k) => k);
    if (!state.view) return all;
    const [key, value] = state.view;
    const own = this.views.filter((view) => view[0] === key);
    if (!own.length) return all; // this image has one level only
    if (!NESTED.has(key)) return own.find((view) => view[1] === value)?.[2] ?? [];
    // A level at which nothing changed in this image looks like the next finer one.
    const reached = own.filter((view) => view[1] >= value);
    return reached.length ? reached.reduce((a, b) => (a[1] < b[1] ? a : b))[2] : [];
  }

  enter() {
    this.near = true;
    soon.add(this);
  }

  leave() {
    this.near = false;
    soon.delete(this);
    if (!this.canvases) return;
    for (const layer of this.picture.querySelectorAll('canvas, .dim, .tag')) layer.remove();
    this.canvases = null;
    this.rendered = null;
  }

  render() {
    this.load();
    if (!this.masks.length) return;
    const box = this.picture.getBoundingClientRect();
    if (!box.width) return;
    const dense = Math.min(2, LONGEST_CANVAS / Math.max(box.width, box.height));
    const width = Math.max(1, Math.round(box.width * dense)), height = Math.max(1, Math.round(box.height * dense));
    const wanted = `${width} ${height} ${state.view}`;
    if (this.rendered === wanted) return;
    this.rendered = wanted;
    if (!this.canvases) {
      this.canvases = Object.fromEntries(['fill', 'lines', 'focus'].map((name) => [name, make('canvas', { cls: name, 'aria-hidden': 'true' })]));
      const { fill, lines, focus } = this.canvases;
      this.tag = make('span', { cls: 'tag', 'aria-hidden': 'true' }); // the card in short, where it may be out of sight
      this.picture.append(fill, lines, make('div', { cls: 'dim' }), focus, this.tag);
    }
    for (const canvas of Object.values(this.canvases)) Object.assign(canvas, { width, height });
    this.thick = dense >= 1.3 ? 2 : 1;
    this.frame = makeFrame(this.width, this.height, width, height);
    this.shown = this.members();
    const plane = labelPlane(this.masks, this.shown, this.frame);
    const words = new Uint32Array(this.masks.length + 1);
    for (const k of this.shown) words[k + 1] = word(parseInt(this.masks[k].rgb, 16));
    const { fill, lines } = this.canvases;
    // How many canvas pixels each mask is the topmost of; entry 0 is what no mask covers.
    this.visible = paintView(fill.getContext('2d'), lines.getContext('2d'), plane, this.frame, words, this.thick);
    if (this.listed !== String(state.view)) {
      this.listed = String(state.view);
      if (this.held !== null && !this.shown.includes(this.held)) this.held = null;
      this.fillList();
    }
    this.focused = undefined; // the canvas is empty: draw again
    this.focus(this.held);
  }

  fillList() {
    const scored = this.masks.some((mask) => mask.score !== undefined);
    const largest = Math.sqrt(Math.max(1, ...this.shown.map((k) => this.masks[k].area)));
    const rows = this.shown.map((k, place) => {
      const mask = this.masks[k];
      const bar = make('span', { cls: 'bar' }, make('i'));
      const button = make('button', { cls: 'row', type: 'button', tabindex: place ? '-1' : '0', 'aria-pressed': 'false', 'data-k': k });
      button.append(make('span', { cls: 'id', text: mask.category ?? `#${mask.id}` }), bar, make('span', { cls: 'area', text: percent(mask.share) }));
      if (scored) button.append(make('span', { cls: 'score', text: mask.score === undefined ? '' : mask.score.toFixed(2), title: 'Score' }));
      button.style.setProperty('--mask', `#${mask.rgb}`);
      button.style.setProperty('--length', `${(100 * Math.sqrt(mask.area)) / largest}%`);
      return make('li', {}, button);
    });
    this.list.replaceChildren(...rows);
    this.list.classList.remove('open');
    this.more.hidden = rows.length <= SHORT_LIST;
    this.more.textContent = `Show all ${number.format(rows.length)}`;
  }

  rowOf(k) {
    return this.list.querySelector(`[data-k="${k}"]`);
  }

  /** The masks around one, nearest first, along parent_id (a cycle ends it). */
  ancestors(mask) {
    const found = [];
    let up = this.masks[mask.parent];
    while (up && up !== mask && !found.includes(up)) {
      found.push(up);
      up = this.masks[up.parent];
    }
    return found;
  }

  /** Bring out mask `k`, or none (null). */
  focus(k) {
    if (k === this.focused) return;
    const fresh = this.focused === undefined;
    for (const row of this.list.querySelectorAll('.row.on')) row.classList.remove('on');
    this.focused = k;
    this.section.classList.toggle('focusing', k !== null);
    const context = this.canvases.focus.getContext('2d');
    if (!fresh) context.clearRect(0, 0, this.frame.width, this.frame.height);
    if (k === null) {
      this.describeAll();
      return;
    }
    const mask = this.masks[k];
    this.describe(mask);
    const row = this.rowOf(k);
    row?.classList.add('on');
    for (const outer of this.ancestors(mask)) paintOuter(context, scratch, outer, this.frame, this.thick);
    paintFocus(context, scratch, this.image, mask, this.frame, this.thick);
  }

  hold(k) {
    this.held = k;
    for (const row of this.list.querySelectorAll('.row[aria-pressed="true"]')) row.setAttribute('aria-pressed', 'false');
    if (k !== null) this.rowOf(k)?.setAttribute('aria-pressed', 'true');
    this.focus(k);
  }

  describeAll() {
    const share = this.shown.length ? `covering ${percent(1 - this.visible[0] / (this.frame.width * this.frame.height))}` : 'at this level';
    const among = this.shown.length < this.masks.length ? `of ${plural(this.masks.length, 'mask')}` : this.shown.length === 1 ? 'mask' : 'masks';
    this.card.replaceChildren(
      make('p', { cls: 'lead' }, make('strong', { text: number.format(this.shown.length) }), ` ${among} ${share}`),
      this.strip(),
      make('p', { cls: 'quiet', text: coarse ? 'Tap the picture or the list to look at one.' : 'Point at the picture or the list to look at one.' }),
    );
  }

  /** The image as one bar: what of it each mask takes, larger first, then what none does. */
  strip() {
    const stops = [];
    let from = 0;
    for (const k of this.shown) {
      const to = from + (100 * this.visible[k + 1]) / (this.frame.width * this.frame.height);
      if (to > from) stops.push(`#${this.masks[k].rgb} ${from.toFixed(2)}% ${to.toFixed(2)}%`);
      from = to;
    }
    stops.push(`var(--well) ${from.toFixed(2)}% 100%`);
    const strip = make('div', { cls: 'strip', 'aria-hidden': 'true' });
    strip.style.background = `linear-gradient(to right, ${stops.join(', ')})`;
    return strip;
  }

  describe(mask) {
    const facts = [['Area', `${number.format(mask.area)} px`]];
    if (mask.score !== undefined) facts.push(['Score', mask.score.toFixed(3)]);
    if (mask.parentId !== undefined) facts.push(['Parent', `#${mask.parentId}`]);
    if (mask.parts) facts.push(['Parts', number.format(mask.parts)]);
    if (mask.category !== undefined) facts.push(['Mask', `#${mask.id}`]);
    if (mask.crowd) facts.push(['Crowd', 'yes']);
    for (const [key, value] of mask.more ?? []) {
      facts.push([Object.hasOwn(LABELS, key) ? LABELS[key] : sentence(key), key === 'count' ? `${short(value)} regions` : short(value)]);
    }
    const head = make(
      'p',
      { cls: 'lead' },
      make('i', { cls: 'swatch' }),
      make('strong', { text: mask.category ?? `Mask ${mask.id}` }),
      make('span', { cls: 'share', text: percent(mask.share) }),
    );
    const table = make('dl', {}, ...facts.map(([name, value]) => make('div', {}, make('dt', { text: name }), make('dd', { text: value }))));
    this.tag.textContent = `${mask.category ?? `Mask ${mask.id}`} · ${percent(mask.share)}`;
    this.card.style.setProperty('--mask', `#${mask.rgb}`);
    this.card.replaceChildren(head, table);
  }

  /** Masks of the view under a pointer, smallest first. */
  under(event) {
    const box = this.picture.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * this.width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * this.height);
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return [];
    return this.shown.filter((k) => holds(this.masks[k].ends, x * this.height + y)).reverse();
  }

  listen() {
    let queued = null;
    this.picture.addEventListener('pointermove', (event) => {
      if (event.pointerType === 'touch' || this.held !== null) return;
      if (queued === null) requestAnimationFrame(() => {
        const last = queued;
        queued = null;
        if (!this.canvases || this.held !== null || !this.picture.matches(':hover')) return;
        const [k = null] = this.under(last);
        this.focus(k);
        const row = k === null ? null : this.rowOf(k);
        // Only where the list scrolls by itself: the page must not move under the pointer.
        if (row && this.list.scrollHeight > this.list.clientHeight) this.list.scrollTop = row.offsetTop - this.list.clientHeight / 2;
      });
      queued = event;
    });
    this.picture.addEventListener('pointerleave', () => this.canvases && this.focus(this.held));
    this.picture.addEventListener('click', (event) => {
      if (!this.canvases) return;
      const found = this.under(event);
      // Again on the mask that is held: the one around it, and after the last, none.
      this.hold(found[this.held === null ? 0 : found.indexOf(this.held) + 1] ?? null);
    });
    const k = (event) => {
      const row = event.target.closest('.row');
      return row && this.canvases ? Number(row.dataset.k) : null;
    };
    this.list.addEventListener('pointerover', (event) => event.pointerType !== 'touch' && k(event) !== null && this.focus(k(event)));
    this.list.addEventListener('pointerleave', () => this.canvases && this.focus(this.held));
    this.list.addEventListener('focusin', (event) => event.target.matches(':focus-visible') && k(event) !== null && this.focus(k(event)));
    this.list.addEventListener('focusout', () => this.canvases && this.focus(this.held));
    this.list.addEventListener('click', (event) => k(event) !== null && this.hold(this.held === k(event) ? null : k(event)));
    this.list.addEventListener('keydown', (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step || !event.target.classList.contains('row')) return;
      event.preventDefault();
      const rows = [...this.list.querySelectorAll('.row')];
      const next = rows[rows.indexOf(event.target) + step];
      if (!next || !next.getClientRects().length) return;
      event.target.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
    this.more.addEventListener('click', () => {
      const open = this.list.classList.toggle('open');
      this.more.textContent = open ? 'Show fewer' : `Show all ${number.format(this.shown.length)}`;
    });
  }
}
