"""What the two CRFs share: the energy, what the masks say of it, and the crop around each."""

from __future__ import annotations

import math

from ovskit.core.runtime.settings import Options, option

RELATIVES = "HASSOD's and CutLER's code"


class MeanFieldOptions(Options):
    """What SOHES' relatives use, but that theirs weigh the smoothness kernel with 7 [choice].

    ``confidence``: at 0.9 most small masks vanish, at 0.9999 nearly all stay as they are [choice]. How soft margins are heard is ours
    too, see ``log_odds``.
    """

    iterations: int = option(10, "Steps of the mean field.", low=1, source=RELATIVES)
    gaussian_sxy: float = option(3, "Width of the smoothness kernel, in pixels.", above=0, source=RELATIVES)
    gaussian_compat: float = option(3, "Weight of the smoothness kernel.", low=0)
    bilateral_sxy: float = option(50, "Width of the appearance kernel, in pixels.", above=0, source=RELATIVES)
    bilateral_srgb: float = option(5, "Width of the appearance kernel, in levels of 0 to 255.", above=0, source=RELATIVES)
    bilateral_compat: float = option(10, "Weight of the appearance kernel.", low=0, source=RELATIVES)
    confidence: float = option(
        0.999, "Probability that the mask is right about a pixel; the higher, the less can change.", above=0.5, below=1
    )
    sharpness: float = option(
        4, "Log-odds of the mask where its soft margin is as wide as its mean; inf ignores soft margins of any kind.",
        above=0, high=math.inf,
    )  # fmt: skip
    soft_area: int = option(576, "Ignore the soft margin of a mask of fewer pixels.", low=0)
    margin: int = option(16, "Margin of the crop around a mask's box, in pixels; a mask can grow no farther.", low=0)
