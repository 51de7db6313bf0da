// Which masks a view shows, how they stand in their forest, and which belongs to which of the ground truth. Nothing here
// touches the document. Masks are named by their place, larger first.

const NESTED = new Set(['threshold', 'count']);
const FEW = 24; // a forest of no more masks is listed unfolded

/** Each mask's parent, -1 at a root. One that is its own ancestor stands as a root: a cycle must not hang the page. */
function parentsOf(masks) {
  const given = masks.map((mask) => mask.parent ?? -1);
  return given.map((parent, k) => {
    let steps = 0;
    for (let up = parent; up >= 0 && steps <= masks.length; up = given[up], steps++) if (up === k) return -1;
    return parent;
  });
}

/** The masks right below each. */
function childrenOf(parents) {
  const children = parents.map(() => []);
  parents.forEach((parent, k) => parent >= 0 && children[parent].push(k));
  return children;
}

/** Everything below mask `k`, larger first. */
function below(children, k) {
  const found = [...children[k]];
  for (let at = 0; at < found.length; at++) found.push(...children[found[at]]);
  return found.sort((a, b) => a - b);
}

/** The masks around one, nearest first. */
function above(parents, k) {
  const found = [];
  for (let up = parents[k]; up >= 0; up = parents[up]) found.push(up);
  return found;
}

/**
 * The masks that `view` (null for all, or [key, value]) shows of one image in one file.
 * @param {Array} views [key, value, places] of this image. @param {Set} keys of which the file has views in any image.
 * @param {Map} matched masks that are paired with the ground truth; null where there is none to be paired with.
 */
function membersAt(count, views, view, keys, matched) {
  const all = Array.from({ length: count }, (_, k) => k);
  if (!view) return all;
  const [key, value] = view;
  if (key === 'matched') return matched ? all.filter((k) => matched.has(k)) : all;
  const own = views.filter((one) => one[0] === key);
  if (!own.length) {
    // One level only. In a forest that is the wholes; elsewhere everything stands at every level.
    return key === 'depth' && keys.has(key) && value !== 0 ? [] : all;
  }
  if (!NESTED.has(key)) return own.find((one) => one[1] === value)?.[2] ?? [];
  // A level at which nothing changed in this image looks like the next finer one.
  const reached = own.filter((one) => one[1] >= value);
  return reached.length ? reached.reduce((a, b) => (a[1] < b[1] ? a : b))[2] : [];
}

/**
 * What the list beside a picture holds: `parents` within it (-2 for masks that are not listed), and which are unfolded at
 * first. All masks and the levels of the forest list the whole forest, unfolded as far as the level; other views list what
 * they show, each below the nearest mask around it that they show too.
 */
function listed(parents, members, view) {
  const whole = !view || view[0] === 'depth';
  const shown = new Set(members);
  const within = parents.map((parent, k) => {
    if (whole) return parent;
    if (!shown.has(k)) return -2;
    let up = parent;
    while (up >= 0 && !shown.has(up)) up = parents[up];
    return up;
  });
  const depth = (k) => above(parents, k).length;
  const unfolded = (k) => (!whole ? true : view ? depth(k) < view[1] : parents.length <= FEW);
  return { parents: within, open: new Set(parents.map((_, k) => k).filter(unfolded)) };
}

/** Rows of the list from top to bottom: { k, level from 0, children, place and size among its siblings (from 1) }. */
function visibleRows(parents, open) {
  const children = childrenOf(parents);
  const rows = [];
  const roots = parents.map((_, k) => k).filter((k) => parents[k] === -1);
  const stack = [];
  const push = (siblings, level) => {
    for (let at = siblings.length - 1; at >= 0; at--) stack.push({ k: siblings[at], level, children: children[siblings[at]].length, place: at + 1, size: siblings.length });
  };
  push(roots, 0);
  while (stack.length) {
    const row = stack.pop();
    rows.push(row);
    if (open.has(row.k)) push(children[row.k], row.level + 1);
  }
  return rows;
}

/** One file's rows [ground-truth mask, mask, IoU, 1 if paired else 0], looked up from either side. */
function pairing(rows) {
  const byTruth = new Map(), byMask = new Map(), near = new Map();
  for (const [g, k, iou, paired] of rows) {
    if (!paired) near.set(g, [k, iou]);
    else {
      byTruth.set(g, [k, iou]);
      byMask.set(k, [g, iou]);
    }
  }
  return { byTruth, byMask, near };
}

/**
 * What to bring out in the other panels with mask `k` of panel `from`: rows { panel, k, iou, paired }. The ground truth is
 * the panel after the files'.
 * @param {Array} pairings one for each file.
 */
function partners(pairings, from, k) {
  const truth = pairings.length;
  const g = from === truth ? k : pairings[from]?.byMask.get(k)?.[0];
  if (g === undefined) return [];
  const found = [];
  pairings.forEach(({ byTruth, near }, panel) => {
    const pair = byTruth.get(g) ?? (from === truth ? near.get(g) : undefined);
    if (panel !== from && pair) found.push({ panel, k: pair[0], iou: pair[1], paired: byTruth.has(g) });
  });
  if (from !== truth) found.push({ panel: truth, k: g, iou: pairings[from].byMask.get(k)[1], paired: true });
  return found;
}
