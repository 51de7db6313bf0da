"""``ovs-predict`` by a segmenter that ``ovs-train segment`` or ``correct`` made: masks, and which is part of which; see ``predictor``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from ovskit.core.predict.job import Predicted, PredictJob, PredictMethod, kind_of
from ovskit.core.runtime.declared import Effect, Given
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.settings import Options, option
from ovskit.core.runtime.values import count_or_auto, numbers

if TYPE_CHECKING:
    import torch

    from ovskit.core.formats.photographs.sources import Source
    from ovskit.core.models.segmenter.checkpoint import LoadedSegmenter
    from ovskit.core.predict.predictor import PredictOptions
    from ovskit.core.records import MaskSet

# Default IoU above which the worse of two masks is dropped [choice].
_NMS_OF_SCALES, _NMS_OF_PLACES, _OFF = 0.9, 0.85, 1.0


def _has_head(given: Given) -> bool:
    return given["hier"] == "head" or (given["hier"] is None and len(given["scales"]) == 1)


class SegmenterOptions(Options):
    """Every value of the method; all of them are choices, since SOHES leaves inference open. None leaves the value to the segmenter."""

    size: int | None = option(
        None, "Longer side of the network's input, in pixels, rounded to a multiple of 32.", flag=True, low=32, metavar="N",
        shown="as trained", environment="by command",
    )  # fmt: skip
    scales: tuple[float, ...] = option(
        (1.0,), "Run on each image at these multiples of --size, and pool the masks.", flag=True, metavar="X,X…", parse=numbers
    )
    queries: int | None = option(
        None, "Approximate number of queries, for a segmenter whose queries begin at places (kinds, see ovs-train).",
        flag=True, low=1, high=10_000, metavar="N", shown="as trained",
    )  # fmt: skip
    nms: float | None = option(
        None, "Drop a mask that overlaps a better one by more than this IoU.", flag=True, low=0.0, high=1.0, metavar="IOU",
        shown="1 (off); 0.9 with several scales; 0.85 where queries begin at places",
    )  # fmt: skip
    score: Literal["own", "pooled"] | None = option(
        None, "A mask's score. own: the query's; pooled: the chance that it, or a mask that --nms drops for it, is right.", flag=True,
        shown="pooled where queries begin at places, else own", environment="by command",
    )  # fmt: skip
    most: int = option(1000, "Largest number of masks an image, the best first.", flag="--max", low=1, metavar="N")
    min_score: float = option(
        0.0, "Drop masks below this score; 0 keeps all, for ovs-eval to rank.", flag=True, low=0.0, high=1.0, metavar="X"
    )
    hier: Literal["head", "coverage", "none"] | None = option(
        None, "Parents from the ancestor head, from coverage as in ovs-hier, or none.", flag=True, shown="head; none with several scales"
    )
    threshold: float = option(
        0.5, "Lowest probability of the ancestor head at which a mask is an ancestor.", flag="--ancestor-threshold", low=0.0,
        high=1.0, metavar="P", effect=Effect(_has_head, "has no effect without the ancestor head: add --hier head, or leave it out"),
    )  # fmt: skip
    batch_size: int | None = option(
        None, "Batch size, in images; auto halves a batch that does not fit.", flag=True, metavar="N|auto", parse=count_or_auto, low=1,
        shown="auto", decides=False,
    )  # fmt: skip
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto", "Precision of the network; auto: bf16 on a GPU that has it, fp32 elsewhere.", flag=True
    )

    @property
    def parents(self) -> Literal["head", "coverage", "none"]:
        """Where parents come from: masks of several scales have no ancestor probabilities."""
        return self.hier or ("head" if len(self.scales) == 1 else "none")


def run(job: PredictJob, options: SegmenterOptions) -> Predicted:
    """Masks by the segmenter of ``job.checkpoint``. Raises what opening it raises, and UsageError for options that it cannot follow."""
    from ovskit.core.models.segmenter.open import open_segmenter
    from ovskit.core.predict.predictor import predict_masks
    from ovskit.core.runtime.device import choose_device

    if job.checkpoint is None:
        raise UsageError("--method segmenter: name the folder of its run with --checkpoint RUN")
    device = choose_device(job.device)
    loaded = open_segmenter(job.checkpoint)
    settled = _settled(job, options, loaded, device)

    def masks(sources: Sequence[Source]) -> Iterator[MaskSet]:
        found = predict_masks(sources, loaded.segmenter, settled, job.failures, device=device)
        return map(job.grow_forest, found) if options.parents == "coverage" else found

    return Predicted(loaded.segmenter.config.backbone, loaded.sha256, masks)


def _settled(job: PredictJob, options: SegmenterOptions, loaded: LoadedSegmenter, device: torch.device) -> PredictOptions:
    """The options with the segmenter's own values where none are given."""
    from ovskit.core.models.segmenter.open import input_size
    from ovskit.core.predict.predictor import PredictOptions

    config = loaded.segmenter.config
    places = config.kinds > 0
    if options.queries is not None and not places:
        raise UsageError(f"--queries: the number of queries of {job.checkpoint} is fixed to {config.queries}: leave it out")
    nms = options.nms
    if nms is None:
        nms = _NMS_OF_SCALES if len(options.scales) > 1 else _NMS_OF_PLACES if places else _OFF
    if options.score == "pooled" and nms >= _OFF:
        raise UsageError("--score pooled: give --nms below 1, or nothing is pooled")
    return PredictOptions(
        size=options.size or input_size(loaded),
        scales=options.scales,
        queries=options.queries,
        nms=nms,
        pooled=options.score == "pooled" or (options.score is None and places and nms < _OFF),
        max_masks=options.most,
        min_score=options.min_score,
        parents=options.parents == "head",
        threshold=options.threshold,
        batch_size=options.batch_size,
        workers=job.workers,
        max_pixels=job.max_pixels,
        precision=_dtype(options.precision, device),
    )


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    import torch

    if precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


METHOD = PredictMethod(
    "segmenter",
    "masks, and which is part of which, by a segmenter of ovs-train segment or correct.",
    SegmenterOptions,
    run,
    opens=lambda checkpoint: kind_of(checkpoint).startswith("ovskit.segmenter/"),
)
