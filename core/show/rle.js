// Masks as run boundaries: where each run of COCO's run-length text ends, in column-major pixels. Odd runs are the mask.

/** @param {string} text COCO's compressed counts. @returns {Float64Array} ends of the runs. */
function runEnds(text) {
  const runs = [];
  for (let at = 0; at < text.length; ) {
    let value = 0, factor = 1, code;
    do {
      code = text.charCodeAt(at++) - 48;
      value += (code & 31) * factor;
      factor *= 32;
    } while (code & 32 && at < text.length);
    if (code & 16) value -= factor;
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  const ends = new Float64Array(runs.length);
  let end = 0;
  for (let k = 0; k < runs.length; k++) ends[k] = end += runs[k];
  return ends;
}

/** Whether column-major pixel `at` is in the mask. */
function holds(ends, at) {
  let low = 0, high = ends.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[middle] > at) high = middle;
    else low = middle + 1;
  }
  return low < ends.length && (low & 1) === 1;
}

/**
 * Where native rows or columns begin on a canvas, so that each canvas pixel takes the native pixel under its centre.
 * @returns {Int32Array} native + 1 positions: native k covers [result[k], result[k + 1]).
 */
function edges(native, shown) {
  const result = new Int32Array(native + 1);
  for (let k = 0; k <= native; k++) result[k] = Math.min(shown, Math.max(0, Math.ceil((k * shown) / native - 0.5)));
  return result;
}

/** Write `value` into `plane` (column-major, columns × rows of the canvas) wherever the mask is. */
function fillMask(ends, height, columns, rows, canvasHeight, plane, value) {
  for (let k = 1; k < ends.length; k += 2) {
    let at = ends[k - 1];
    const end = ends[k];
    while (at < end) {
      const column = Math.floor(at / height);
      const top = at - column * height;
      const bottom = Math.min(height, end - column * height);
      const from = rows[top], to = rows[bottom];
      for (let x = columns[column]; x < columns[column + 1]; x++) plane.fill(value, x * canvasHeight + from, x * canvasHeight + to);
      at = (column + 1) * height;
    }
  }
}
