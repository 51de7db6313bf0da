"""Classification of whole images: top-1 and top-5 accuracy; the measure is in ``eval.top_labels``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from ovskit.core.eval.metric import Metric, Predictions, Row, Table
from ovskit.core.eval.miou import MiouOptions
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.methods import Method
from ovskit.core.runtime.settings import Options, option, redeclared

if TYPE_CHECKING:
    from ovskit.core.eval.top_labels import TopScores
    from ovskit.core.formats.labels.spaces import LabelSpace
    from ovskit.core.formats.streams.masks import MasksHeader
    from ovskit.core.formats.truth.image_classes import ImageClasses
    from ovskit.core.runtime.failures import Failures


class AccuracyOptions(Options):
    """What the classes of the ground truth are.

    ``names`` is the label space (None: the predictions'); ``mapping`` is a JSON object from the ground truth's classes, such as folders
    that are named by synset, to names or numbers of the label space, several of these, or null for images that are not scored.
    """

    names: str | None = redeclared(MiouOptions, "names", None)
    mapping: str | None = option(None, "JSON object from the ground truth's folders or labels to classes; null: not scored.")
    classes: bool = option(False, "Also show the accuracy of every class.")


class Accuracy(Metric):
    """``--metric accuracy``."""

    name = "accuracy"
    masks = False
    absent: ClassVar[str] = "wrong"

    def __init__(self, options: AccuracyOptions | None = None) -> None:
        self._options = options or AccuracyOptions()

    @property
    def options(self) -> AccuracyOptions:
        return self._options

    def check(self, predictions: Sequence[str]) -> None:
        """Raises UsageError for predictions that are a folder."""
        for path in predictions:
            if os.path.isdir(path):
                raise UsageError(f"--metric accuracy: {path} is a folder; predictions are files of image labels")

    def open_truth(self, path: str, *, segments: str | None, partial: bool, failures: Failures | None) -> ImageClasses:
        """A folder with a folder for each class, or JSON lines; see ``open_image_classes``."""
        from ovskit.core.formats.truth.image_classes import open_image_classes, read_mapping

        mapping = None if self.options.mapping is None else read_mapping(self.options.mapping)
        return open_image_classes(path, mapping, failures)

    def truth_warnings(self, truth: ImageClasses) -> Sequence[str]:
        left = truth.left_out
        return [f"{truth.what}: {left} image{'s' * (left != 1)} left out, to which the mapping gives no class"] if left else []

    @contextmanager
    def open_predictions(self, path: str, what: str, truth: ImageClasses, failures: Failures | None) -> Iterator[Predictions]:
        """A stream of image labels."""
        from ovskit.core.formats.streams.image_labels import open_image_labels
        from ovskit.core.formats.streams.masks import MasksHeader
        from ovskit.core.runtime.output import open_input

        with open_input(path) as stream:
            own, images = open_image_labels(stream, what)
            header = MasksHeader("labels", own.categories, root=own.root, pg=own.pg, labels=own.labels, exif=own.exif, shard=own.shard)
            yield Predictions(header, images)

    def scores(self, truth: ImageClasses, header: MasksHeader, what: str) -> TopScores:
        """Raises InputError for classes of the ground truth that the label space does not have, and for predictions of another one."""
        from ovskit.core.eval.categories import listed_names
        from ovskit.core.eval.top_labels import TopScores
        from ovskit.core.eval.true_classes import class_ids, known_words

        space = self._space()
        words = known_words(space, header, what)
        owner = space.name if space is not None else str((header.labels or {}).get("name", f"{what}'s label space"))
        names = {number: some[0] for number, some in words.items()}
        return TopScores(class_ids(truth, words, owner), names, len(listed_names(header.categories)))

    def settings(self, truth: ImageClasses) -> dict[str, Any]:
        space = self._space()
        said = None if space is None else {"name": space.name, "version": space.version, "hash": space.hash}
        return {"label_space": said, "mapping": self.options.mapping}

    def contents(self, scores: TopScores, masks: int) -> str:
        return f"{len(scores.by_class()):,} classes"

    def tables(self, files: Sequence[tuple[str, TopScores]]) -> Sequence[Table]:
        return [class_table(files)] if self.options.classes else []

    def _space(self) -> LabelSpace | None:
        from ovskit.core.formats.labels.spaces import open_label_space

        return None if self.options.names is None else open_label_space(self.options.names)


def class_table(files: Sequence[tuple[str, TopScores]]) -> Table:
    """A row for each class that has an image: its images, and the share whose best label is right, in each file."""
    from ovskit.core.formats.paths import show_path

    columns, one = ["class", "id", "images"], Row("top1")
    columns += [f"top-1 of {what}" if len(files) > 1 else "top-1" for what, _ in files]
    found = [{number: (images, right) for number, _, images, right in scores.by_class()} for _, scores in files]
    rows = []
    for number, name, images, _ in files[0][1].by_class():
        shares = [by_id.get(number) for by_id in found]
        cells = [one.text(None if share is None else share[1] / share[0]) for share in shares]
        rows.append([show_path(name), str(number), str(images), *cells])
    return columns, rows


METHOD = Method("accuracy", "Top-1 and top-5 accuracy of labels of images.", AccuracyOptions, Accuracy)
