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
  set({ masks, views }, width, height) {
    Object.assign(this, { masks, views, width, height, listedFor: null, rendered: null });
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
      mask.rgb = mask.crowd ? CROWD : mask.missed ? MISSED : predictions[k].rgb;
    });
    this.rendered = null;
  }

  /** Let go of the canvases. */
  clear() {
    for (const layer of this.picture.querySelectorAll('canvas, .dim, .tag')) layer.remove();
    this.picture.classList.remove('focusing');
    this.canvases = this.rendered = null;
  }

  /** Draw the masks of the chosen view, if that is not what is drawn; returns whether it drew. */
  render() {
    if (!this.masks) return false;
    const box = this.picture.getBoundingClientRect();
    if (!box.width) return false;
    const dense = Math.min(2, LONGEST_CANVAS / Math.max(box.width, box.height));
    const width = Math.max(1, Math.round(box.width * dense)), height = Math.max(1, Math.round(box.height * dense));
    const wanted = `${width} ${height} ${state.view}`;
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
    const plane = labelPlane(this.masks, this.shown, this.frame);
    const words = new Uint32Array(this.masks.length + 1);
    const hatched = this.isTruth ? new Uint8Array(this.masks.length + 1) : null;
    for (const k of this.shown) {
      words[k + 1] = word(parseInt(this.masks[k].rgb, 16));
      if (hatched && this.masks[k].missed) hatched[k + 1] = 1;
    }
    const { fill, lines } = this.canvases;
    // How many canvas pixels each mask is the topmost of; entry 0 is what no mask covers.
    this.visible = paintView(fill.getContext('2d'), lines.getContext('2d'), plane, this.frame, words, this.thick, hatched);
    return true;
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

  /** Masks of the view under a pointer, smallest first. */
  under(event) {
    const box = this.picture.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * this.width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * this.height);
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return [];
    return this.shown.filter((k) => holds(this.masks[k].ends, x * this.height + y)).reverse();
  }
}
