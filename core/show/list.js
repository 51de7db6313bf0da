// The list of masks beside the picture: rows in order of area, or, of a forest, a tree to fold and unfold.

const SHORT_LIST = 6; // rows a phone shows before it is asked for more
const DEEPEST = 8; // levels that are indented further than the one before

class MaskList {
  /** @param {object} on what the list tells: point(k or null), hold(k). */
  constructor(on) {
    this.on = on;
    this.element = make('ol', { cls: 'list' });
    this.more = make('button', { cls: 'more', type: 'button', hidden: '' });
    this.panel = null;
    this.held = null;
    this.listen();
  }

  /** Show the masks of `panel` at the view it shows; what was unfolded of it stays so. */
  fill(panel) {
    this.panel = panel;
    const wanted = String(state.view);
    if (panel.listedFor !== wanted) {
      panel.listedFor = wanted;
      Object.assign(panel, { rows: listed(panel.parents, panel.shown, state.view) });
    }
    // Of a map each class is one mask, which the legend lists.
    this.element.hidden = panel.legend !== null && panel.legend.every(({ masks }) => masks === 1);
    this.isTree = panel.isForest && panel.rows.parents.some((parent) => parent >= 0);
    this.element.classList.toggle('tree', this.isTree);
    this.element.classList.remove('open');
    this.draw();
  }

  draw() {
    const { panel } = this;
    const { masks } = panel;
    const shown = new Set(panel.shown);
    const rows = visibleRows(panel.rows.parents, panel.rows.open);
    const largest = Math.sqrt(Math.max(1, ...rows.map(({ k }) => masks[k].area)));
    const marked = panel.isTruth || panel.matched;
    const scored = !marked && masks.some((mask) => mask.score !== undefined);
    if (this.isTree) Object.entries({ role: 'tree', 'aria-label': 'Masks' }).forEach(([name, value]) => this.element.setAttribute(name, value));
    else ['role', 'aria-label'].forEach((name) => this.element.removeAttribute(name));
    this.element.classList.toggle('wide', marked || scored);
    this.element.replaceChildren(
      ...rows.map((row, at) => {
        const mask = masks[row.k];
        const button = make('button', { cls: shown.has(row.k) ? 'row' : 'row off', type: 'button', tabindex: at ? '-1' : '0', 'data-k': row.k });
        const name = make('span', { cls: 'id' });
        if (this.isTree) {
          const facts = { role: 'treeitem', 'aria-level': row.level + 1, 'aria-posinset': row.place, 'aria-setsize': row.size, 'aria-selected': row.k === this.held };
          if (row.children) facts['aria-expanded'] = panel.rows.open.has(row.k);
          for (const [key, value] of Object.entries(facts)) button.setAttribute(key, value);
          button.style.setProperty('--indent', Math.min(row.level, DEEPEST));
          name.append(make('i', { cls: row.children ? 'twist' : 'twist leaf' }));
        } else button.setAttribute('aria-pressed', row.k === this.held);
        name.append(make('span', { text: mask.category ?? `#${mask.id}` }));
        button.append(name, make('span', { cls: 'bar' }, make('i')), make('span', { cls: 'area', text: percent(mask.share) }));
        if (marked) button.append(this.mark(mask, row.k));
        else if (scored) button.append(make('span', { cls: 'score', text: mask.score === undefined ? '' : mask.score.toFixed(2), title: 'Score' }));
        button.style.setProperty('--mask', `#${mask.rgb}`);
        button.style.setProperty('--length', `${(100 * Math.sqrt(mask.area)) / largest}%`);
        return make('li', this.isTree ? { role: 'none' } : {}, button);
      }),
    );
    this.more.hidden = this.element.hidden || rows.length <= SHORT_LIST;
    this.more.textContent = this.element.classList.contains('open') ? 'Show fewer' : `Show all ${number.format(rows.length)}`;
  }

