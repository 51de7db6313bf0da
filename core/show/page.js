// The page around the images: which are near enough to draw, the index, the tools and the keys.

const CAPTIONS = { threshold: 'θ', count: 'Regions', level: 'Level', depth: 'Tree' };
const DEPTHS = ['Entities', 'Parts', 'Subparts'];

const items = [...document.querySelectorAll('.item')].map((section) => new Item(section));
const itemOf = new Map(items.map((item) => [item.section, item]));
const itemOfPicture = new Map(items.map((item) => [item.picture, item]));

const nearness = new IntersectionObserver(
  (entries) => entries.forEach((entry) => (entry.isIntersecting ? itemOf.get(entry.target).enter() : itemOf.get(entry.target).leave())),
  { rootMargin: '60% 0px' },
);
const sizes = new ResizeObserver((entries) => {
  for (const entry of entries) {
    const item = itemOfPicture.get(entry.target);
    if (item.near) soon.add(item);
  }
});
// What is in sight at once, without waiting for the first frame.
for (const item of items) {
  if (item.section.getBoundingClientRect().top > innerHeight) break;
  item.near = true;
  item.render();
}
for (const item of items) {
  nearness.observe(item.section);
  sizes.observe(item.picture);
}

// Which image is being looked at, for the index and the arrow keys.
let current = 0;
const links = [];
function setCurrent(place) {
  links[current]?.removeAttribute('aria-current');
  current = place;
  const link = links[place];
  if (!link) return;
  link.setAttribute('aria-current', 'true');
  link.parentElement.scrollLeft = link.offsetLeft - link.parentElement.clientWidth / 2 + link.clientWidth / 2;
}
const reading = new IntersectionObserver(
  (entries) => entries.forEach((entry) => entry.isIntersecting && setCurrent(items.indexOf(itemOf.get(entry.target)))),
  { rootMargin: '-35% 0px -64% 0px' },
);

document.getElementById('summary').textContent = items.length ? `${plural(page.images, 'image')} · ${plural(page.masks, 'mask')}` : 'No images.';
if (items.length > 1) {
  const index = document.getElementById('index');
  for (const { section, image } of items) {
    const name = section.querySelector('.name').textContent;
    const shape = Math.min(2, Math.max(0.6, image.getAttribute('width') / image.getAttribute('height')));
    const thumb = make('img', { src: section.dataset.thumb, alt: '', decoding: 'async' });
    const link = make('a', { href: `#${section.id}`, title: name, 'aria-label': name }, thumb);
    link.style.setProperty('--shape', shape);
    section.removeAttribute('data-thumb');
    links.push(link);
    index.append(link);
  }
  index.hidden = false;
  for (const item of items) reading.observe(item.section);
  setCurrent(0);
}

// The tools: which level, what is drawn, how strongly.
const tools = document.getElementById('tools');
const levels = document.getElementById('levels');
const choices = [null];
function buildLevels() {
  const choice = (text, view, label) => {
    const at = view ? choices.push(view) - 1 : 0;
    const input = make('input', { type: 'radio', name: 'level', value: at, 'aria-label': label });
    input.checked = String(view) === String(state.view);
    return make('label', { title: label }, input, make('span', { text }));
  };
  const group = (caption, ...options) => {
    const segments = make('span', { cls: 'segments' }, ...options);
    levels.append(make('span', { cls: 'group' }, ...(caption ? [make('span', { cls: 'caption', text: caption, 'aria-hidden': 'true' })] : []), segments));
  };
  group('', choice('All', null, 'All masks, smaller above larger'));
  for (const [key, values] of page.levels) {
    const say = {
      threshold: (v) => [short(v), `Regions standing at similarity threshold ${short(v)}`],
      count: (v) => [short(v), `Regions standing when ${short(v)} were left`],
      level: (v) => [short(v), `Masks of level ${short(v)}`],
      depth: (v) => [DEPTHS[v] ?? short(v + 1), v ? `Masks ${plural(v, 'step')} below a whole` : 'Masks without a parent'],
    }[key];
    group(CAPTIONS[key], ...values.map((value) => choice(say(value)[0], [key, value], say(value)[1])));
  }
  levels.hidden = choices.length < 2;
}
buildLevels();
tools.hidden = page.masks === 0;
document.documentElement.dataset.mode = state.mode;
tools.addEventListener('submit', (event) => event.preventDefault());
tools.addEventListener('input', ({ target }) => {
  if (target.name === 'level') {
    state.view = choices[Number(target.value)];
    target.parentElement.scrollIntoView({ block: 'nearest', inline: 'nearest' });
    for (const item of items) if (item.near) soon.add(item);
  } else if (target.name === 'mode') {
    document.documentElement.dataset.mode = state.mode = target.value;
  } else if (target.id === 'opacity') {
    document.documentElement.style.setProperty('--opacity', target.value / 100);
  }
});
levels.querySelector('input:checked')?.parentElement.scrollIntoView({ block: 'nearest', inline: 'center' });

function choose(name, step, at = null) {
  const options = [...tools.querySelectorAll(`input[name="${name}"]`)];
  const next = options[at ?? options.findIndex((option) => option.checked) + step];
  if (!next || tools.hidden) return;
  next.checked = true;
  next.dispatchEvent(new Event('input', { bubbles: true }));
}

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches?.('input');
  if (event.key === 'Escape') for (const item of items) item.canvases && item.hold(null);
  else if (event.key === '[') choose('level', -1);
  else if (event.key === ']') choose('level', 1);
  else if (/^[1-4]$/.test(event.key)) choose('mode', 0, Number(event.key) - 1);
  else if ((event.key === 'ArrowRight' || event.key === 'ArrowLeft') && !typing && items.length > 1) {
    event.preventDefault();
    const next = Math.min(items.length - 1, Math.max(0, current + (event.key === 'ArrowRight' ? 1 : -1)));
    items[next].section.scrollIntoView({ block: 'start' });
    setCurrent(next);
  }
});
