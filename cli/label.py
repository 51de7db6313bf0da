"""``ovs-label``: categories for masks, by clusters or by names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ovskit.cli import images as img
from ovskit.cli import options as opt
from ovskit.cli.command import OvsApp, log, provenance
from ovskit.cli.existing import is_there
from ovskit.cli.label_inputs import Settings, Wish, backbone_of, crop_of, split_inputs
from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from ovskit.core.formats.streams.masks import MasksHeader
    from ovskit.core.label.mask_vectors import LookOptions, MaskVectors
    from ovskit.core.models.backbone import Backbone
    from ovskit.core.records import MaskSet
    from ovskit.core.runtime.failures import Failures

app = OvsApp(
    "ovs-label",
    examples=[
        ("twenty clusters of masks, seen as their features were", "ovs-cluster keys.npz | ovs-label --clusters 20 keys.npz > out.json"),
        ("clusters scored against ground truth", "ovs-label --clusters 9 masks.json | ovs-eval --metric miou --match hungarian --gt maps/"),
        ("clusters to be kept", "ovs-label --clusters 20 --save clusters.npz masks.json -o labelled.json"),
        ("and given to new images", "ovs-cluster new.npz | ovs-label --from clusters.npz > new.json"),
        ("names of PASCAL VOC", "ovs-label --names voc-20 --model clip:ViT-B-16/openai masks.json -o named.json"),
        ("your own, the three best of each mask", "ovs-label --names cat,dog,sky --top-k 3 --model clip:ViT-B-16/openai masks.json"),
        ("background where nothing fits", "ovs-label --names voc-21 --min-prob 0.5 --model clip:ViT-B-16/openai masks.json"),
    ],
)  # fmt: skip


class Score(StrEnum):
    """What a named mask's score says."""

    keep = "keep"
    label = "label"
    product = "product"


