"""The speed of training a segmenter: an update of ``ovs-train segment`` beside one of transformers' Mask2Former, and where time goes.

*updates*: seconds of an update of the weights (forward, losses, backward, clipping, AdamW) in ``core.train.engine.loop`` as it is, with the
batches ready. ``ovskit`` is SegmentRecipe on timm's Swin-T, ``transformers`` its Mask2FormerForUniversalSegmentation with its
own loss on its own Swin-T: random weights, one class, decoders, queries and points as in ``--size``; the same images, masks, batch,
precision and optimiser. ``builtin`` is SegmentRecipe on the built-in network. Each has a process of its own, and they take turns,
one after the other: ``--turns`` times ``--steps`` updates, after two to get warm; medians, the least and the most. The ratio is of
the same turns. Peak memory is the whole process's; on CUDA, what torch had allocated.

*split*: the same update part by part. On CUDA the device is waited for after each part, so the sum may be more than an update. Drawing
a batch is one thread's work, and goes on beside the updates. *loader*: samples a second that one thread makes
(``core.train.views.samples.draw_batch``) at 512 × 512. *compile*: an update on the built-in network (``--compiled swin``: on Swin-T)
at ``--size`` with torch.compile, as by ``ovs-train segment --compile``, and without: the first, which compiles, and those after it.

Photographs come from ``$OVSKIT_TEST_DATA`` (default: ../shared/data beside the checkout), or are generated (tests/scenes.py), about
a hundred masks each. ``--data`` chooses those of the updates: bsds500, where it is there, with the segments of all annotators of a
photograph, which is nearest to what ovs-cluster makes. On CPUs the seconds mean something on a quiet machine only; ``--cpu-time``
counts those that the process had instead.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import DATA
from harness.arguments import bench_parser, list_of
from harness.machine import surroundings
from harness.measure import use_threads
from harness.photographs import SETS, photographs_at_hand, truth_file
from harness.report import made_by, progress, section, write_json
from PIL import Image as Picture
from torch import Tensor, nn

from ovskit.core.formats.photographs.sources import Source, list_sources
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
from ovskit.core.models.segmenter import losses as losses_of_ours
from ovskit.core.records import Image
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.workers import default_workers
from ovskit.core.train.data.mask_index import MaskIndex, open_mask_index
from ovskit.core.train.engine.devices import Devices, open_devices
from ovskit.core.train.engine.events import Event, Started, Updated
from ovskit.core.train.engine.loop import train
from ovskit.core.train.engine.options import TrainOptions
from ovskit.core.train.recipes.segment import SegmentRecipe, SegmentSettings, new_segmenter
from ovskit.core.train.views.samples import Batch, draw_batch
from tests.scenes import make_scene, mask_set

SWIN = "timm:swin_tiny_patch4_window7_224"
PAIR = ("ovskit, Swin-T", "transformers, Swin-T")
PARTS = ("updates", "split", "loader", "compile")
WARM = 2
GENERATED = "generated"
PHOTOGRAPHS = 40  # how many are generated
LOADER_SIDE = 512
VARIANTS = {  # of the loader
    "as trained: paste 0.5, colours": {},
    "without paste": {"paste": 0.0},
    "without colours": {"colours": False},
    "without either": {"paste": 0.0, "colours": False},
}
PHASES = ("batch to the device", "backbone", "pixel decoder", "query decoder", "losses", "backward", "clipping and optimiser")


@dataclass(frozen=True)
class Contender:
    """What is trained: ovskit's segmenter or transformers' model, and how."""

    name: str
    settings: SegmentSettings
    theirs: bool = False
    compile: bool = False


@dataclass(frozen=True)
class Job:
    """What all contenders share."""

    photographs: Sequence[Source]
    index: Path
    device: str
    precision: str
    threads: int
    batches: int
    folder: Path
    clock: Callable[[], float] = time.perf_counter


# What is learned from.


def photographs_of(name: str, folder: Path) -> tuple[Sequence[Source], MaskIndex]:
    """The photographs of a set, or generated ones, and the index of their masks, which is made below ``folder``."""
    if name == GENERATED:
        root, masks = folder / "scenes", folder / "scenes" / "masks.json"
        if not masks.exists():
            write_mosaics(root)
    else:
        root, masks = DATA / name, truth_file(name)
    photographs = list_sources([str(root / "images")], root=str(root)).items
    index = open_mask_index(photographs, masks, SegmentSettings().index_options(), folder / name, failures=Failures(skip=False))
    return photographs, index


def write_mosaics(root: Path, tiles: int = 4, side: int = 128) -> None:
    """Photographs of 4 × 4 generated scenes each, with about a hundred masks: ``root``/images and masks.json."""
    (root / "images").mkdir(parents=True)
    with open(root / "masks.json", "wb") as file:
        writer = MasksWriter(file, MasksHeader())
        for n in range(PHOTOGRAPHS):
            image = Image(n + 1, f"images/{n:03d}.jpg", tiles * side, tiles * side)
            pixels = np.zeros((image.height, image.width, 3), np.uint8)
            masks, parents = [], []
            for k in range(tiles * tiles):
                scene = make_scene(n * tiles * tiles + k, side)
                rows, columns = (slice(at * side, (at + 1) * side) for at in divmod(k, tiles))
                pixels[rows, columns] = scene.pixels
                parents += [-1 if parent < 0 else len(masks) + parent for parent in scene.parents.tolist()]
                for mask in scene.masks:
                    masks.append(np.zeros(pixels.shape[:2], bool))
                    masks[-1][rows, columns] = mask
            Picture.fromarray(pixels).save(root / image.file_name, quality=90)
            writer.write(mask_set(image, np.array(masks), np.array(parents)))
        writer.finish()


# A contender in a process of its own.


class Ours(SegmentRecipe):
    """SegmentRecipe with batches that are made before."""

    def __init__(self, index: MaskIndex, photographs: Sequence[Source], settings: SegmentSettings, folder: Path, batches: list[Batch]):
        super().__init__(index, photographs, new_segmenter(settings, weights=None, pretrained=False, seed=0), settings, folder)
        self._ready = batches

    def batch(self, step: int, rank: int, world: int) -> Batch:
        return self._ready[step % len(self._ready)]

    def backbone(self) -> nn.Module:
        return self.segmenter.pyramid


class Theirs:
    """transformers' Mask2Former of the same sizes, trained by its own forward; a ``Recipe``."""

    name = "transformers"

    def __init__(self, settings: SegmentSettings, batches: list[Batch]) -> None:
        from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

        config = settings.config()
        own = Mask2FormerConfig(
            # SwinConfig's defaults are Swin-T's.
            backbone_config=SwinConfig(out_features=["stage1", "stage2", "stage3", "stage4"]),
            num_labels=1,
            feature_size=config.hidden,
            hidden_dim=config.hidden,
            mask_feature_size=config.mask_features,
            num_queries=config.queries,
            num_attention_heads=config.heads,
            encoder_layers=config.pixel_layers,
            decoder_layers=config.decoder_layers,  # both count the queries' own prediction
            encoder_feedforward_dim=config.pixel_feedforward,
            dim_feedforward=config.decoder_feedforward,
            train_num_points=config.points,
            oversample_ratio=config.oversampling,
            importance_sample_ratio=config.importance,
        )
        torch.manual_seed(0)
        self.modules = nn.ModuleDict({"mask2former": Mask2FormerForUniversalSegmentation(own)})
        self._ready = batches
        mean, std = (255 * torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        self.modules.register_buffer("mean", mean)
        self.modules.register_buffer("std", std)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.modules.parameters())}]

    def batch(self, step: int, rank: int, world: int) -> Batch:
        return self._ready[step % len(self._ready)]

    def backbone(self) -> nn.Module:
        found: nn.Module = self.modules["mask2former"].model.pixel_level_module.encoder
        return found

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        images = (batch.images.float() - self.modules.mean) / self.modules.std
        masks = [masks.float() for masks in batch.masks]
        classes = [torch.zeros(len(masks), dtype=torch.int64, device=masks.device) for masks in batch.masks]
        return {"loss": self.modules["mask2former"](pixel_values=images, mask_labels=masks, class_labels=classes).loss.squeeze()}

    def after_step(self, step: int) -> None: ...

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None: ...

    def metadata(self) -> dict[str, Any]:
        return {}

    def evaluate(self) -> dict[str, float]:
        return {}

    def export(self, folder: Path) -> None: ...


