// From masks to pixels of a canvas. Planes are column-major like the masks, canvases row-major; what goes from one to the
// other goes in tiles, which stay in the processor's cache.

const TILE = 64;
const WHITE = 0xffffffff; // as the little-endian words of an ImageData: alpha, blue, green, red
const SHADE = 0x73000000; // beside a line: a white one on a white wall would be lost
const STRIPE = 6; // canvas pixels to a stripe of a hatched mask, for each pixel of a line
const PART_LINE = 0x80ffffff; // half a white line
const FAINT = 0x3dffffff; // keeps a quarter of a colour's opacity: between the stripes, and of what is below a mask
const word = (rgb) => (0xff000000 | ((rgb & 255) << 16) | (rgb & 0xff00) | (rgb >> 16)) >>> 0;

/** A pixel grid for a picture of native size, `width` × `height` canvas pixels. */
function makeFrame(nativeWidth, nativeHeight, width, height) {
  return { nativeWidth, nativeHeight, width, height, columns: edges(nativeWidth, width), rows: edges(nativeHeight, height) };
}

/** The label of the topmost mask of each canvas pixel: `members` from the lowest to the topmost; 0 where there is none. */
function labelPlane(masks, members, frame, labels) {
  const plane = new Uint32Array(frame.width * frame.height);
  for (const k of members) fillMask(masks[k].ends, frame.nativeHeight, frame.columns, frame.rows, frame.height, plane, labels[k]);
  return plane;
}

/**
 * Each label in its colour on one canvas, lines where two labels meet, `thick` (1 or 2) pixels wide, on another.
 * @param {Uint32Array} words one colour per label, 0 for none. @param {?Uint8Array} hatched 1 for labels in stripes with lines
 * of their colour. @returns {Float64Array} pixels of each label.
 */
function paintView(fill, lines, plane, frame, words, thick, hatched = null) {
  const { width, height } = frame;
  const fillImage = new ImageData(width, height), lineImage = new ImageData(width, height);
  const fills = new Uint32Array(fillImage.data.buffer), strokes = new Uint32Array(lineImage.data.buffer);
  const counts = new Float64Array(words.length), period = STRIPE * thick;
  for (let left = 0; left < width; left += TILE) {
    const right = Math.min(width, left + TILE);
    for (let top = 0; top < height; top += TILE) {
      const bottom = Math.min(height, top + TILE);
      for (let x = left; x < right; x++) {
        for (let y = top, at = x * height + top, to = top * width + x; y < bottom; y++, at++, to += width) {
          const label = plane[at];
          counts[label]++;
          fills[to] = words[label];
          if (hatched && hatched[label] && (x + y) % (2 * period) >= period) fills[to] = (words[label] & FAINT) >>> 0;
          const beside = x + 1 < width && label !== plane[at + height];
          const below = y + 1 < height && label !== plane[at + 1];
          if (!beside && !below) continue;
          let ink = WHITE;
          if (hatched) {
            if (hatched[label]) ink = words[label];
            else if (beside && hatched[plane[at + height]]) ink = words[plane[at + height]];
            else if (below && hatched[plane[at + 1]]) ink = words[plane[at + 1]];
          }
          strokes[to] = ink;
          if (beside) {
            if (thick > 1) strokes[to + 1] = ink;
            if (x > 0) strokes[to - 1] ||= SHADE;
            if (x + thick < width) strokes[to + thick] ||= SHADE;
          }
          if (below) {
            if (thick > 1) strokes[to + width] = ink;
            if (y > 0) strokes[to - width] ||= SHADE;
            if (y + thick < height) strokes[to + thick * width] ||= SHADE;
          }
        }
      }
    }
  }
  fill.putImageData(fillImage, 0, 0);
  lines.putImageData(lineImage, 0, 0);
  return counts;
}

/** Canvas pixels around a mask with `margin`, within the frame: left, top, right, bottom (exclusive), or null if it has none. */
function boundsOf(mask, frame, margin) {
  const { ends } = mask, height = frame.nativeHeight;
  if (ends.length < 2) return null;
  const first = Math.floor(ends[0] / height), last = Math.floor((ends[ends.length - (ends.length % 2 ? 2 : 1)] - 1) / height);
  let top = height, bottom = 0;
  for (let k = 1; k < ends.length; k += 2) {
    const from = ends[k - 1] % height, length = ends[k] - ends[k - 1];
    top = Math.min(top, from + length > height ? 0 : from);
    bottom = Math.max(bottom, Math.min(height, from + length));
  }
  return {
    left: Math.max(0, frame.columns[first] - margin),
    top: Math.max(0, frame.rows[top] - margin),
    right: Math.min(frame.width, frame.columns[last + 1] + margin),
    bottom: Math.min(frame.height, frame.rows[bottom] + margin),
  };
}

/** Bring one mask out: the picture itself inside it, a line in its colour with a white core along its border. */
function paintFocus(context, scratch, picture, mask, frame, thick) {
  const box = boundsOf(mask, frame, 2 * thick + 1);
  if (!box || box.right <= box.left || box.bottom <= box.top) return;
  paintCut(context, scratch, picture, cutOut(mask, box, frame), box, mask.rgb, frame, thick);
}

/** Bring out what is labelled `label` in a plane of the whole frame. */
function paintLabel(context, scratch, picture, plane, label, rgb, frame, thick) {
  const box = { left: 0, top: 0, right: frame.width, bottom: frame.height };
  const inside = Uint8Array.from(plane, (value) => (value === label ? 1 : 0));
  paintCut(context, scratch, picture, inside, box, rgb, frame, thick);
}