@app.ovs_command()
def label(
    ctx: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MASKS.json",
            help="A masks stream or any COCO file; several are joined; - (the default) is stdin. A feature stream (.npz) among them says "
            "which model to look with.",
        ),
    ] = None,
    clusters: Annotated[
        int | None, typer.Option("--clusters", min=1, metavar="K", help="Make K clusters of all masks; categories are 1 to K.")
    ] = None,
    centroids: Annotated[
        str | None, typer.Option("--from", metavar="CENTROIDS.npz", help="Take the clusters that --save kept; one pass is enough.")
    ] = None,
    names: Annotated[
        str | None,
        typer.Option("--names", metavar="SPACE", help="Name masks by a label space: voc-21, a file, or cat,dog,sky. CLIP only."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            show_default="the features' or the centroids', else builtin",
            help="What looks at the masks: builtin, dino-vitb8, clip:ARCH/TAG …; see ovs-extract --list-models.",
        ),
    ] = None,
    weights: opt.Weights = None,
    size: Annotated[
        int | None,
        typer.Option("--size", min=8, max=4096, metavar="N", show_default="the model's own", help="Crops are resized to N×N."),
    ] = None,
    context: Annotated[
        float | None,
        typer.Option(
            "--context", min=0.0, max=10.0, metavar="SHARE", show_default="0.1", help="Widen a mask's box on each side by this share of it."
        ),
    ] = None,
    mask_crop: Annotated[
        bool | None,
        typer.Option("--mask-crop/--no-mask-crop", show_default="no-mask-crop", help="Paint over what is in the box and not of the mask."),
    ] = None,
    save: Annotated[str | None, typer.Option("--save", metavar="CENTROIDS.npz", help="Also write the centroids, for --from.")] = None,
    restarts: Annotated[int, typer.Option("--restarts", min=1, metavar="N", help="Runs of k-means, of which the best is taken.")] = 10,
    iterations: Annotated[int, typer.Option("--iterations", min=1, metavar="N", help="Steps of each run of k-means.")] = 50,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Of k-means.")] = 0,
    top_k: Annotated[
        int | None, typer.Option("--top-k", min=1, metavar="N", help="List the N best names of each mask, with their probabilities.")
    ] = None,
    min_prob: Annotated[
        float | None,
        typer.Option("--min-prob", min=0.0, max=1.0, metavar="P", help="A mask whose best name is less probable is background."),
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Leave such masks out instead.")] = False,
    score: Annotated[
        Score, typer.Option("--score", help="A named mask's score: keep it, make it the name's probability, or the product of both.")
    ] = Score.keep,
    batch_size: Annotated[
        str, typer.Option("--batch-size", metavar="N|auto", help="Crops per pass; auto halves what does not fit.")
    ] = "auto",
    root: opt.Root = None,
    exif: opt.Exif = None,
    max_pixels: opt.MaxPixels = 178_956_970,
    on_error: opt.OnErrorOption = opt.OnError.fail,
    output: opt.Output = "-",
    resume: opt.Resume = False,
    skip_existing: opt.SkipExisting = False,
    device: opt.Device = "auto",
    workers: opt.Workers = None,
    no_pg: opt.NoPg = False,
    config: opt.Config = None,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = 0,
    version: opt.Version = False,
) -> None:
    """Give every mask a category: the cluster of its looks, or a name.

    A mask is cut out by its box, and a frozen model makes one vector of it. With --clusters the masks are read twice, and a pipe is
    copied to a temporary file meanwhile. With --names the class whose words are nearest is taken, and label_score is its probability.
    """
    if (clusters, centroids, names).count(None) != 2:
        raise UsageError("say how to label, in one way: --clusters K, --from CENTROIDS.npz or --names SPACE")
    if save is not None and clusters is None:
        raise UsageError("--save keeps the centroids of --clusters; give both")
    if names is None and (top_k is not None or min_prob is not None or drop or score is not Score.keep):
        raise UsageError("--top-k, --min-prob, --drop and --score belong to --names")
    if drop and min_prob is None:
        raise UsageError("--drop leaves out masks below --min-prob: give both")
    batch = img.parse_batch(batch_size)

    from ovskit.core.runtime.output import check_output, same_file

    if save is not None and (save == "-" or any(same_file(save, path) for path in (output, *(inputs or [])))):
        raise UsageError("--save needs a file of its own, other than the masks' and what is read")
    if centroids is not None and same_file(output, centroids):
        raise UsageError(f"-o {output} is the file of --from: masks would take its place; name another file")
    check_output(output, binary=False, resume=resume, pg=not no_pg)
    if save is not None:
        check_output(save, binary=True)
    masks, features = split_inputs(inputs or [])
    if centroids == "-" and "-" in masks:
        raise UsageError("stdin (-) can be read once only: name a file for --from, or for the masks")
    wish = Wish(model, weights, size, context, mask_crop, device)
    skip = skip_existing and (save is None or os.path.isfile(save))
    settings = Settings(output, resume, skip, on_error, root, batch, workers, max_pixels, features, exif)
    if names is not None:
        _by_names(ctx, settings, wish, masks, names, top_k=top_k, min_prob=min_prob, drop=drop, score=score)
    elif centroids is not None:
        _from_centroids(ctx, settings, wish, masks, centroids)
    else:
        assert clusters is not None
        _by_clusters(ctx, settings, wish, masks, clusters, save, seed=seed, restarts=restarts, iterations=iterations)


