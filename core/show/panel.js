// One picture with the masks that one file has of it: its canvases, and what is brought out on them.

const LONGEST_CANVAS = 1440; // pixels; a canvas finer than the screen makes smooth lines
const MISSED = 'e0343a'; // a mask of the ground truth that no prediction matches
const CROWD = '8f8e89'; // one that is not to be found

const scratch = document.createElement('canvas');

class Panel {
  /** @param {number} place among the item's panels. @param {HTMLElement} figure its element. */
  constructor(place, figure) {
    this.place = place;
    this.isTruth = place === TRUTH;
    this.title = this.isTruth ? page.truth.title : page.panels[place].title;
    this.keys = new Set(this.isTruth ? page.truth.keys : page.panels[place].keys);
    this.picture = figure.querySelector('.picture');
    this.said = figure.querySelector('.said');
    this.image = figure.querySelector('img');
    this.masks = null; // null where the file lacks the image
    this.canvases = null;
    this.matched = null;
  }

  /** Take the masks of one image (or of another annotator). */
  set({ masks, views, legend = null, order = null, right }, width, height) {
    Object.assign(this, { masks, views, order, width, height, listedFor: null, rendered: null });
    // Of a map of categories: a row for each, which its masks' `group` counts; null where every mask has its own colour.
    this.legend = legend?.map(([category, pixels, count]) => ({ category, pixels, masks: count })) ?? null;
    if (right !== undefined) this.found = rightOf(right);
    for (const mask of masks) {
      mask.ends ??= runEnds(mask.rle);
      mask.share = mask.area / (width * height);
      mask.name = mask.category ?? `Mask ${mask.id}`;
    }
    this.parents = parentsOf(masks);
    this.children = childrenOf(this.parents);
    this.isForest = this.parents.some((parent) => parent >= 0);
  }

  /** Colour the ground truth's masks as the predictions that found them. */
  mark(pairing, predictions) {
    this.masks.forEach((mask, g) => {
      const [k, iou] = pairing.byTruth.get(g) ?? [null, null];
      mask.iou = iou;
      mask.missed = !mask.crowd && k === null;
      if (!this.legend) mask.rgb = mask.crowd ? CROWD : mask.missed ? MISSED : predictions[k].rgb;
    });
    this.rendered = null;
  }

  /** Let go of the canvases. */
  clear() {
    for (const layer of this.picture.querySelectorAll('canvas, .dim, .tag')) layer.remove();
    this.picture.classList.remove('focusing');
    this.canvases = this.rendered = this.plane = null;
  }

  /** Draw the masks of the chosen view, if that is not what is drawn; returns whether it drew. */
  render() {
    if (!this.masks) return false;
    const box = this.picture.getBoundingClientRect();
    if (!box.width) return false;
    const dense = Math.min(2, LONGEST_CANVAS / Math.max(box.width, box.height));
    const width = Math.max(1, Math.round(box.width * dense)), height = Math.max(1, Math.round(box.height * dense));
    const wanted = `${width} ${height} ${state.view} ${this.legend ? [...state.off] : ''}`;
    if (this.rendered === wanted) return false;
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
    this.shown = membersAt(this.masks.length, this.views, state.view, this.keys, this.matched);
    const { fill, lines } = this.canvases;
    const [plane, words, hatched] = this.legend ? this.drawCategories() : this.drawMasks();
    // How many canvas pixels each label is the topmost of; entry 0 is what none covers.
    this.visible = paintView(fill.getContext('2d'), lines.getContext('2d'), plane, this.frame, words, this.thick, hatched);
    return true;
  }

  /** Every mask a label of its own, larger ones below. */
  drawMasks() {
    const labels = this.masks.map((_, k) => k + 1);
    this.stack = this.shown;
    this.plane = null;
    const words = new Uint32Array(this.masks.length + 1);
    const hatched = this.isTruth ? new Uint8Array(this.masks.length + 1) : null;
    for (const k of this.shown) {
      words[k + 1] = word(parseInt(this.masks[k].rgb, 16));
      if (hatched && this.masks[k].missed) hatched[k + 1] = 1;
    }
    return [labelPlane(this.masks, this.stack, this.frame, labels), words, hatched];
  }

  /** Every category a label; one that is switched off bares the picture, and what lies below it stays hidden. */
  drawCategories() {
    const shown = new Set(this.shown);
    this.stack = this.order.filter((k) => shown.has(k));
    this.plane = labelPlane(this.masks, this.stack, this.frame, this.masks.map((mask) => (this.isOff(mask) ? 0 : mask.group + 1)));
    const words = Uint32Array.from([0, ...this.legend.map(({ category }) => this.wordOf(category))]);
    return [this.plane, words, null];
  }

  isOff(mask) {
    return this.legend !== null && state.off.has(this.legend[mask.group].category);
  }

  wordOf(category) {
    const [, rgb, faint] = page.categories[category];
    const solid = word(parseInt(rgb, 16));
    return faint ? (solid & FAINT) >>> 0 : solid;
  }

  /** The share of the picture that a row of the legend has: of all masks as it is, of a level as it is drawn. */
  shareOf(group) {
    if (!state.view || !this.visible) return this.legend[group].pixels / (this.width * this.height);
    return this.visible[group + 1] / (this.frame.width * this.frame.height);
  }

  /** Bring out a category (null for none): all that is seen of it. */
  focusCategory(category) {
    this.focus(null);
    const group = this.legend?.findIndex((row) => row.category === category) ?? -1;
    if (!this.canvases || !this.plane || group < 0 || state.off.has(category)) return;
    const [name, rgb] = page.categories[category];
    this.picture.classList.add('focusing', 'tagged');
    this.tag.textContent = `${name} · ${percent(this.shareOf(group))}`;
    paintLabel(this.canvases.focus.getContext('2d'), scratch, this.image, this.plane, group + 1, rgb, this.frame, this.thick);
  }

  /**
   * Bring out mask `k` with what is below and around it, or none (null). `faintly` only outlines it. `said` stands in the
   * picture's corner.
   */
  focus(k, said = '', faintly = false) {
    if (!this.canvases) return;
    const context = this.canvases.focus.getContext('2d');
    context.clearRect(0, 0, this.frame.width, this.frame.height);
    this.picture.classList.toggle('focusing', k !== null && !faintly);
    this.picture.classList.toggle('tagged', k !== null);
    if (k === null) return;
    this.tag.textContent = said;
    const mask = this.masks[k];
    if (faintly) {
      paintOuter(context, scratch, mask, this.frame, 2, 1);
      return;
    }
    for (const outer of above(this.parents, k)) paintOuter(context, scratch, this.masks[outer], this.frame, this.thick, 0.6);
    paintFocus(context, scratch, this.image, mask, this.frame, this.thick);
    paintParts(context, scratch, this.masks, below(this.children, k), this.frame);
  }

  /** Masks of the view under a pointer, topmost first. */
  under(event) {
    const box = this.picture.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * this.width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * this.height);
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return [];
    return this.stack.filter((k) => !this.isOff(this.masks[k]) && holds(this.masks[k].ends, x * this.height + y)).reverse();
  }
}
