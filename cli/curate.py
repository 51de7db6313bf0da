"""``ovs-curate``: the concepts that captions lack, from the captions of images that look alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import typer

from ovskit.cli.command import OvsApp, log, provenance
from ovskit.cli.groups import Common, Compute, Faults, StreamOut
from ovskit.cli.output import StreamOutput, check_stream
from ovskit.core.curate.options import CurateOptions, SearchOptions, VocabularyOptions
from ovskit.core.formats.pairs.options import COLUMNS, ROOT
from ovskit.core.runtime.declared import Effect
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.settings import Options, option

if TYPE_CHECKING:
    from ovskit.core.curate.job import CurateJob

app = OvsApp(
    "ovs-curate",
    examples=[
        ("embeddings first", "ovs-extract --model clip:ViT-B-16/openai --size 224 --pool cls shards/*.tar -o rows.npz"),
        ("then the concepts of every pair", "ovs-curate rows.npz --pairs 'shards/*.tar' -o curated.jsonl"),
        ("why one has the words that it has", "ovs-curate --explain 00000/000000031 curated.jsonl"),
        ("your own concepts", "ovs-curate rows.npz --pairs pairs.jsonl --vocabulary terms.txt"),
        ("against another set, as the paper's authors did", "ovs-curate cc12m.npz --pairs cc12m/ --from cc3m.npz --from-pairs cc3m/"),
        ("one of four parts", "ovs-curate rows.npz --pairs shards/ --shard 0/4 -o part0.jsonl"),
        ("and the parts joined", "ovs-curate --join part*.jsonl -o curated.jsonl"),
        ("a vocabulary from captions", "ovs-curate --mine --pairs shards/ -o terms.txt"),
    ],
)  # fmt: skip


class RowsIn(Faults):
    """Embeddings of images, the pairs that they are of, and perhaps another set to expand them by."""

    inputs: tuple[str, ...] = option(
        (), "Embeddings of images by ovs-extract --pool cls. With --explain and --join: curated files.", argument=True, metavar="ROWS.npz"
    )
    pairs: tuple[str, ...] = option(
        (), "Image-text pairs: tar shards, folders or globs of them, JSONL, COCO captions, TSV, parquet; may be given several times.",
        flag=True, metavar="PATH",
    )  # fmt: skip
    root: str | None = option(None, **ROOT)
    columns: str = option("auto", **COLUMNS)
    from_rows: tuple[str, ...] = option(
        (), "Look for neighbours among these rows instead of the images themselves.", flag="--from", metavar="ROWS.npz",
        environment="never",
        effect=Effect(lambda g: g["expansion"] == "vision", "has no effect with --expansion language, which looks among --caption-rows"),
    )  # fmt: skip
    from_pairs: tuple[str, ...] = option(
        (), "The pairs of the rows of --from or --caption-rows; those of --pairs if not given.", flag=True, metavar="PATH",
        effect=Effect(lambda g: bool(g["from"] or g["caption_rows"]), "has no effect without --from or --caption-rows"),
    )  # fmt: skip
    metadata: tuple[str, ...] = option(
        (), "Which images the rows of clip-retrieval's img_emb_*.npy are of: its metadata_*.parquet, one for each, in the same order.",
        flag=True, metavar="FILE", rare=True,
    )  # fmt: skip
    shard: str | None = option(
        None, "Curate part I of N (from 0) of the rows; auto reads SLURM's array and step variables.", flag=True, metavar="I/N",
        decides=False,
    )  # fmt: skip


class Instead(Options):
    """What is done instead of curating."""

    SECTION: ClassVar[str] = "Instead"

    explain: str | None = option(
        None, "Print why the pair of this key has its words, from curated files.", flag=True, metavar="KEY", environment="never"
    )
    join: bool = option(False, "Join curated files, such as the parts of --shard, into one.", flag=True, environment="never")
    make_index: bool = option(
        False, "Make the index of --index-file and nothing else: for the first task of many.", flag=True, environment="never", rare=True
    )
    mine: bool = option(False, "Write a vocabulary: the nouns that captions of --pairs name often.", flag=True, environment="never")
    min_count: int = option(
        5, "How often a noun must be named.", flag=True, low=1, metavar="N",
        effect=Effect(lambda g: g["mine"], "has no effect without --mine"),
    )  # fmt: skip

    def check(self) -> None:
        """See ``Options``."""
        if (self.explain is not None) + self.join + self.mine + self.make_index > 1:
            raise UsageError("--explain, --join, --mine and --make-index do different things: give one of them")


@app.ovs_command()
def curate(
    ctx: typer.Context,
    source: RowsIn,
    curation: CurateOptions,
    concepts: VocabularyOptions,
    search: SearchOptions,
    instead: Instead,
    out: StreamOut,
    compute: Compute,
    common: Common,
) -> None:
    """Give every image-text pair the concepts that its caption lacks (CoCu).

    Images that look alike are looked for by their embeddings, and the concepts of their captions are ranked by how well they go with the
    image and clustered by what they mean. The output has all of them with their scores, for a trainer to draw from at every step.
    """
    check_stream(out)
    if instead.explain is not None:
        return _explain(instead.explain, source, out)
    if instead.join:
        return _join(source, out)
    if instead.mine:
        return _mine(source, instead, out)

    from ovskit.core.curate.job import CurateInputs, CurateJob
    from ovskit.core.formats.streams.curated import CuratedWriter
    from ovskit.core.runtime.progress import track

    if not source.inputs:
        raise UsageError("name the embeddings of the images, as ovs-extract --pool cls writes them; see ovs-curate --help")
    if instead.make_index and (search.index_file is None or search.index in ("auto", "exact")):
        raise UsageError("--make-index keeps an index: say which, and where, with --index FACTORY and --index-file FILE")
    if not source.pairs:
        raise UsageError("name the pairs that the embeddings are of with --pairs, such as --pairs 'shards/*.tar'")
    failures = source.failures()
    files = CurateInputs(
        source.inputs, source.pairs, source.root, source.columns, source.from_rows, source.from_pairs, source.metadata, source.shard
    )
    with CurateJob(files, curation, concepts, search, failures, compute.device, compute.threads(), track) as job:
        header = job.header(
            lambda previous, spec: provenance(
                ctx, previous, arguments=source.inputs, model=spec.get("model"), model_sha256=spec.get("weights_sha256")
            )
        )
        if instead.make_index:
            return
        output = StreamOutput(out, CuratedWriter, "curating", failures)
        if output.is_there(header):
            return
        output.write(header, job.pairs, at_end=lambda: _report(job), total=len(job))


def _report(job: CurateJob) -> None:
    for line, is_bad in job.report():
        (log.warning if is_bad else log.info)("%s", line)


def _explain(key: str, source: RowsIn, out: StreamOut) -> None:
    from ovskit.core.curate.explanation import explain
    from ovskit.core.formats.streams.curated import CuratedInputs
    from ovskit.core.runtime.output import open_output

    with CuratedInputs(source.inputs or ("-",)) as files:
        keys: list[str] = []
        for pair in files.pairs():
            if pair.key == key:
                with open_output(out.output) as stream:
                    for line in explain(pair, files.header.curation):
                        stream.write(line.encode() + b"\n")
                return
            if len(keys) < 3:
                keys.append(pair.key)
    raise UsageError(f"--explain {key}: no pair has this key; keys are such as {', '.join(keys) or 'none, since there are no pairs'}")


def _join(source: RowsIn, out: StreamOut) -> None:
    from ovskit.core.formats.streams.curated import CuratedInputs, CuratedWriter

    with CuratedInputs(source.inputs or ("-",)) as files:
        output = StreamOutput(out, CuratedWriter, "joining", source.failures())
        if not output.is_there(files.header):
            output.write(files.header, lambda done: (pair for pair in files.pairs() if pair.id not in done))


def _mine(source: RowsIn, instead: Instead, out: StreamOut) -> None:
    from ovskit.core.concepts.mining import mine
    from ovskit.core.formats.pairs.pair_set import PairSet
    from ovskit.core.runtime.output import open_output
    from ovskit.core.runtime.progress import track

    if not source.pairs:
        raise UsageError("--mine reads captions: name them with --pairs, such as --pairs 'shards/*.tar'")
    failures = source.failures()
    pairs = PairSet(source.pairs, root=source.root, columns=source.columns, failures=failures, need_images=False)
    captions = (caption for pair in track(pairs.read(), "mining") for caption in pair.captions)
    terms = mine(captions, min_count=instead.min_count)
    if not terms:
        raise UsageError(f"--mine: no noun is named {instead.min_count} times in these captions: lower --min-count")
    with open_output(out.output) as stream:
        stream.write(f"# {len(terms)} nouns that captions name at least {instead.min_count} times, the most frequent first\n".encode())
        for term, _ in terms:
            stream.write(term.encode() + b"\n")
    failures.report(len(terms))