def _by_names(
    ctx: typer.Context,
    settings: Settings,
    wish: Wish,
    masks: list[str],
    names: str,
    *,
    top_k: int | None,
    min_prob: float | None,
    drop: bool,
    score: Score,
) -> None:
    from ovskit.core.formats.labels.spaces import open_label_space
    from ovskit.core.formats.streams.mask_inputs import MaskInputs
    from ovskit.core.models.names import CLIP
    from ovskit.core.runtime.failures import Failures
    from ovskit.core.runtime.progress import track

    space = open_label_space(names)
    if min_prob is not None and not drop and space.background is None:
        raise UsageError(f"--min-prob: the label space {space.name} has no background to give to such masks; add --drop to leave them out")
    known = wish.model or (None if settings.features is None else str(settings.features.model.get("model", "")))
    if known is None or not known.startswith(CLIP):
        looks = "" if known is None else f", and {known} knows none"
        raise UsageError(f"--names needs a model that knows words{looks}: give --model clip:ARCH/TAG, such as clip:ViT-B-16/openai")

    from ovskit.core.label.words import NameOptions, name_categories, read_words, with_names

    options = NameOptions(top_k, min_prob or 0.0, drop, score.value)
    failures = Failures(skip=settings.on_error is opt.OnError.skip)
    with MaskInputs(masks, failures) as opened:
        settings.where(opened.header)  # before weights are looked for
        backbone = backbone_of(wish, settings.features)
        labels = {"name": space.name, "version": space.version, "hash": space.hash}
        new = replace(opened.header, description="masks named by ovs-label", categories=name_categories(space), labels=labels)
        if _is_there(ctx, settings, new, backbone):
            return

        from ovskit.core.models.clip_text import load_clip_text

        text = load_clip_text(backbone.spec, weights=wish.weights, device=backbone.device)
        words = read_words(space, text, lambda classes: track(classes, "reading names", total=len(space.classes)))
        del text
        look = settings.look(crop_of(wish, backbone), opened.header)

        def named(done: frozenset[int]) -> Iterator[MaskSet]:
            for each in _looked(opened.sets(), backbone, look, failures, done):
                yield with_names(each.masks, each.vectors, words, options)

        _write(ctx, settings, new, backbone, named, failures)


def _from_centroids(ctx: typer.Context, settings: Settings, wish: Wish, masks: list[str], path: str) -> None:
    from ovskit.core.formats.paths import show_path
    from ovskit.core.formats.streams.centroids import load_centroids
    from ovskit.core.formats.streams.mask_inputs import MaskInputs
    from ovskit.core.label import clusters as by
    from ovskit.core.runtime.errors import InputError
    from ovskit.core.runtime.failures import Failures

    what = show_path(path)
    said, found = load_centroids(path)
    crop, _ = by.crop_of(said, what), by.spec_of(said, what)
    if list(found) != [by.NAME]:
        raise InputError(f"{what}: it has no centroids of masks")
    by.check_same_crops(crop, size=wish.size, context=wish.context, masked=wish.masked, what=what)
    failures = Failures(skip=settings.on_error is opt.OnError.skip)
    with MaskInputs(masks, failures) as opened:
        settings.where(opened.header)
        if settings.features is not None:
            by.check_same_model(said, settings.features.model, what)
        backbone = backbone_of(wish, None, said.get("model"))
        by.check_same_model(said, backbone.spec.to_json(), what)
        centroids = found[by.NAME]
        new = _clustered(opened.header, len(centroids.rows))
        if _is_there(ctx, settings, new, backbone):
            return
        look = settings.look(crop, opened.header)

        def labelled(done: frozenset[int]) -> Iterator[MaskSet]:
            for each in _looked(opened.sets(), backbone, look, failures, done):
                yield by.with_clusters(each.masks, each.vectors, centroids)

        _write(ctx, settings, new, backbone, labelled, failures)


