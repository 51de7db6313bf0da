"""What ``ovs-curate`` may be asked for: how concepts are found, how they are ranked, and what a trainer draws of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar, Literal

from ovskit.core.runtime.declared import Effect
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.settings import Options, option
from ovskit.core.runtime.shared_options import WEIGHTS

TEMPLATE = "a photo of a {}"
_OF_LANGUAGE = Effect(lambda g: g["expansion"] == "language", "has no effect without --expansion language")
_OF_GUIDED = Effect(
    lambda g: g["ranking"] == "guided" or (g["ranking"] is None and g["expansion"] == "vision"), "has no effect without --ranking guided"
)


class VocabularyOptions(Options):
    """The concepts, and what they look like to the model."""

    SECTION: ClassVar[str] = "Concepts"

    vocabulary: str | None = option(
        None, "Concepts to look for: a file with one term a line, a label space such as voc-20, or dog,cat,sky.", flag=True,
        metavar="FILE|SPACE", shown="a list of common nouns that comes with ovskit",
    )  # fmt: skip
    template: str = option(
        TEMPLATE, "Prompt that the text tower reads; {} is the concept.", flag=True, metavar="TEXT", source="CoCu, Eq. 6", rare=True,
        effect=Effect(lambda g: g["concept_rows"] is None, "has no effect with --concept-rows"),
    )  # fmt: skip
    concept_rows: Path | None = option(
        None, "Embeddings of the concepts made elsewhere: a .npz of names (n,) and rows (n, c); instead of the model's text tower.",
        flag=True, metavar="FILE.npz", environment="never",
    )  # fmt: skip

    weights: Path | None = option(None, **WEIGHTS)

    def check(self) -> None:
        """See ``Options``."""
        if self.template.count("{}") != 1:
            raise UsageError(f"--template {self.template}: write {{}} once, where the concept goes, as in '{TEMPLATE}'")


class CurateOptions(Options):
    """How concepts are found and ranked, and what is drawn of them."""

    SECTION: ClassVar[str] = "Curation"

    neighbours: int = option(
        8, "Number of images that are looked for around each image, whose captions lend their concepts.", flag="--neighbours", short="-k",
        low=1, high=63, metavar="N", source="CoCu, code",
    )  # fmt: skip
    expansion: Literal["vision", "language"] = option(
        "vision", "Look for images that are like the image, or for captions (--caption-rows) that are.", flag=True,
        source="CoCu section 3.2",
    )  # fmt: skip
    caption_rows: tuple[str, ...] = option(
        (), "Embeddings of captions, one a pair, as ovs-extract writes those of images.", flag=True, metavar="FILE.npz", rare=True,
        environment="never", effect=_OF_LANGUAGE,
    )  # fmt: skip
    ranking: Literal["guided", "naive"] | None = option(
        None, "Rank concepts by image and neighbours together, or by the image alone.", flag=True,
        shown="guided; naive with --expansion language", source="CoCu section 3.2, Eq. 6 to 8",
    )  # fmt: skip
    score: Literal["eq8", "code"] = option(
        "eq8", "Score of the guided ranking: as in the paper, or as in its code, which divides the first term by the largest.", flag=True,
        environment="by command", source="CoCu, Eq. 8", rare=True,
        effect=_OF_GUIDED,
    )  # fmt: skip
    own: bool = option(True, "Whether the concepts of the image's own captions take part.", flag=True, off="--no-own", source="CoCu, code")
    near_duplicates: float = option(
        0.999, "Leave out neighbours whose cosine with the image is this or more: copies of it; inf leaves out none.", flag=True, low=0.0,
        high=math.inf, metavar="COSINE", rare=True,
        effect=Effect(lambda g: g["expansion"] == "vision", "has no effect with --expansion language, which finds captions"),
    )  # fmt: skip
    texts: int = option(
        3, "Number of concepts that a training step draws, and of clusters.", flag=True, low=1, high=64, metavar="N",
        source="CoCu section 4",
    )  # fmt: skip
    sampling: Literal["cluster", "softmax", "naive"] = option(
        "cluster", "What a training step draws: one of each cluster, some of all, or always the best.", flag=True, source="CoCu section 3.2"
    )
    temperature: float = option(
        1.0, "Temperature of the draw; 0 takes the best.", flag=True, low=0.0, metavar="T", source="CoCu, code",
        effect=Effect(lambda g: g["sampling"] != "naive", "has no effect with --sampling naive"),
    )  # fmt: skip
    seed: int = option(0, "Random seed of clusters and draws.", flag=True, low=0, metavar="SEED")

    def check(self) -> None:
        """See ``Options``."""
        if self.expansion == "language" and not self.caption_rows:
            raise UsageError("--expansion language compares images with captions: give their embeddings with --caption-rows FILE.npz")
        if self.expansion == "language" and self.ranking == "guided":
            raise UsageError("--ranking guided looks at the images of neighbours, and --expansion language finds captions: use naive")

    @property
    def is_guided(self) -> bool:
        """Whether the ranking is the guided one."""
        return self.ranking == "guided" or (self.ranking is None and self.expansion == "vision")


class SearchOptions(Options):
    """How neighbours are searched for."""

    SECTION: ClassVar[str] = "Search"

    index: str = option(
        "auto", "exact, an index of faiss by its factory string, or auto: exact up to 1e12 comparisons in all, or 1e15 on a GPU, else IVF.",
        flag=True, metavar="auto|exact|FACTORY",
    )  # fmt: skip
    index_file: Path | None = option(
        None, "Keep the index here, or read it where it is there: for the tasks of an array, which would each train it.", flag=True,
        metavar="FILE", decides=False, environment="never",
    )  # fmt: skip
    recall: float = option(
        0.95, "Share of the true neighbours that an index must find, of 1,000 rows; more of it is searched until it does.", flag=True,
        above=0.0, high=1.0, metavar="SHARE", rare=True,
    )  # fmt: skip
