// One image: its panels, what goes on between them, and the card and list beside them.

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
    this.panels = [...section.querySelectorAll('figure')].map((figure, place) => new Panel(place, figure));
    this.image = section.querySelector('img');
    this.pictures = this.panels.map((panel) => panel.picture);
    this.loaded = false; // until the image comes near
    this.near = false;
    this.active = 0; // the panel whose masks are listed
    this.focused = this.held = null; // [panel, mask]
    this.card = make('div', { cls: 'card', role: 'group', 'aria-label': 'About' });
    this.list = new MaskList({ point: (k) => this.focus(k === null ? this.held : [this.active, k]), hold: (k) => this.hold(k === null ? null : [this.active, k]) });
    this.legend = new Legend({ point: (category) => this.focusCategory(category), toggle: switchCategory, all: () => switchCategory(null) });
    this.inside = make('div', { cls: 'inside' }, this.card, this.legend.element, this.list.element, this.list.more);
    section.append(make('aside', { cls: 'panel', 'aria-label': 'Masks' }, this.inside));
  }

  load() {
    if (this.loaded) return;
    this.loaded = true;
    const script = this.section.querySelector('script');
    this.data = JSON.parse(script.textContent);
    script.remove();
    for (const panel of this.panels) {
      if (panel.isTruth ? !this.data.truths.length : !this.data.panels[panel.place]) continue;
      if (!panel.isTruth) panel.set(this.data.panels[panel.place], this.data.width, this.data.height);
      if (!panel.image) {
        panel.image = this.image.cloneNode();
        panel.image.alt = panel.title;
        panel.picture.prepend(panel.image);
      }
    }
    this.judge();
    this.active = Math.max(0, this.panels.findIndex((panel) => panel.masks?.length));
    if (this.panels.length > 1) this.addTabs();
    if (this.panels.some((panel) => panel.masks?.length)) this.listen();
    else this.card.append(make('p', { cls: 'quiet', text: 'No masks in this image.' }));
  }

  /** Set the chosen annotator's ground truth beside the predictions. */
  judge() {
    this.pairings = [];
    const panel = this.panels[TRUTH];
    if (!panel || !this.data.truths.length) return;
    const wanted = page.truth.annotators[state.annotator];
    const truth = this.data.truths.find((one) => one.annotator === wanted) ?? this.data.truths[0];
    panel.set(truth, this.data.width, this.data.height);
    this.pairings = truth.found.map(pairing);
    const total = truth.masks.filter((mask) => !mask.crowd).length;
    this.pairings.forEach((pairs, place) => {
      const file = this.panels[place];
      if (!file.masks) return;
      file.matched = pairs.byMask;
      file.found = foundOf(pairs.byTruth.size, total);
      file.said.textContent = file.found;
    });
    const missed = total - this.pairings[state.against].byTruth.size;
    const whose = truth.annotator === null ? '' : ` by annotator ${truth.annotator}`;
    panel.said.textContent = `${plural(truth.masks.length, 'mask')}${whose}, ${number.format(missed)} missed`;
    panel.mark(this.pairings[state.against], this.panels[state.against].masks);
  }

  /** Another annotator, or another file to judge by. */
  rejudge() {
    if (!this.loaded) return;
    this.held = null;
    this.judge();
    for (const panel of this.panels) panel.rendered = null;
    if (this.near) soon.add(this);
  }

  addTabs() {
    const options = this.panels.filter((panel) => panel.masks).map((panel) => [panel.title, panel.place, `List the masks of ${panel.title}`]);
    this.tabs = make('fieldset', { cls: 'tabs' }, make('legend', { cls: 'unseen', text: 'Whose masks are listed' }), segments(`list-${this.section.id}`, options, this.active));
    this.tabs.addEventListener('input', ({ target }) => {
      this.show(Number(target.value));
      this.focus(this.held);
    });
    this.inside.prepend(this.tabs);
  }

  /** List the masks of another panel. */
  show(place) {
    this.active = place;
    const input = this.tabs?.querySelector(`[value="${place}"]`);
    if (input) input.checked = true;
    if (!this.panels[place].canvases) return;
    this.legend.fill(this.panels, this.panels[place]);
    this.list.held = this.held?.[0] === place ? this.held[1] : null;
    this.list.fill(this.panels[place]);
    this.focused = undefined;
  }

  enter() {
    this.near = true;
    soon.add(this);
  }

  leave() {
    this.near = false;
    soon.delete(this);
    for (const panel of this.panels) panel.clear();
  }

  render() {
    this.load();
    if (!this.panels.some((panel) => panel.masks?.length)) return;
    if (!this.panels.filter((panel) => panel.render()).length) return;
    const wanted = String([state.view, state.annotator, state.against, ...state.off]);
    if (this.listed !== wanted) {
      this.listed = wanted;
      if (this.held && !this.panels[this.held[0]].stack?.includes(this.held[1])) this.held = null;
      if (this.held && this.panels[this.held[0]].isOff(this.panels[this.held[0]].masks[this.held[1]])) this.held = null;
      this.show(this.active);
    }
    this.focused = undefined; // the canvases are empty: draw again
    this.focus(this.held);
  }

  /** Bring out a mask, [panel, mask], and what belongs to it in the other panels; null brings out none. */
  focus(at) {
    if (String(at) === String(this.focused) && this.focused !== undefined) return;
    this.focused = at;
    const [place, k] = at ?? [null, null];
    const others = at ? partners(this.pairings, place, k) : [];
    for (const panel of this.panels) {
      const other = others.find((one) => one.panel === panel.place);
      if (panel.place === place) panel.focus(k, `${panel.masks[k].name} · ${percent(panel.masks[k].share)}`);
      else if (other) panel.focus(other.k, `${other.paired ? '' : 'nearest, '}IoU ${other.iou.toFixed(2)} · ${panel.masks[other.k].name}`, !other.paired);
      else panel.focus(null);
    }
    this.list.point(place === this.active ? k : others.find((one) => one.panel === this.active)?.k ?? null, this.followed);
    if (at) this.describe(this.panels[place], k, others);
    else this.describeAll(this.panels[this.active]);
  }

  /** Bring out a category in every panel that has it; null brings out what is held. */
  focusCategory(category) {
    if (category === null || state.off.has(category)) {
      this.focused = undefined;
      this.focus(this.held);
      return;
    }
    this.focused = undefined;
    for (const panel of this.panels) panel.focusCategory(category);
    this.list.point(null);
    this.describeCategory(category);
  }

  hold(at) {
    this.held = at;
    if (at && at[0] !== this.active) this.show(at[0]);
    this.list.hold(at?.[0] === this.active ? at[1] : null);
    this.focus(at);
  }

  describeAll(panel) {
    const { shown, masks, visible, frame } = panel;
    const share = shown.length ? `covering ${percent(1 - visible[0] / (frame.width * frame.height))}` : 'at this level';
    const among = shown.length < masks.length ? `of ${plural(masks.length, 'mask')}` : shown.length === 1 ? 'mask' : 'masks';
    const [many, what] = panel.legend ? classesShown(panel) : [number.format(shown.length), among];
    const lines = [make('p', { cls: 'lead' }, make('strong', { text: many }), ` ${what} ${share}`), this.strip(panel)];
    if (panel.found) lines.push(make('p', { text: `Ground truth: ${panel.found}` }));
    const list = panel.legend ? 'legend' : 'list';
    lines.push(make('p', { cls: 'quiet', text: coarse ? `Tap the picture or the ${list} to look at one.` : `Point at the picture or the ${list} to look at one.` }));
    this.card.replaceChildren(...lines);
  }

  /** The image as one bar: what of it each mask takes, larger first, then what none does. */
  strip({ shown, masks, legend, visible, frame }) {
    const stops = [];
    let from = 0;
    const colours = legend ? legend.map(({ category }, group) => [group, page.categories[category][1]]) : shown.map((k) => [k, masks[k].rgb]);
    for (const [k, rgb] of colours) {
      const to = from + (100 * visible[k + 1]) / (frame.width * frame.height);
      if (to > from) stops.push(`#${rgb} ${from.toFixed(2)}% ${to.toFixed(2)}%`);
      from = to;
    }
    stops.push(`var(--well) ${from.toFixed(2)}% 100%`);
    const strip = make('div', { cls: 'strip', 'aria-hidden': 'true' });
    strip.style.background = `linear-gradient(to right, ${stops.join(', ')})`;
    return strip;
  }

  /** What each panel has of a category. */
  describeCategory(category) {
    const [name, rgb] = page.categories[category];
    const facts = [];
    for (const panel of this.panels) {
      const group = panel.legend?.findIndex((row) => row.category === category) ?? -1;
      if (!panel.legend) continue;
      facts.push([this.panels.length > 1 ? panel.title : 'Share', group < 0 ? 'none' : percent(panel.shareOf(group))]);
    }
    const head = make('p', { cls: 'lead' }, make('i', { cls: 'swatch' }), make('strong', { text: name }));
    const table = make('dl', {}, ...facts.map(([key, value]) => make('div', {}, make('dt', { text: key, title: key }), make('dd', { text: value }))));
    this.card.style.setProperty('--mask', `#${rgb}`);
    this.card.replaceChildren(head, table);
  }

  describe(panel, k, others) {
    const mask = panel.masks[k];
    const facts = [['Area', `${number.format(mask.area)} px`]];
    if (panel.isTruth && mask.missed) facts.push(['Found', 'missed']);
    for (const { panel: place, k: other, iou, paired } of others) {
      const { title, isTruth, masks } = this.panels[place];
      const several = page.panels.length > 1;
      const who = isTruth ? masks[other].name : `${several && !paired ? 'nearest ' : ''}#${masks[other].id}`;
      facts.push([isTruth ? 'Ground truth' : several ? title : paired ? 'Found by' : 'Nearest', `${who}, IoU ${iou.toFixed(2)}`]);
    }
    if (mask.score !== undefined) facts.push(['Score', mask.score.toFixed(3)]);
    if (mask.parentId !== undefined) facts.push(['Parent', `#${mask.parentId}`]);
    if (panel.children[k].length) facts.push(['Parts', number.format(panel.children[k].length)]);
    if (mask.category !== undefined) facts.push(['Mask', `#${mask.id}`]);
    if (mask.crowd) facts.push(['Crowd', 'yes']);
    for (const [key, value] of mask.more ?? []) {
      facts.push([Object.hasOwn(LABELS, key) ? LABELS[key] : sentence(key), key === 'count' ? `${short(value)} regions` : short(value)]);
    }
    const head = make(
      'p',
      { cls: 'lead' },
      make('i', { cls: mask.missed && !panel.legend ? 'swatch hatched' : 'swatch' }),
      make('strong', { text: mask.name }),
      make('span', { cls: 'share', text: percent(mask.share) }),
    );
    const table = make('dl', {}, ...facts.map(([name, value]) => make('div', {}, make('dt', { text: name }), make('dd', { text: value }))));
    this.card.style.setProperty('--mask', `#${mask.rgb}`);
    this.card.replaceChildren(head, table);
  }

  listen() {
    for (const panel of this.panels) {
      if (!panel.masks) continue;
      let queued = null;
      panel.picture.addEventListener('pointermove', (event) => {
        if (event.pointerType === 'touch' || this.held !== null) return;
        if (queued === null) requestAnimationFrame(() => {
          const last = queued;
          queued = null;
          if (!panel.canvases || this.held !== null || !panel.picture.matches(':hover')) return;
          const [k = null] = panel.under(last);
          this.followed = true;
          this.focus(k === null ? null : [panel.place, k]);
          this.followed = false;
        });
        queued = event;
      });
      panel.picture.addEventListener('pointerleave', () => panel.canvases && this.focus(this.held));
      panel.picture.addEventListener('click', (event) => {
        if (!panel.canvases) return;
        const found = panel.under(event);
        // Again on the mask that is held: the one around it, and after the last, none.
        const at = this.held?.[0] === panel.place ? found.indexOf(this.held[1]) + 1 : 0;
        if (!found.length) this.show(panel.place);
        this.hold(at < found.length ? [panel.place, found[at]] : null);
      });
    }
  }
}

/** How many classes are drawn, and of how many masks. */
function classesShown({ legend, masks, visible }) {
  const seen = legend.filter((_, group) => visible[group + 1] > 0).length;
  const [many, noun] = classes(seen).split(' ');
  return [many, masks.length > legend.length ? `${noun}, ${plural(masks.length, 'mask')},` : noun];
}

/** Switch a category off or on, on the whole page; null switches all on. */
function switchCategory(category) {
  if (category === null) state.off.clear();
  else if (!state.off.delete(category)) state.off.add(category);
  for (const item of items) if (item.near) soon.add(item);
}