class Phases:
    """Seconds of each part of an update, while it is ``on``; on CUDA, the device is waited for at every mark."""

    def __init__(self, device: torch.device, clock: Callable[[], float]) -> None:
        self.on = False
        self.clock, self._device = clock, device

    def begin(self, on: bool) -> None:
        wait(self._device)
        self.on, self.seconds, self._last = on, defaultdict[str, float](float), self.clock()

    def mark(self, name: str) -> None:
        if self.on:
            wait(self._device)
            now = self.clock()
            self.seconds[name] += now - self._last
            self._last = now

    def marked(self, before: str, function: Callable[..., Any], after: str) -> Callable[..., Any]:
        """``function``, at whose beginning the part ``before`` ends, and at whose end the part ``after``."""

        def call(*arguments: Any, **named: Any) -> Any:
            self.mark(before)
            result = function(*arguments, **named)
            self.mark(after)
            return result

        return call

    def apart(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, whose time is also counted by itself."""

        def call(*arguments: Any, **named: Any) -> Any:
            wait(self._device if self.on else None)
            begun = self.clock()
            result = function(*arguments, **named)
            if self.on:
                wait(self._device)
                self.seconds[name] += self.clock() - begun
            return result

        return call


def wait(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


def mark_parts(recipe: Ours | Theirs, devices: Devices, phases: Phases) -> None:
    """Mark the parts of an update as they end."""
    if isinstance(recipe, Theirs):
        model: Any = recipe.modules["mask2former"]
        pixels = model.model.pixel_level_module.decoder
        model.criterion.register_forward_pre_hook(lambda *_: phases.mark("query decoder"))
        model.criterion.matcher.forward = phases.apart("matching", model.criterion.matcher.forward)
    else:
        model = recipe.modules["segmenter"]
        pixels = model.decoders.pixels
        model.register_forward_hook(lambda *_: phases.mark("query decoder"))
        losses_of_ours.match = phases.apart("matching", losses_of_ours.match)
    model.register_forward_pre_hook(lambda *_: phases.mark("batch to the device"))
    recipe.backbone().register_forward_hook(lambda *_: phases.mark("backbone"))
    pixels.register_forward_hook(lambda *_: phases.mark("pixel decoder"))
    devices.accelerator.backward = phases.marked("losses", devices.accelerator.backward, "backward")


class Enough(Exception):
    """The parent wants no more updates."""


class Turns:
    """What watches the loop: after so many updates as the parent asked for, tell the time and wait for the next turn."""

    def __init__(self, pipe: Any, phases: Phases, device: torch.device) -> None:
        self._pipe, self._phases, self._device = pipe, phases, device

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self._wait()
        elif isinstance(event, Updated):
            self._phases.mark("clipping and optimiser")
            self._left -= 1
            if not self._left:
                wait(self._device)
                self._pipe.send((self._phases.clock() - self._begun, dict(self._phases.seconds)))
                self._wait()

    def _wait(self) -> None:
        asked = self._pipe.recv()
        if asked is None:
            raise Enough
        self._left, split = asked
        self._phases.begin(split)
        self._begun = self._phases.clock()


def serve(pipe: Any, contender: Contender, job: Job) -> None:
    """Train until the parent has enough. Sends what the network is, then a time for each turn, then the peak of memory; or why not."""
    try:
        use_threads(1)
        if job.threads:
            torch.set_num_threads(job.threads)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(job.folder / "compiled")
        devices = open_devices(job.device, job.precision)
        index, drawing = MaskIndex(job.index), []
        batches = []
        for step in range(job.batches + 1):  # the first one compiles
            begun = job.clock()
            batches.append(drawn(index, job.photographs, contender.settings, max(0, step - 1)))
            drawing.append(job.clock() - begun)
        batches, settings = batches[1:], contender.settings
        folder = job.folder / contender.name.replace(" ", "-")
        recipe = Theirs(settings, batches) if contender.theirs else Ours(index, job.photographs, settings, folder, batches)
        phases = Phases(devices.device, job.clock)
        if not contender.compile:
            mark_parts(recipe, devices, phases)
        options = TrainOptions(
            steps=10**6, learning_rate=1e-5, weight_decay=0.05, clip_norm=1.0, device=job.device, precision=job.precision,
            compile=contender.compile, checkpoint_every=10**6, log_every=10**6, workers=1,
        )  # fmt: skip
        pipe.send({
            "parameters": count(recipe.modules), "backbone_parameters": count(recipe.backbone()), "precision": devices.precision,
            "masks_per_image": statistics.mean(len(masks) for batch in batches for masks in batch.masks),
            "drawing_s": statistics.median(drawing[1:]),
        })  # fmt: skip
        try:
            train(recipe, options, folder, devices=devices, watch=Turns(pipe, phases, devices.device))
        except Enough:
            pass
        peak = {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
        if devices.device.type == "cuda":
            peak["peak_cuda_mib"] = torch.cuda.max_memory_allocated(devices.device) / 2**20
        pipe.send(peak)
    except Exception as error:  # whatever a contender fails with is a row of the table, and the others go on
        pipe.send(f"{type(error).__name__}: {error}")


def drawn(index: MaskIndex, photographs: Sequence[Source], settings: SegmentSettings, step: int) -> Batch:
    return draw_batch(index, photographs, settings.samples(), seed=0, step=step, rank=0, world=1, size=settings.batch)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# The parent.


class FailedError(Exception):
    """A contender's own words on why it cannot go on."""


class Worker:
    """A contender's process, seen from the parent; ``about`` is what it said of itself."""

    def __init__(self, contender: Contender, job: Job, patience: float) -> None:
        self.contender, self._patience = contender, patience
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, contender, job), daemon=True)
        self._process.start()
        other.close()
        self.about: dict[str, Any] = self._answer()
        self.times: list[float] = []
        self.first: float | None = None

    def turn(self, steps: int, *, split: bool = False) -> tuple[float, dict[str, float]]:
        """Seconds of an update, and of its parts, in a turn of so many."""
        self._pipe.send((steps, split))
        seconds, parts = self._answer()
        return seconds / steps, {name: value / steps for name, value in parts.items()}

    def end(self) -> None:
        """Let it go, and have ``about`` tell its peak of memory."""
        self._pipe.send(None)
        self.about |= self._answer()
        self._process.join()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def _answer(self) -> Any:
        try:
            found = self._pipe.recv() if self._pipe.poll(self._patience) else f"no answer in {self._patience:.0f} s"
        except EOFError:
            self._process.join()
            found = f"the process ended with {self._process.exitcode}"
        if isinstance(found, str):
            self.kill()
            raise FailedError(found)
        return found


