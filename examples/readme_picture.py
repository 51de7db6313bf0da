"""Make docs/coffee.jpg, the README's picture, from what `make demo` wrote: the photograph, its entities, and parts of their parts."""

import numpy as np
from PIL import Image

from ovskit.core.formats.photographs.decoding import decode_image
from ovskit.core.formats.streams.masks import open_masks
from ovskit.core.show.overlay import overlay
from ovskit.core.show.views import view_of

with open("demo/forest.json", "rb") as stream, open("demo/images/coffee.png", "rb") as file:
    photograph = decode_image(file.read(), "coffee.png")
    masks = next(found for found in open_masks(stream, "demo/forest.json")[1] if found.image.file_name == "coffee.png")
panels = [photograph, *(overlay(photograph, view_of(masks, "depth", depth)) for depth in (0, 2))]
gap = np.full((photograph.shape[0], 8, 3), 255, np.uint8)
strip = Image.fromarray(np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1))
strip.resize((1320, round(1320 * strip.height / strip.width)), Image.Resampling.LANCZOS).save("docs/coffee.jpg", quality=85)
