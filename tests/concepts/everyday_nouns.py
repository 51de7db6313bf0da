"""Nouns whose plural is not just one more s, or looks as if it were not, with the plurals that captions have, the usual one first.

Written by hand, independently of the lists that ship. A row is a singular and its plurals.
"""

from __future__ import annotations

_ROWS = """
man: men
woman: women
child: children
foot: feet
tooth: teeth
goose: geese
mouse: mice
ox: oxen
louse: lice
die: dice
leaf: leaves
wolf: wolves
knife: knives
calf: calves
half: halves
elf: elves
shelf: shelves
loaf: loaves
thief: thieves
wife: wives
scarf: scarves, scarfs
hoof: hooves, hoofs
dwarf: dwarves, dwarfs
roof: roofs
cliff: cliffs
giraffe: giraffes
bus: buses, busses
gas: gases, gasses
lens: lenses
glass: glasses
dress: dresses
grass: grasses
box: boxes
fox: foxes
bench: benches
beach: beaches
brush: brushes
toothbrush: toothbrushes
dish: dishes
bush: bushes
church: churches
cross: crosses
mattress: mattresses
waitress: waitresses
octopus: octopuses, octopi, octopodes
cactus: cacti, cactuses
fungus: fungi, funguses
hippopotamus: hippopotamuses, hippopotami
walrus: walruses
sheep: sheep
deer: deer
fish: fish, fishes
moose: moose
aircraft: aircraft
salmon: salmon, salmons
shrimp: shrimp, shrimps
bison: bison
squid: squid, squids
pants: pants
scissors: scissors
jeans: jeans
shorts: shorts
sunglasses: sunglasses
binoculars: binoculars
pliers: pliers
tongs: tongs
goggles: goggles
headphones: headphones
person: people, persons
baby: babies
lady: ladies
puppy: puppies
berry: berries
fairy: fairies
butterfly: butterflies
boy: boys
monkey: monkeys
donkey: donkeys
turkey: turkeys
toy: toys
trolley: trolleys
sky: skies
potato: potatoes
tomato: tomatoes
mango: mangoes, mangos
piano: pianos
photo: photos
radio: radios
zoo: zoos
kangaroo: kangaroos
flamingo: flamingos, flamingoes
buffalo: buffaloes, buffalo, buffalos
volcano: volcanoes, volcanos
hero: heroes
torpedo: torpedoes, torpedos
kimono: kimonos
video: videos
quiz: quizzes
axis: axes
axe: axes
oasis: oases
crisis: crises
iris: irises, irides
larva: larvae, larvas
antenna: antennas, antennae
alga: algae, algas
nebula: nebulae, nebulas
vertebra: vertebrae, vertebras
medium: media, mediums
aquarium: aquariums, aquaria
stadium: stadiums, stadia
bacterium: bacteria
index: indexes, indices
appendix: appendices, appendixes
matrix: matrices, matrixes
plateau: plateaus, plateaux
gateau: gateaux, gateaus
chateau: chateaux, chateaus
criterion: criteria, criterions
phenomenon: phenomena, phenomenons
snowman: snowmen
fireman: firemen
policewoman: policewomen
fisherman: fishermen
human: humans
german: germans
shaman: shamans
walkman: walkmans, walkmen
grandchild: grandchildren
bookshelf: bookshelves
werewolf: werewolves
penknife: penknives
eyetooth: eyeteeth
dormouse: dormice
mongoose: mongooses
mother-in-law: mothers-in-law, mother-in-laws
passer-by: passers-by, passer-bys
passerby: passersby
runner-up: runners-up, runner-ups
merry-go-round: merry-go-rounds
t-shirt: t-shirts
tennis ball: tennis balls
tennis court: tennis courts
hot dog: hot dogs
fire hydrant: fire hydrants
polar bear: polar bears
teddy bear: teddy bears
toilet brush: toilet brushes
french fry: french fries
bass: bass, basses
cod: cod, cods
trout: trout, trouts
swine: swine
series: series
species: species
corps: corps
barracks: barracks
crossroads: crossroads
chassis: chassis
tennis: tennis
news: news
canvas: canvases
atlas: atlases
tray: trays
taxi: taxis, taxies
ski: skis
bikini: bikinis
spaghetti: spaghetti
kiwi: kiwis
safari: safaris
shoe: shoes
horse: horses
house: houses
nose: noses
vase: vases
tree: trees
bee: bees
tie: ties
pie: pies
cookie: cookies
movie: movies
zombie: zombies
bow: bows
eye: eyes
canoe: canoes
toe: toes
hoe: hoes
rose: roses
lettuce: lettuces
bridge: bridges
cave: caves
dove: doves
glove: gloves
wave: waves
stove: stoves
grave: graves
olive: olives
sleeve: sleeves
valve: valves
hive: hives
monarch: monarchs
stomach: stomachs
patriarch: patriarchs
loch: lochs
stool: stools
proof: proofs
chief: chiefs
handkerchief: handkerchiefs, handkerchieves
reef: reefs
beef: beefs, beeves
belief: beliefs
puff: puffs
staff: staffs, staves
wharf: wharves, wharfs
turf: turfs, turves
surf: surfs
waif: waifs
chef: chefs
safe: safes
sheaf: sheaves
stair: stairs
"""

PLURALS: dict[str, list[str]] = {noun: forms.split(", ") for noun, forms in (row.split(": ") for row in _ROWS.strip().splitlines())}