def _by_clusters(
    ctx: typer.Context,
    settings: Settings,
    wish: Wish,
    masks: list[str],
    count: int,
    save: str | None,
    *,
    seed: int,
    restarts: int,
    iterations: int,
) -> None:
    from ovskit.core.formats.streams.centroids import save_centroids
    from ovskit.core.label import clusters as by
    from ovskit.core.label.rereadable import RereadableMasks
    from ovskit.core.label.vector_store import VectorStore
    from ovskit.core.models.kmeans import KMeansOptions, fit
    from ovskit.core.runtime.failures import Failures
    from ovskit.core.runtime.progress import track

    failures = Failures(skip=settings.on_error is opt.OnError.skip)
    with RereadableMasks(masks, failures) as opened, VectorStore() as store:
        settings.where(opened.header)
        backbone = backbone_of(wish, settings.features)
        new = _clustered(opened.header, count)
        if _is_there(ctx, settings, new, backbone):
            return
        crop = crop_of(wish, backbone)
        look = settings.look(crop, opened.header)
        if opened.spooled:
            log.warning("--clusters reads masks twice; those of a pipe are copied to a temporary file")
        collected = by.Collected(store)
        for _ in track(collected.collect(_looked(opened.first(), backbone, look, failures)), "looking"):
            pass
        rows = collected.rows(count)
        options = KMeansOptions(count, "cosine", iterations, restarts, seed)
        centroids = fit(rows, options, device=backbone.device)
        if save is not None:
            kept = {**by.about(backbone.spec, crop), "pg": _pg(ctx, opened.header, backbone)}
            save_centroids(save, {by.NAME: centroids}, kept)

        def labelled(done: frozenset[int]) -> Iterator[MaskSet]:
            for each in collected.again(opened.second(), done):
                yield by.with_clusters(each.masks, each.vectors, centroids)

        _write(ctx, settings, new, backbone, labelled, failures)


def _clustered(header: MasksHeader, count: int) -> MasksHeader:
    from ovskit.core.label.clusters import cluster_categories

    return replace(header, description="masks clustered by ovs-label", categories=cluster_categories(count), labels=None)


def _looked(
    sets: Iterable[MaskSet], backbone: Backbone, look: LookOptions, failures: Failures, done: frozenset[int] = frozenset()
) -> Iterator[MaskVectors]:
    """The vectors of every image's masks; says how many masks have no pixel, and are left out."""
    from ovskit.core.label.mask_vectors import look_at_masks

    empty = 0

    def counted() -> Iterator[MaskSet]:
        nonlocal empty
        for masks in sets:
            empty += sum(mask.area == 0 for mask in masks.masks)
            yield masks

    yield from look_at_masks(counted(), backbone, look, failures, done=done)
    if empty:
        log.warning("left out %s without a pixel", "1 mask" if empty == 1 else f"{empty:,} masks")


def _pg(ctx: typer.Context, header: MasksHeader, backbone: Backbone) -> list[dict[str, Any]]:
    spec = backbone.spec
    return provenance(ctx, header.pg, arguments=ctx.params.get("inputs") or [], model=spec.model, model_sha256=spec.weights_sha256)


def _with_provenance(ctx: typer.Context, settings: Settings, header: MasksHeader, backbone: Backbone) -> MasksHeader:
    return replace(header, pg=_pg(ctx, header, backbone), root=settings.where(header), exif=settings.exif or header.exif)


def _is_there(ctx: typer.Context, settings: Settings, header: MasksHeader, backbone: Backbone) -> bool:
    """Whether nothing is to be done, since the output is there."""
    return settings.skip_existing and is_there(settings.output, _with_provenance(ctx, settings, header, backbone))


def _write(ctx: typer.Context, settings: Settings, header: MasksHeader, backbone: Backbone, labelled: Any, failures: Failures) -> None:
    """The output, from what ``labelled`` gives for the images that are not done yet."""
    from ovskit.core.formats.streams.masks import MasksWriter
    from ovskit.core.runtime.output import open_output, part_path
    from ovskit.core.runtime.progress import track

    new = _with_provenance(ctx, settings, header, backbone)
    done: set[int] = set()
    with open_output(settings.output, resume=settings.resume) as out:
        if settings.resume:
            writer, done = MasksWriter.resume(out, new, str(part_path(settings.output)))
            log.info("resuming: %d images are done", len(done))
        else:
            writer = MasksWriter(out, new)
        finished, written = len(done), len(done)
        for result in track(labelled(frozenset(done)), "labelling"):
            writer.write(result)
            finished, written = finished + 1, written + len(result.masks)
        writer.finish()
    if not written:
        log.warning("the output has no masks")
    failures.report(finished)
