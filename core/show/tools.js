// The tools above the images: which level, whose ground truth, what is drawn, how strongly.

const CAPTIONS = { threshold: 'θ', count: 'Regions', level: 'Level', depth: 'Tree' };
const DEPTHS = ['Entities', 'Parts', 'Subparts'];
const tools = document.getElementById('tools');
const levels = document.getElementById('levels');
const choices = []; // views, in the order of their buttons

function group(caption, control) {
  const said = caption ? [make('span', { cls: 'caption', text: caption, 'aria-hidden': 'true' })] : [];
  return make('span', { cls: 'group' }, ...said, control);
}

function buildLevels() {
  const say = {
    threshold: (v) => [short(v), `Regions standing at similarity threshold ${short(v)}`],
    count: (v) => [short(v), `Regions standing when ${short(v)} were left`],
    level: (v) => [short(v), `Masks of level ${short(v)}`],
    depth: (v) => [DEPTHS[v] ?? short(v + 1), v ? `Masks ${plural(v, 'step')} below a whole` : 'Masks without a parent'],
  };
  const option = (view, text, label) => [text, choices.push(view) - 1, label];
  const add = (caption, options) => {
    const chosen = choices.findIndex((view) => String(view) === String(state.view));
    levels.append(group(caption, segments('level', options, chosen)));
  };
  const plain = [option(null, 'All', 'All masks, smaller above larger')];
  if (page.truth) plain.push(option(['matched', 1], 'Matched', 'Masks that match the ground truth'));
  add('', plain);
  for (const [key, values] of page.levels) add(CAPTIONS[key], values.map((value) => option([key, value], ...say[key](value))));
  levels.hidden = choices.length < 2;
}

function buildJudges() {
  const judges = document.getElementById('judges');
  if (page.truth?.annotators.length > 1) {
    judges.append(group('Annotator', segments('annotator', page.truth.annotators.map((name, k) => [name, k, `Ground truth by annotator ${name}`]), state.annotator)));
  }
  if (page.truth && page.panels.length > 1) {
    judges.append(group('Marked by', segments('against', page.panels.map(({ title }, k) => [title, k, `Ground truth marked as ${title} finds it`]), state.against)));
  }
  judges.hidden = !judges.querySelector('input');
}

/** Take the next (or `at`) of the choices called `name`, as if it had been clicked. */
function choose(name, step, at = null) {
  const options = [...tools.querySelectorAll(`input[name="${name}"]`)];
  const next = options[at ?? options.findIndex((option) => option.checked) + step];
  if (!next || tools.hidden) return;
  next.checked = true;
  next.dispatchEvent(new Event('input', { bubbles: true }));
}

buildLevels();
buildJudges();
tools.hidden = page.masks === 0 && !page.truth;
document.documentElement.dataset.mode = state.mode;
tools.addEventListener('submit', (event) => event.preventDefault());
tools.addEventListener('input', ({ target }) => {
  if (target.name === 'level') {
    state.view = choices[Number(target.value)];
    target.parentElement.scrollIntoView({ block: 'nearest', inline: 'nearest' });
    for (const item of items) if (item.near) soon.add(item);
  } else if (target.name === 'annotator' || target.name === 'against') {
    state[target.name] = Number(target.value);
    for (const item of items) item.rejudge();
  } else if (target.name === 'mode') {
    document.documentElement.dataset.mode = state.mode = target.value;
  } else if (target.id === 'opacity') {
    document.documentElement.style.setProperty('--opacity', target.value / 100);
  }
});
levels.querySelector('input:checked')?.parentElement.scrollIntoView({ block: 'nearest', inline: 'center' });
// What a link or an arrow key brings to the top of the window must not lie under the tools.
new ResizeObserver(() => document.documentElement.style.setProperty('--tools', `${tools.offsetHeight}px`)).observe(tools);
