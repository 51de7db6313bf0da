"""What ``ovs-extract`` may be asked for: which model, which of its features, and how they are written."""

from __future__ import annotations

from typing import ClassVar, Literal

from ovskit.core.runtime.declared import Effect, Given
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.settings import Options, option
from ovskit.core.runtime.values import count_or_auto

_LARGEST = 16_384  # pixels of a side [choice]


def _square(text: str) -> tuple[int, int] | None:
    if text == "keep":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= _LARGEST:
        raise ValueError(f"give a number of pixels from 1 to {_LARGEST}, or keep")
    return int(text), int(text)


def _has_facets(given: Given) -> bool:
    from ovskit.core.models.families import has_facets

    return has_facets(given["model"])


class ExtractOptions(Options):
    """``size`` is the (height, width) in pixels every image is resized to, or None to keep its own, rounded to the patch; ``batch_size``
    None chooses one for the device."""

    SECTION: ClassVar[str] = "Model"

    model: str = option(
        "builtin", "Backbone: builtin, dino-vitb8, dinov2-vitb14, clip:ARCH/TAG, timm:NAME; see --list-models.", flag=True, metavar="NAME"
    )
    facet: Literal["key", "query", "value", "token"] = option(
        "key", "Output of the attention block that is the feature, its heads concatenated.", flag=True,
        effect=Effect(lambda g: _has_facets(g) or g["facet"] == "key", "has no effect with {model}, which has no facets"),
    )  # fmt: skip
    layer: int = option(
        -1, "Transformer block that features are taken from, counted from 0, or from the end if negative.", flag=True, metavar="N",
        effect=Effect(lambda g: _has_facets(g) or g["layer"] == -1, "has no effect with {model}, which has no layers"),
    )  # fmt: skip
    size: tuple[int, int] | None = option(
        (1024, 1024), "Resize images to N×N, aspect ignored, or keep their own size; rounded to patches.", flag=True, metavar="N|keep",
        parse=_square, shown="1024", source="SOHES section 3.1", environment="by command",
    )  # fmt: skip
    resample: Literal["bicubic", "lanczos", "bilinear"] | None = option(
        None, "Interpolation of Pillow that photographs are resized by; HASSOD uses lanczos.", flag=True,
        shown="the model's own: builtin bilinear, most others bicubic",
    )  # fmt: skip
    positions: Literal["official", "size"] = option(
        "official",
        "Resample position embeddings as the model's authors do, or to the grid's size; DINO and DINOv2 without registers differ.",
        flag=True, rare=True,
    )  # fmt: skip
    cls: bool = option(False, "Also write the CLS token of each image.", flag=True)
    pool: Literal["cls", "mean"] | None = option(None, "Write one embedding per image instead of patch features.", flag=True)
    dtype: Literal["float16", "float32", "bfloat16"] = option(
        "float16", "Type to compute in and to store. On a CPU float16 is computed in float32; bfloat16 is stored as float32.", flag=True
    )
    batch_size: int | None = option(
        None, "Images per pass; auto halves what does not fit.", flag=True, metavar="N|auto", parse=count_or_auto, low=1, shown="auto",
        decides=False,
    )  # fmt: skip

    def check(self) -> None:
        """See ``Options``."""
        if self.size is not None and not all(1 <= side <= _LARGEST for side in self.size):
            raise UsageError(f"size {'×'.join(map(str, self.size))}: give two numbers of pixels from 1 to {_LARGEST}, or None")
        if self.pool is not None and self.cls:
            raise UsageError("--pool writes one embedding per image and --cls adds one to patch features: choose one")

    @property
    def storage(self) -> Literal["float16", "float32"]:
        """The dtype written."""
        return "float16" if self.dtype == "float16" else "float32"