  /** Whether a mask is found, or what it finds: its IoU, "missed", or nothing. */
  mark(mask, k) {
    const iou = this.panel.isTruth ? mask.iou : this.panel.matched.get(k)?.[1];
    if (this.panel.isTruth && mask.missed) return make('span', { cls: 'score missed', text: 'missed' });
    if (this.panel.isTruth && mask.crowd) return make('span', { cls: 'score', text: 'crowd' });
    return make('span', { cls: 'score', text: iou == null ? '' : `IoU ${iou.toFixed(2)}` });
  }

  rowOf(k) {
    return this.element.querySelector(`[data-k="${k}"]`);
  }

  /** Bring out the row of mask `k` (null for none); `follow` scrolls to it where the list scrolls by itself. */
  point(k, follow) {
    for (const row of this.element.querySelectorAll('.row.on')) row.classList.remove('on');
    const row = k === null ? null : this.rowOf(k);
    row?.classList.add('on');
    // The page must not move under the pointer.
    if (row && follow && this.element.scrollHeight > this.element.clientHeight) this.element.scrollTop = row.offsetTop - this.element.clientHeight / 2;
  }

  /** Mark the row of the mask that is held, unfolding what is around it. */
  hold(k) {
    this.held = k;
    if (k !== null && !this.rowOf(k) && this.panel.rows.parents[k] !== -2) {
      for (const outer of above(this.panel.rows.parents.map((parent) => Math.max(-1, parent)), k)) this.panel.rows.open.add(outer);
      this.draw();
    }
    const attribute = this.isTree ? 'aria-selected' : 'aria-pressed';
    for (const row of this.element.querySelectorAll('.row')) row.setAttribute(attribute, Number(row.dataset.k) === k);
  }

  /** Fold or unfold the row of mask `k`, keeping the keyboard where it is. */
  fold(k, unfold) {
    const { open } = this.panel.rows;
    if (unfold) open.add(k);
    else open.delete(k);
    const focused = this.element.contains(document.activeElement);
    this.draw();
    if (focused) this.walkTo(this.rowOf(k));
    else this.on.point(null);
  }

  walkTo(row) {
    if (!row || !row.getClientRects().length) return;
    for (const other of this.element.querySelectorAll('.row[tabindex="0"]')) other.tabIndex = -1;
    row.tabIndex = 0;
    row.focus();
  }

  listen() {
    const of = (event) => {
      const row = event.target.closest?.('.row');
      return row ? Number(row.dataset.k) : null;
    };
    const point = (event) => of(event) !== null && this.on.point(of(event));
    this.element.addEventListener('pointerover', (event) => event.pointerType !== 'touch' && point(event));
    this.element.addEventListener('pointerleave', () => this.on.point(null));
    this.element.addEventListener('focusin', (event) => event.target.matches(':focus-visible') && point(event));
    this.element.addEventListener('focusout', () => this.on.point(null));
    this.element.addEventListener('click', (event) => {
      const k = of(event);
      if (k === null) return;
      const twist = event.target.closest('.twist:not(.leaf)');
      if (twist) this.fold(k, !this.panel.rows.open.has(k));
      else this.on.hold(this.held === k ? null : k);
    });
    this.element.addEventListener('keydown', (event) => this.key(event, of(event)));
    this.more.addEventListener('click', () => {
      const open = this.element.classList.toggle('open');
      this.more.textContent = open ? 'Show fewer' : `Show all ${number.format(this.element.children.length)}`;
    });
  }

  key(event, k) {
    if (k === null || event.ctrlKey || event.metaKey || event.altKey) return;
    const rows = [...this.element.querySelectorAll('.row')];
    const at = rows.indexOf(this.rowOf(k));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    const sideways = this.isTree && (event.key === 'ArrowRight' || event.key === 'ArrowLeft');
    if (to === undefined && !sideways) return;
    event.preventDefault();
    if (!sideways) {
      this.walkTo(rows[to]);
      return;
    }
    const expanded = rows[at].getAttribute('aria-expanded');
    const unfold = event.key === 'ArrowRight';
    if (expanded === String(!unfold)) this.fold(k, unfold);
    else if (unfold && expanded) this.walkTo(rows[at + 1]);
    else if (!unfold && this.panel.rows.parents[k] >= 0) this.walkTo(this.rowOf(this.panel.rows.parents[k]));
  }
}
