"""Samples a second of ovs-train segment for several batch sizes, in one process; JSON on stdout.

    python -m gpu.probe MASKS.json TAR… --batches 8 16 … [--steps 30] [--device cuda] [--jobs 16] --cache DIR [--set NAME=X …]

For each batch size ``samples_per_second`` and ``waiting`` (the share of the time that updates waited for samples), of the last two
thirds of the steps, and ``mib``, the most memory that was allocated. It ends at the first batch that does not fit.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from ovskit.core.formats.photographs.sources import list_sources
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.settings import settings_from
from ovskit.core.train.data.mask_index import open_mask_index
from ovskit.core.train.engine.events import Event, Logged
from ovskit.core.train.engine.loop import DoesNotFitError, train
from ovskit.core.train.engine.options import TrainOptions
from ovskit.core.train.recipes.segment import SegmentRecipe, SegmentSettings, new_segmenter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("masks", type=Path)
    parser.add_argument("tars", nargs="+")
    parser.add_argument("--batches", type=int, nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--jobs", type=int, default=16)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=X", help="a setting of the recipe; several times")
    arguments = parser.parse_args()
    photographs = list_sources(arguments.tars).items
    found: dict[int, dict[str, float]] = {}
    for batch in arguments.batches:
        settings = SegmentSettings(**settings_from(SegmentSettings, arguments.set) | {"batch": batch})
        index = open_mask_index(photographs, arguments.masks, settings.index_options(), arguments.cache, failures=Failures(skip=False))
        recipe = SegmentRecipe(
            index, photographs, new_segmenter(settings, weights=None, pretrained=True, seed=0), settings, Path("."), seed=0
        )
        try:
            found[batch] = timed(recipe, arguments.steps, arguments.device, arguments.jobs)
        except DoesNotFitError:
            break
    print(json.dumps(found))


def timed(recipe: Any, steps: int, device: str, jobs: int) -> dict[str, float]:
    """See the module; nothing of the run is kept."""
    logged: list[Logged] = []

    def watch(event: Event) -> None:
        if isinstance(event, Logged):
            logged.append(event)

    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    each = max(1, steps // 3)
    options = TrainOptions(steps=3 * each, device=device, workers=jobs, learning_rate=1e-5, log_every=each, checkpoint_every=10**9)
    with tempfile.TemporaryDirectory() as folder:
        train(recipe, options, Path(folder), watch=watch)
    later = logged[1:] or logged
    count = len(later)
    return {
        "samples_per_second": sum(line.samples_per_second for line in later) / count,
        "waiting": sum(line.waiting for line in later) / count,
        "mib": torch.cuda.max_memory_allocated() / 2**20 if cuda else 0.0,
    }


if __name__ == "__main__":
    main()
