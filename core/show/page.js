// The page around the images: which are near enough to draw, the index, the keys.

const items = [...document.querySelectorAll('.item')].map((section) => new Item(section));
const itemOf = new Map(items.map((item) => [item.section, item]));
const itemOfPicture = new Map(items.flatMap((item) => item.pictures.map((picture) => [picture, item])));

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
  for (const picture of item.pictures) sizes.observe(picture);
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

const facts = [plural(page.images, 'image'), plural(page.masks, 'mask')];
if (page.truth) {
  const whose = page.truth.annotators.length ? ", of each image's first annotator" : '';
  const hits = page.panels.map(({ title }, k) => (page.panels.length > 1 ? `${title}: ` : '') + foundOf(page.truth.found[k], page.truth.total));
  facts.push(hits.join(' · ') + whose);
}
if (page.right) {
  const told = page.panels.map(({ title }, k) => [title, page.right[k]]).filter(([, share]) => share !== null);
  facts.push(told.map(([title, share]) => (told.length > 1 ? `${title}: ` : '') + rightOf(share)).join(' · '));
}
document.getElementById('summary').textContent = items.length ? facts.join(' · ') : 'No images.';
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

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const typing = event.target.matches?.('input');
  if (event.key === 'Escape') for (const item of items) item.held && item.hold(null);
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
