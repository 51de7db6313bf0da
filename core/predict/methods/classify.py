"""``ovs-predict --classify``: the names nearest to whole images, by a model that knows words; see ``predict.classify``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from ovskit.core.predict.job import Predicted, PredictJob, PredictMethod
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.settings import REQUIRED, Options, option
from ovskit.core.runtime.values import count_or_auto

if TYPE_CHECKING:
    from ovskit.core.formats.labels.spaces import LabelClass
    from ovskit.core.formats.photographs.sources import Source
    from ovskit.core.records import ImageLabels


class ClassifyOptions(Options):
    """Names, and how an image is looked at."""

    SECTION: ClassVar[str] = "Names"

    names: str = option(
        REQUIRED, "The label space to choose from: imagenet-s-50, a file, or cat,dog,sky.", flag=True, metavar="SPACE",
        environment="by command",
    )  # fmt: skip
    templates: str | None = option(
        None, "Prompts for a word: plain, imagenet-7, imagenet-80 …, or space, those of the label space.", flag=True, metavar="NAME",
        shown="imagenet-7",
    )  # fmt: skip
    top_k: int | None = option(None, "Labels listed for each image, the best first.", flag=True, low=1, metavar="N", shown="5")
    size: int | None = option(
        None, "Side of the square that the model sees, in pixels.", flag=True, low=8, metavar="N", shown="the model's own",
        environment="by command",
    )  # fmt: skip
    batch_size: int | None = option(
        None, "Batch size, in images; auto halves a batch that does not fit.", flag=True, metavar="N|auto", parse=count_or_auto, low=1,
        shown="auto", decides=False,
    )  # fmt: skip


def run(job: PredictJob, options: ClassifyOptions) -> Predicted:
    """Labels by ``job.model``. Raises UsageError for a model that knows no words, and what opening it and the label space raises."""
    from ovskit.core.formats.labels.spaces import open_label_space, templates
    from ovskit.core.models.families import has_words, names_with_words
    from ovskit.core.models.registry import load_backbone
    from ovskit.core.models.words import load_words, name_categories
    from ovskit.core.predict import classify
    from ovskit.core.runtime.device import choose_device

    space = open_label_space(options.names)
    prompts = space.templates if options.templates == "space" else templates(options.templates or "imagenet-7")
    if job.model is None or not has_words(job.model):
        said = "no model" if job.model is None else f"--model {job.model} knows no words"
        raise UsageError(f"{said}: name {names_with_words()}")
    device = choose_device(job.device)
    backbone = load_backbone(job.model, weights=job.weights, device=device)
    asked = classify.ClassifyOptions(
        top=options.top_k or 5, size=options.size, batch_size=options.batch_size, workers=job.workers, max_pixels=job.max_pixels
    )

    def labels(sources: Sequence[Source]) -> Iterator[ImageLabels]:
        def watch(classes: Iterable[LabelClass]) -> Iterable[LabelClass]:
            return job.watch(classes, "reading names", total=len(space.classes))

        words = load_words(space, backbone.spec, weights=job.weights, device=device, watch=watch, templates=prompts)
        yield from classify.classify(sources, backbone, words, asked, job.failures)

    of = {"name": space.name, "version": space.version, "hash": space.hash}
    return Predicted(backbone.spec.model, backbone.spec.weights_sha256, labels, name_categories(space), of, of_images=True)


METHOD = PredictMethod("classify", "the names nearest to whole images, by a model that knows words.", ClassifyOptions, run)