@contextmanager
def workers(contenders: Sequence[Contender], job: Job, patience: float, failed: dict[str, str]) -> Iterator[list[Worker]]:
    """The contenders' processes, at the same number of updates each; those that fail are named in ``failed`` and left out."""
    started: list[Worker] = []
    try:
        for contender in contenders:
            progress(f"{contender.name} …")
            try:
                worker = Worker(contender, job, patience)
                worker.first = worker.turn(1)[0]
                worker.turn(WARM - 1)
                started.append(worker)
            except FailedError as error:
                failed[contender.name] = str(error)
        yield started
    finally:
        for worker in started:
            worker.kill()


def measure(contenders: Sequence[Contender], job: Job, arguments: argparse.Namespace, *, split: bool) -> dict[str, Any]:
    """Updates of the contenders in turns: by name, what each is and took."""
    failed: dict[str, str] = {}
    splits: dict[str, list[dict[str, float]]] = defaultdict(list)
    with workers(contenders, job, arguments.patience, failed) as started:
        for turn in range(arguments.turns):
            progress(f"turn {turn + 1} of {arguments.turns} …")
            for worker in started:
                worker.times.append(worker.turn(arguments.steps)[0])
        for _ in range(max(1, arguments.turns // 2) if split else 0):
            for worker in started:
                splits[worker.contender.name].append(worker.turn(arguments.steps, split=True)[1])
        for worker in started:
            worker.end()
    result: dict[str, Any] = {name: {"failed": why} for name, why in failed.items()}
    for worker in started:
        name = worker.contender.name
        result[name] = {**worker.about, "first_s": worker.first, "update_s": spread(worker.times), "times_s": worker.times}
        if splits[name]:
            found = splits[name]
            result[name]["split_s"] = {part: statistics.median(each.get(part, 0.0) for each in found) for part in (*PHASES, "matching")}
    return result


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def ratio(result: dict[str, Any], one: str, other: str) -> dict[str, float] | None:
    """How many times as long the one takes as the other, turn by turn."""
    if any("times_s" not in result.get(name, {}) for name in (one, other)):
        return None
    return spread([a / b for a, b in zip(result[one]["times_s"], result[other]["times_s"], strict=True)])


def loader(sets: Sequence[str], folder: Path, turns: int, clock: Callable[[], float], samples: int = 32) -> dict[str, Any]:
    """Samples a second of one thread, in turns; by set and variant."""
    use_threads(1)
    found: dict[str, Any] = {}
    for name in sets:
        photographs, index = photographs_of(name, folder)
        variants = {variant: SegmentSettings(side=LOADER_SIDE, batch=8, **changes) for variant, changes in VARIANTS.items()}
        for settings in variants.values():
            drawn(index, photographs, settings, 0)  # compiles
        rates: dict[str, list[float]] = defaultdict(list)
        for turn in range(turns):
            for variant, settings in variants.items():
                begun = clock()
                for step in range(samples // settings.batch):
                    drawn(index, photographs, settings, turn * samples // settings.batch + step)
                rates[variant].append(samples / (clock() - begun))
        found[name] = {
            "photographs": len(index),
            "masks_per_image": index.masks / len(index),
            "samples_per_s": {variant: spread(values) for variant, values in rates.items()},
        }
    return found


# What is written.


def markdown(result: dict[str, Any]) -> str:
    about, s = result["machine"], result["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if name in NAMED)
    by = made_by({**result, "machine": {"cpu": result["gpu"] or about["cpu"]}})
    lines = [
        "# The speed of training a segmenter",
        "",
        f"{by} ({about['cpus']} cores, {s['threads']} threads; load before {about['load_1min']:.1f}); {versions}. "
        f"Size {s['size']}, {s['batch']} images of {s['side']} × {s['side']} of {s['data']}.",
    ]
    if "updates" in result:
        lines += updates_table(result["updates"], s)
    if any("split_s" in row for row in result.get("updates", {}).values()):
        lines += split_table({name: row for name, row in result["updates"].items() if "split_s" in row})
    if "loader" in result:
        lines += loader_table(result["loader"])
    if "compile" in result:
        lines += compile_table(result["compile"])
    return "\n".join(lines) + "\n"


NAMED = ("python", "torch", "transformers", "timm")


def failure(name: str, row: dict[str, Any]) -> list[str]:
    """The first cells of the row of a contender that failed."""
    return [name, f"failed: {row['failed'].splitlines()[0]}"]


def updates_table(rows: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    shown = next((row for row in rows.values() if "update_s" in row), {})
    text = (
        f"In {shown.get('precision', 'no precision')}, {shown.get('masks_per_image', 0):.0f} masks an image in the mean. Seconds of an "
        f"update ({'CPU time' if settings['cpu_time'] else 'wall time'}): median [least, most] of {settings['turns']} turns of "
        f"{settings['steps']}."
    )
    cells = []
    for name, row in rows.items():
        if "failed" in row:
            cells.append([*failure(name, row), "", "", "", ""])
            continue
        middle, peak = row["update_s"]["median"], row.get("peak_cuda_mib", row["peak_mib"])
        parameters = f"{row['parameters'] / 1e6:.1f} ({row['backbone_parameters'] / 1e6:.1f})"
        rates = (f"{1 / middle:.3g}", f"{settings['batch'] / middle:.3g}", f"{peak:.0f}")
        cells.append([name, parameters, between(row["update_s"], ".3f"), *rates])
    columns = ("what", "million parameters (of the backbone)", "s an update", "updates/s", "images/s", "peak memory, MiB")
    lines = section("Updates", columns, cells, text)
    pair = ratio(rows, *PAIR)
    if pair is not None:
        lines += ["", f"An update of ovskit takes {between(pair, '.2f')} times as long as one of transformers."]
    return lines


def split_table(rows: dict[str, Any]) -> list[str]:
    cells: list[list[str]] = []

    def add(name: str, seconds: Callable[[dict[str, Any]], float]) -> None:
        cells.append([name, *(f"{1e3 * seconds(row):.0f}" for row in rows.values())])

    for part in PHASES:
        add(part, lambda row, part=part: row["split_s"][part])
        if part == "losses":
            add("… of these, matching", lambda row: row["split_s"]["matching"])
    add("all", lambda row: sum(row["split_s"][part] for part in PHASES))
    add("beside it: drawing a batch, one thread", lambda row: row["drawing_s"])
    return section("Parts of an update, ms", ("part", *rows), cells)


def loader_table(sets: dict[str, Any]) -> list[str]:
    text = f"{LOADER_SIDE} × {LOADER_SIDE} pixels; photographs are decoded each time. Median [least, most]."
    cells = [
        [name, f"{row['masks_per_image']:.0f}", *(between(row["samples_per_s"][variant], ".0f") for variant in VARIANTS)]
        for name, row in sets.items()
    ]
    return section("Samples a second, one thread", ("photographs", "masks an image", *VARIANTS), cells, text)


def compile_table(rows: dict[str, Any]) -> list[str]:
    cells = [
        [*failure(name, row), ""] if "failed" in row else [name, f"{row['first_s']:.1f}", between(row["update_s"], ".3f")]
        for name, row in rows.items()
    ]
    return section("With torch.compile", ("what", "s, the first update", "s, those after the second"), cells)


def between(found: dict[str, float], form: str) -> str:
    return f"{found['median']:{form}} [{found['least']:{form}}, {found['most']:{form}}]"


def main() -> None:
    parser = bench_parser(__doc__, markdown=True, json=True)
    chosen = "updates,split,loader"
    parser.add_argument(
        "--only", type=list_of(str, PARTS), default=chosen, help=f"parts to run: updates, split, loader and compile [{chosen}]"
    )
    parser.add_argument("--compile", action="store_true", help="compile as well")
    parser.add_argument("--compiled", choices=["builtin", "swin"], default="builtin", help="the backbone of what is compiled [builtin]")
    parser.add_argument("--device", default="cpu", help="cpu or cuda [cpu]")
    parser.add_argument("--precision", default="auto", help="fp32, bf16 or fp16 [on a GPU bf16, else fp32]")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch [the cores there are]")
    parser.add_argument("--cpu-time", action="store_true", help="count the time that a process has the CPU; not with --device cuda")
    parser.add_argument("--size", default="base", help="size of ovskit's and transformers' decoders [base]")
    parser.add_argument("--builtin", default="tiny,small,base", help="sizes on the built-in network [tiny,small,base]")
    parser.add_argument("--side", type=int, default=256, help="side of an image, pixels [256]")
    parser.add_argument("--batch", type=int, default=2, help="batch size [2]")
    parser.add_argument("--queries", type=int, default=0, help="queries of a segmenter [the size's own]")
    parser.add_argument("--turns", type=int, default=5, help="turns of each contender [5]")
    parser.add_argument("--steps", type=int, default=0, help="updates in a turn [1; on CUDA 10]")
    parser.add_argument("--batches", type=int, default=8, help="different batches, used over and over [8]")
    parser.add_argument("--data", choices=[*SETS, GENERATED], help="photographs [bsds500; generated where it is not]")
    parser.add_argument("--patience", type=float, default=900, help="seconds until a contender counts as failed [900]")
    arguments = parser.parse_args()
    parts = set(arguments.only) | ({"compile"} if arguments.compile else set())
    there = [name for name in SETS if not photographs_at_hand([name])]
    arguments.data = arguments.data or ("bsds500" if "bsds500" in there else GENERATED)
    if arguments.data not in (*there, GENERATED):
        sys.exit(f"{photographs_at_hand([arguments.data])}, or give --data {GENERATED}")
    on_cuda = arguments.device.startswith("cuda")
    if on_cuda and arguments.cpu_time:
        parser.error("--cpu-time does not count what a GPU does; leave it out with --device cuda")
    arguments.steps = arguments.steps or (10 if on_cuda else 1)
    arguments.threads = arguments.threads or default_workers()

    def settings(size: str, backbone: str) -> SegmentSettings:
        return SegmentSettings(size=size, backbone=backbone, queries=arguments.queries, side=arguments.side, batch=arguments.batch)

    ours = Contender(PAIR[0], settings(arguments.size, SWIN))
    contenders = [ours, Contender(PAIR[1], settings(arguments.size, SWIN), theirs=True)]
    contenders += [Contender(f"ovskit, builtin, {size}", settings(size, "builtin")) for size in arguments.builtin.split(",") if size]
    result: dict[str, Any] = {
        "bench": "train",
        **surroundings("transformers", "timm", "accelerate"),
        "gpu": torch.cuda.get_device_name() if on_cuda else None,
        "settings": {k: v for k, v in vars(arguments).items() if k not in ("markdown", "json")},
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        photographs, _ = photographs_of(arguments.data, folder)
        job = Job(
            photographs,
            folder / arguments.data,
            arguments.device,
            arguments.precision,
            arguments.threads,
            arguments.batches,
            folder,
            time.process_time if arguments.cpu_time else time.perf_counter,
        )
        if parts & {"updates", "split"}:
            result["updates"] = measure(contenders, job, arguments, split="split" in parts)
            pair = ratio(result["updates"], *PAIR)
            if pair is not None:
                result["ratio"] = pair
            keep(result, arguments)
        if "loader" in parts:
            sets = [name for name in ("bsds500", "coco_entities") if name in there]
            result["loader"] = loader([*sets, GENERATED], folder, arguments.turns, job.clock)
            keep(result, arguments)
        if "compile" in parts:
            plain = (
                ours
                if arguments.compiled == "swin"
                else Contender(f"ovskit, builtin, {arguments.size}", settings(arguments.size, "builtin"))
            )
            compiled = Contender(f"{plain.name}, compiled", plain.settings, compile=True)
            # By the clock on the wall: much of compiling is done by processes of its own.
            result["compile"] = measure([plain, compiled], replace(job, clock=time.perf_counter), arguments, split=False)
    keep(result, arguments)
    print(markdown(result), end="")


def keep(result: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Write what there is so far; the rest may take long."""
    write_json(arguments.json, result)
    if arguments.markdown:
        arguments.markdown.write_text(markdown(result))


if __name__ == "__main__":
    main()