function paintCut(context, scratch, picture, inside, box, rgb, frame, thick) {
  const width = box.right - box.left, height = box.bottom - box.top;
  const maskImage = new ImageData(width, height), lineImage = new ImageData(width, height);
  const solid = new Uint32Array(maskImage.data.buffer), strokes = new Uint32Array(lineImage.data.buffer);
  const halo = word(parseInt(rgb, 16));
  for (let x = 0; x < width; x++) {
    for (let y = 0, at = x * height; y < height; y++, at++) {
      const to = y * width + x;
      if (inside[at]) solid[to] = WHITE;
      if ((x + 1 < width && inside[at] !== inside[at + height]) || (y + 1 < height && inside[at] !== inside[at + 1])) {
        stamp(strokes, width, height, x, y, thick, halo);
      }
    }
  }
  strokeCore(strokes, inside, width, height, thick);
  Object.assign(scratch, { width, height });
  const pen = scratch.getContext('2d');
  pen.putImageData(maskImage, 0, 0);
  pen.globalCompositeOperation = 'source-in';
  pen.drawImage(picture, -box.left, -box.top, frame.width, frame.height);
  context.drawImage(scratch, box.left, box.top);
  pen.globalCompositeOperation = 'source-over';
  pen.putImageData(lineImage, 0, 0);
  context.drawImage(scratch, box.left, box.top);
}

/** A line along the border of a mask that is around the one that is brought out, or that comes near it. */
function paintOuter(context, scratch, mask, frame, thick, opacity) {
  const box = boundsOf(mask, frame, thick);
  if (!box || box.right <= box.left || box.bottom <= box.top) return;
  const width = box.right - box.left, height = box.bottom - box.top;
  const image = new ImageData(width, height);
  strokeCore(new Uint32Array(image.data.buffer), cutOut(mask, box, frame), width, height, thick);
  Object.assign(scratch, { width, height });
  scratch.getContext('2d').putImageData(image, 0, 0);
  context.globalAlpha = opacity;
  context.drawImage(scratch, box.left, box.top);
  context.globalAlpha = 1;
}

/** The masks below the one that is brought out, faintly in their colours, smaller above larger. */
function paintParts(context, scratch, masks, parts, frame) {
  const boxes = parts.map((k) => boundsOf(masks[k], frame, 1)).filter(Boolean);
  if (!boxes.length) return;
  const box = boxes.reduce((a, b) => ({ left: Math.min(a.left, b.left), top: Math.min(a.top, b.top), right: Math.max(a.right, b.right), bottom: Math.max(a.bottom, b.bottom) }));
  const width = box.right - box.left, height = box.bottom - box.top;
  if (width <= 0 || height <= 0) return;
  const inside = clipped(box, frame);
  const plane = new Uint32Array(width * height);
  const words = new Uint32Array(masks.length + 1);
  for (const k of parts) {
    fillMask(masks[k].ends, frame.nativeHeight, inside.columns, inside.rows, height, plane, k + 1);
    words[k + 1] = (word(parseInt(masks[k].rgb, 16)) & FAINT) >>> 0;
  }
  const image = new ImageData(width, height), pixels = new Uint32Array(image.data.buffer);
  for (let x = 0; x < width; x++) {
    for (let y = 0, at = x * height, to = x; y < height; y++, at++, to += width) {
      const label = plane[at];
      const edge = (x + 1 < width && label !== plane[at + height]) || (y + 1 < height && label !== plane[at + 1]);
      pixels[to] = edge ? PART_LINE : words[label];
    }
  }
  Object.assign(scratch, { width, height });
  scratch.getContext('2d').putImageData(image, 0, 0);
  context.drawImage(scratch, box.left, box.top);
}

/** A frame's edges within a box of it, for planes of the box's size. */
function clipped(box, frame) {
  return {
    columns: frame.columns.map((x) => Math.min(box.right, Math.max(box.left, x)) - box.left),
    rows: frame.rows.map((y) => Math.min(box.bottom, Math.max(box.top, y)) - box.top),
  };
}

/** The part of a mask's plane in a box that holds all of it, column-major, 0 and 1. */
function cutOut(mask, box, frame) {
  const height = box.bottom - box.top;
  const plane = new Uint8Array((box.right - box.left) * height);
  const { columns, rows } = clipped(box, frame);
  fillMask(mask.ends, frame.nativeHeight, columns, rows, height, plane, 1);
  return plane;
}

function strokeCore(strokes, inside, width, height, thick) {
  for (let x = 0; x < width; x++) {
    for (let y = 0, at = x * height; y < height; y++, at++) {
      const beside = x + 1 < width && inside[at] !== inside[at + height];
      const below = y + 1 < height && inside[at] !== inside[at + 1];
      if (!beside && !below) continue;
      const to = y * width + x;
      strokes[to] = WHITE;
      if (thick > 1 && beside) strokes[to + 1] = WHITE;
      if (thick > 1 && below) strokes[to + width] = WHITE;
    }
  }
}

/** A square of `colour` that reaches `thick` pixels beyond a line of that width at (x, y). */
function stamp(pixels, width, height, x, y, thick, colour) {
  const right = Math.min(width - 1, x + 2 * thick - 1), bottom = Math.min(height - 1, y + 2 * thick - 1);
  for (let v = Math.max(0, y - thick); v <= bottom; v++) pixels.fill(colour, v * width + Math.max(0, x - thick), v * width + right + 1);
}
