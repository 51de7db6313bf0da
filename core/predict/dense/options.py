"""What a person sets of the methods that name patches, whichever it is."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from ovskit.core.runtime.declared import Effect, Given
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.settings import REQUIRED, Options, option
from ovskit.core.runtime.values import count_or_auto

WHOLE = 0
"""As the side of a window: one that holds the whole image."""


def _side_or_whole(text: str) -> int:
    """``224``, or ``whole``."""
    if text == "whole":
        return WHOLE
    if not text.isdecimal() or not 8 <= int(text) <= 16_384:
        raise ValueError("give a side from 8 to 16384 pixels, or whole")
    return int(text)


def _of_masks(given: Given) -> bool:
    return given["masks"] is not None


_NEEDS_MASKS = Effect(_of_masks, "is about masks: give some with --masks")


class NamingOptions(Options):
    """Names, how an image is looked at, and what is written. None leaves a value to the protocol, see ``protocols``."""

    SECTION: ClassVar[str] = "Names"

    names: str = option(
        REQUIRED, "The label space to choose from: voc-21, a file, or cat,dog,sky.", flag=True, metavar="SPACE", environment="by command"
    )
    protocol: Literal["clip-336", "groupvit"] = option(
        "clip-336", "Whose sizes, windows, templates and thresholds are taken where none are given.", flag=True
    )
    templates: str | None = option(
        None, "Prompts for a word: plain, imagenet-7, imagenet-80 …, or space, those of the label space.", flag=True, metavar="NAME",
        shown="the protocol's",
    )  # fmt: skip
    background_words: str | None = option(
        None, "Words that stand for the background: usual, none, a file, or sky,wall,tree.", flag=True, metavar="WORDS",
        shown="the protocol's",
    )  # fmt: skip
    min_prob: float | None = option(
        None, "Make a pixel background if its best name is less probable than this; without a background, nothing.", flag=True, low=0.0,
        high=1.0, metavar="P", shown="the protocol's",
    )  # fmt: skip
    short_side: int | None = option(
        None, "Shorter side of the image as the network sees it, in pixels.", flag=True, low=8, high=16_384, metavar="N",
        shown="the protocol's",
    )  # fmt: skip
    window: int | None = option(
        None, "Side of the windows that slide over it, in pixels, or whole.", flag=True, metavar="N|whole", parse=_side_or_whole,
        shown="the protocol's",
    )  # fmt: skip
    stride: int | None = option(
        None, "Pixels from one window to the next.", flag=True, low=1, metavar="N", shown="the protocol's", environment="by command"
    )
    masks: str | None = option(
        None, "Masks of the same photographs, of whatever tool: every mask takes its pixels' most frequent name.", flag=True,
        metavar="MASKS.json", environment="never",
    )  # fmt: skip
    correct: bool = option(
        True, "Let every mask take its pixels' most frequent name.", flag=True, off="--no-correct", effect=_NEEDS_MASKS, rare=True
    )
    write: Literal["classes", "masks"] = option(
        "classes", "What is written: a mask for each class that is seen, or the given masks with their names.", flag="--as",
        effect=Effect(lambda g: g["as"] == "classes" or _of_masks(g), "masks writes masks that are given: add --masks"),
    )  # fmt: skip
    top_k: int | None = option(
        None, "List the N best names of each mask, with their probabilities.", flag=True, low=1, metavar="N",
        effect=Effect(lambda g: g["as"] == "masks" or g["classify"], "lists names of given masks: add --as masks"),
    )  # fmt: skip
    maps: Path | None = option(
        None, "Also write a label map of each photograph there, as PNG.", flag=True, metavar="DIR", decides=False, environment="never",
        effect=Effect(lambda g: g["as"] == "classes", "has no effect beside --as masks, which makes no label maps"),
    )  # fmt: skip
    sweep: Path | None = option(
        None, "A folder of label maps of these photographs: write the mIoU at every --min-prob, and the best, instead of masks.", flag=True,
        metavar="DIR", environment="never",
    )  # fmt: skip
    layout: str | None = option(
        None, "How the folder of --sweep is kept: voc, cityscapes …; see ovs-eval.", flag=True, metavar="NAME",
        effect=Effect(lambda g: g["sweep"] is not None, "is about the folder of --sweep: add it"),
    )  # fmt: skip
    scale: float | None = option(None, "What cosines are multiplied with before the softmax; None: the protocol's.", above=0)
    softmax: Literal["words", "classes"] = option(
        "words", "Over what probabilities are taken: all words, as in the published code, or classes, as ovs-label does."
    )
    batch_size: int | None = option(
        None, "Batch size, in images; auto halves a batch that does not fit.", flag=True, metavar="N|auto", parse=count_or_auto, low=1,
        shown="auto", decides=False,
    )  # fmt: skip
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto", "Precision of the network; auto: bf16 on a GPU that has it, fp32 elsewhere.", flag=True
    )

    def check(self) -> None:
        """See ``Options``."""
        if self.write == "masks" and self.masks is None:
            raise UsageError("--as masks writes masks that are given: add --masks MASKS.json")
        if self.sweep is not None:
            beside = {"--min-prob": self.min_prob is not None, "--as masks": self.write == "masks", "--maps": self.maps is not None}
            for flag in (flag for flag, said in beside.items() if said):
                raise UsageError(f"{flag} has no effect beside --sweep, which writes scores at every --min-prob: leave one of them out")
