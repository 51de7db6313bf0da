"""Nouns whose plural is not just one more s, or looks as if it were not, with the plurals that captions have, the usual one first.

Written by hand, independently of the lists that ship. A row is a singular and its plurals.
"""

from __future__ import annotations

_FIRST = """
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

_SECOND = """
platypus: platypuses
rhombus: rhombuses, rhombi
thesaurus: thesauruses, thesauri
cherry: cherries
pony: ponies
canary: canaries
city: cities
country: countries
party: parties
valley: valleys
chimney: chimneys
jersey: jerseys
jockey: jockeys
trolley bus: trolley buses
watch: watches
ostrich: ostriches
peach: peaches
sandwich: sandwiches
couch: couches
torch: torches
crutch: crutches
wrench: wrenches
leash: leashes
eyelash: eyelashes
lightbulb: lightbulbs
mailbox: mailboxes
lunchbox: lunchboxes
sphinx: sphinxes, sphinges
lynx: lynxes, lynx
ax: axes
mattress: mattresses
compass: compasses
cutlass: cutlasses
hourglass: hourglasses
eyeglass: eyeglasses
princess: princesses
tigress: tigresses
trellis: trellises
pelvis: pelvises, pelves
tennis racket: tennis rackets
ibis: ibises, ibis
penis: penises, penes
synopsis: synopses
hypothesis: hypotheses
ellipsis: ellipses
studio: studios
patio: patios
rodeo: rodeos
tuxedo: tuxedos, tuxedoes
tattoo: tattoos
igloo: igloos
bamboo: bamboos
cockatoo: cockatoos
banjo: banjos, banjoes
cello: cellos
avocado: avocados, avocadoes
burrito: burritos
taco: tacos
tornado: tornadoes, tornados
mosquito: mosquitoes, mosquitos
armadillo: armadillos
gecko: geckos, geckoes
rhino: rhinos
hippo: hippos
logo: logos
disco: discos
silo: silos
life: lives
midwife: midwives
housewife: housewives
cliff face: cliff faces
sherif: sherifs
kerchief: kerchiefs, kerchieves
loaf of bread: loaves of bread
slice of bread: slices of bread
bunch of grapes: bunches of grapes
pair of shoes: pairs of shoes
man-of-war: men-of-war
sister-in-law: sisters-in-law, sister-in-laws
hanger-on: hangers-on
woman's hat: woman's hats
businesswoman: businesswomen
policeman: policemen
cowman: cowmen
caveman: cavemen
merman: mermen
batsman: batsmen
stepchild: stepchildren
godchild: godchildren
forefoot: forefeet
crowfoot: crowfoots, crowfeet
bigfoot: bigfoots, bigfeet
sabertooth: sabertooths, saberteeth
titmouse: titmice
wildfowl: wildfowl, wildfowls
swordfish: swordfish, swordfishes
jellyfish: jellyfish, jellyfishes
catfish: catfish, catfishes
angelfish: angelfish, angelfishes
reindeer: reindeer, reindeers
caribou: caribou, caribous
antelope: antelopes, antelope
elk: elk, elks
cattle: cattle
tweezers: tweezers
trousers: trousers
leggings: leggings
tights: tights
boxers: boxers
clippers: clippers
pajamas: pajamas
suspenders: suspenders
earbuds: earbuds
chopstick: chopsticks
hovercraft: hovercraft, hovercrafts
spacecraft: spacecraft, spacecrafts
stadium seat: stadium seats
gymnasium: gymnasiums, gymnasia
museum: museums
podium: podiums, podia
chrysanthemum: chrysanthemums
bacterium culture: bacterium cultures
octopus tank: octopus tanks
crocus: crocuses, croci
lotus: lotuses
hibiscus: hibiscuses
virus: viruses
campus: campuses
circus: circuses
walrus pup: walrus pups
papaya: papayas
sauna: saunas
pizza: pizzas
sofa: sofas
umbrella: umbrellas
panda: pandas
zebra: zebras
tiara: tiaras
gorilla: gorillas
camera: cameras
formula: formulas, formulae
pupa: pupae, pupas
tomato plant: tomato plants
ski lift: ski lifts
bus stop: bus stops
bureau: bureaus, bureaux
tableau: tableaux, tableaus
fez: fezzes, fezes
waltz: waltzes
topaz: topazes
buzz: buzzes
bough: boughs
trough: troughs
moth: moths
booth: booths
mouth: mouths
path: paths
bath: baths
cloth: cloths
selfie: selfies
hoodie: hoodies
beanie: beanies
brownie: brownies
smoothie: smoothies
necktie: neckties
eyrie: eyries
cafe: cafes
shepherd: shepherds
oboe: oboes
tiptoe: tiptoes
horseshoe: horseshoes
throe: throes
lasso: lassos, lassoes
ghetto: ghettos, ghettoes
manatee: manatees
trainee: trainees
sea: seas
ray: rays
key: keys
essay: essays
guy: guys
buoy: buoys
soliloquy: soliloquies
yo-yo: yo-yos
go-kart: go-karts
x-ray: x-rays
jack-o-lantern: jack-o-lanterns
"""


def _table(rows: str) -> dict[str, list[str]]:
    return {noun: forms.split(", ") for noun, forms in (row.split(": ") for row in rows.strip().splitlines())}


PLURALS = _table(_FIRST)
"""Was in sight when the rules were written: they have all of it right."""
MORE_PLURALS = _table(_SECOND)
"""Written afterwards, to see how the rules do on nouns that they were not made for."""
