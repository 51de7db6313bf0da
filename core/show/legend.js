// The legend beside a picture: the categories of one image, to bring out by pointing at them and to switch off and on, on the whole page.

class Legend {
  /** @param {object} on what the legend tells: point(category or null), toggle(category), all(). */
  constructor(on) {
    this.on = on;
    this.list = make('ol', { cls: 'classes', 'aria-label': 'Classes' });
    this.all = make('button', { cls: 'all', type: 'button', hidden: '', text: 'Show all' });
    this.element = make('div', { cls: 'legend', hidden: '' }, this.list, this.all);
    this.drawn = null;
    this.listen();
  }

  /**
   * Show the categories of an image's panels: those of the panel `active`, whose figures are shown, larger first, then what only others
   * have. Rows are only made anew where they differ: the keyboard stays where it is.
   */
  fill(panels, active) {
    const shares = new Map();
    for (const panel of panels) {
      for (const [group, { category }] of (panel.legend ?? []).entries()) shares.set(category, Math.max(shares.get(category) ?? 0, panel.shareOf(group)));
    }
    this.element.hidden = !shares.size;
    const groups = new Map((active.legend ?? []).map(({ category }, group) => [category, group]));
    const rank = (category) => (groups.has(category) ? 1 + active.shareOf(groups.get(category)) : shares.get(category) / 2);
    const order = [...shares.keys()].sort((a, b) => rank(b) - rank(a) || a - b);
    if (String(order) !== this.drawn) {
      this.drawn = String(order);
      this.list.replaceChildren(...order.map((category, at) => this.row(category, at)));
    }
    for (const row of this.rows()) {
      const category = Number(row.dataset.c), group = groups.get(category);
      const off = state.off.has(category);
      row.classList.toggle('off', off);
      row.setAttribute('aria-pressed', !off);
      row.querySelector('.count').textContent = group === undefined || active.legend[group].masks < 2 ? '' : plural(active.legend[group].masks, 'mask');
      row.querySelector('.area').textContent = group === undefined ? '–' : percent(active.shareOf(group));
    }
    this.all.hidden = !state.off.size;
  }

  row(category, at) {
    const [name, rgb] = page.categories[category];
    const facts = [make('i', { cls: 'swatch' }), make('span', { cls: 'id', text: name }), make('span', { cls: 'count' }), make('span', { cls: 'area' })];
    const button = make('button', { cls: 'row', type: 'button', tabindex: at ? '-1' : '0', 'data-c': category, title: name }, ...facts);
    button.style.setProperty('--mask', `#${rgb}`);
    return make('li', {}, button);
  }

  rows() {
    return [...this.list.querySelectorAll('.row')];
  }

  listen() {
    const of = (event) => {
      const row = event.target.closest?.('.row');
      return row ? Number(row.dataset.c) : null;
    };
    const point = (event) => of(event) !== null && this.on.point(of(event));
    this.list.addEventListener('pointerover', (event) => event.pointerType !== 'touch' && point(event));
    this.list.addEventListener('pointerleave', () => this.on.point(null));
    this.list.addEventListener('focusin', (event) => event.target.matches(':focus-visible') && point(event));
    this.list.addEventListener('focusout', () => this.on.point(null));
    this.list.addEventListener('click', (event) => of(event) !== null && this.on.toggle(of(event)));
    this.list.addEventListener('keydown', (event) => this.key(event));
    this.all.addEventListener('click', () => this.on.all());
  }

  /** One stop for the tabulator; the arrow keys go from row to row. */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const rows = this.rows(), at = rows.indexOf(event.target.closest('.row'));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    if (!rows[to]) return;
    rows[at].tabIndex = -1;
    rows[to].tabIndex = 0;
    rows[to].focus();
  }
}
