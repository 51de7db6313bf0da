"""``--names SPACE``: names for masks, by a model that knows words; see ``models.words``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from ovskit.core.label.job import LabelJob, Labelled, Records
from ovskit.core.runtime.declared import Effect
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.methods import Method
from ovskit.core.runtime.settings import REQUIRED, Options, option

if TYPE_CHECKING:
    from ovskit.core.formats.labels.spaces import LabelClass
    from ovskit.core.records import MaskSet

_NAMED = Effect(lambda g: g["names"] is not None, "has no effect without --names")


class NamesOptions(Options):
    """The names, and what is written with them."""

    names: str = option(
        REQUIRED, "Name masks by a label space: voc-21, a file, or cat,dog,sky; with a model that knows words.", flag=True, metavar="SPACE",
        environment="by command",
    )  # fmt: skip
    top_k: int | None = option(
        None, "List the N best names of each mask, with their probabilities.", flag=True, low=1, metavar="N", effect=_NAMED
    )
    min_prob: float | None = option(
        None,
        "Make a mask background if its best name is less probable than this.",
        flag=True,
        low=0.0,
        high=1.0,
        metavar="P",
        effect=_NAMED,
    )
    drop: bool = option(False, "Drop masks below --min-prob instead.", flag=True, effect=_NAMED)
    score: Literal["keep", "label", "product"] = option(
        "keep", "Score of a named mask: its own (keep), the name's probability (label), or the product of both.", flag=True,
        environment="by command", effect=_NAMED,
    )  # fmt: skip

    def check(self) -> None:
        """See ``Options``."""
        if self.drop and self.min_prob is None:
            raise UsageError("--drop leaves out masks below --min-prob: give both")


def run(job: LabelJob, options: NamesOptions) -> Labelled:
    """Every mask with the class whose words are nearest. Raises UsageError for a label space that has not what is asked for or a model that
    knows no words, and what reading masks and the model raises."""
    from ovskit.core.formats.labels.spaces import open_label_space
    from ovskit.core.formats.streams.mask_inputs import MaskInputs
    from ovskit.core.models.words import NameOptions, load_words, name_categories, with_names

    space = open_label_space(options.names)
    if options.min_prob is not None and not options.drop and space.background is None:
        raise UsageError(f"--min-prob: the label space {space.name} has no background to give to such masks; add --drop to leave them out")
    features, encoder = job.inputs.features, job.encoder
    _check_knows_words(encoder.options.model or (None if features is None else str(features.model.get("model", ""))))
    naming = NameOptions(options.top_k, options.min_prob or 0.0, options.drop, options.score)
    masks = job.stack.enter_context(MaskInputs(job.inputs.masks, job.failures))
    header = masks.header
    job.root_of(header)  # before weights are looked for
    backbone = encoder.open(None if features is None else features.model)

    def start() -> Records:
        def watch(classes: Iterable[LabelClass]) -> Iterable[LabelClass]:
            return job.watch(classes, "reading names", total=len(space.classes))

        words = load_words(space, backbone.spec, weights=encoder.weights, device=backbone.device, watch=watch)
        crop = encoder.options.crop_for(backbone.spec)

        def named(done: frozenset[int]) -> Iterator[MaskSet]:
            for each in job.encode(masks.sets(), backbone, crop, header, done):
                yield with_names(each.masks, each.vectors, words, naming)

        return named

    labels = {"name": space.name, "version": space.version, "hash": space.hash}
    named_header = job.header(header, backbone, description="masks named by ovs-label", categories=name_categories(space), labels=labels)
    return Labelled(named_header, start)


def _check_knows_words(model: str | None) -> None:
    from ovskit.core.models.families import has_words, names_with_words

    if model is None or not has_words(model):
        looks = "" if model is None else f", and {model} knows none"
        raise UsageError(f"--names needs a model that knows words{looks}: give --model {names_with_words()}")


METHOD = Method("names", "a name for each mask, by a model that knows words.", NamesOptions, run)
