"""ovs-curate as a person runs it."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.curate.small_set import WORDS, small_set, write_small_set
from tests.rows import write_rows

from .conftest import one_line

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
MADE = small_set()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_set(tmp_path_factory.mktemp("small"), MADE)


def asked(folder: Path, *more: object) -> tuple[object, ...]:
    return (
        folder / "rows.npz",
        "--pairs",
        folder / "pairs.jsonl",
        "--concept-rows",
        folder / "words.npz",
        "--vocabulary",
        folder / "words.txt",
        *more,
    )


@pytest.fixture(scope="module")
def curated(folder: Path, process: Run) -> Path:
    done = process("ovs-curate", *asked(folder, "-o", folder / "curated.jsonl"))
    assert done.returncode == 0
    one_line(done, "similarities of image and concept were not positive, and counted as 1e-6")
    return folder / "curated.jsonl"


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_header_pairs_and_end(curated: Path, folder: Path) -> None:
    header, *pairs, end = lines(curated)
    assert (header["format"], header["root"], header["vocabulary"]["size"]) == ("ovskit.curated/1", str(folder), 12)
    assert header["curation"]["index"] == {"factory": "exact"}
    assert (header["curation"]["neighbours"], header["curation"]["ranking"], header["curation"]["sampling"]) == (8, "guided", "cluster")
    assert header["pg"][-1]["command"].startswith("ovs-curate --pairs ")
    assert end == {"end": 60}
    assert [pair["key"] for pair in pairs] == [f"{k:03d}" for k in range(60)]
    assert [pair["captions"] for pair in pairs] == [[caption] for caption in MADE.captions]


def test_a_pipe_into_the_explanation(folder: Path, curated: Path, ovs: Run) -> None:
    key = next(pair["key"] for pair in lines(curated)[1:-1] if len(pair["concepts"]) > 3)
    out = ovs("ovs-curate", *asked(folder)).stdout
    said = ovs("ovs-curate", "--explain", key, stdin=out).stdout.decode()
    assert said == ovs("ovs-curate", "--explain", key, curated).stdout.decode()
    pair = next(pair for pair in lines(curated)[1:-1] if pair["key"] == key)
    for concept in pair["concepts"]:
        assert f"  {concept['name']}" in said
        assert f"{concept['score']:.4f}" in said
    for neighbour in pair["neighbours"]:
        assert f"{neighbour['similarity']:.4f}  {neighbour['key']}" in said
    assert said.count("\ncluster ") == 3
    shares = [int(word.removesuffix("%")) for word in said.split() if word.endswith("%")]
    assert abs(sum(shares) - 300) <= len(shares)


@pytest.mark.parametrize("count", [2, 4])
def test_shards_join_to_the_same_bytes(folder: Path, curated: Path, ovs: Run, tmp_path: Path, count: int) -> None:
    parts = [tmp_path / f"{k}.jsonl" for k in range(count)]
    for k, part in enumerate(parts):
        done = ovs("ovs-curate", *asked(folder, "--shard", f"{k}/{count}", "-j", k % 2 + 1, "-o", part))
        assert done.returncode == 0, done.stderr
    assert ovs("ovs-curate", "--join", *parts, "-o", tmp_path / "whole.jsonl").returncode == 0
    assert (tmp_path / "whole.jsonl").read_bytes() == curated.read_bytes()
    missing = ovs("ovs-curate", "--join", *parts[1:], *[parts[1]] * (count == 2), "-o", tmp_path / "no.jsonl")
    assert missing.returncode == 65
    assert not (tmp_path / "no.jsonl").exists()


def test_resuming_and_leaving_alone(folder: Path, curated: Path, ovs: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    part = tmp_path / "out.jsonl.part"
    data = curated.read_bytes()
    part.write_bytes(data[: int(0.4 * len(data))])
    assert ovs("ovs-curate", *asked(folder, "--resume", "-o", out)).returncode == 0
    assert (out.read_bytes(), part.exists()) == (data, False)
    stamp = out.stat().st_mtime_ns
    assert ovs("ovs-curate", *asked(folder, "--skip-existing", "-o", out)).returncode == 0
    assert out.stat().st_mtime_ns == stamp
    one_line(ovs("ovs-curate", *asked(folder, "--skip-existing", "-k", 5, "-o", out)), "--skip-existing", "was made by")
    part.write_bytes(data[:1000])
    one_line(ovs("ovs-curate", *asked(folder, "--resume", "-k", 5, "-o", out)), "was begun with other inputs or options")


def test_an_index_and_its_recall_are_in_the_header(folder: Path, curated: Path, ovs: Run, tmp_path: Path) -> None:
    first = ovs("ovs-curate", *asked(folder, "--index", "IVF4,SQ8", "--index-file", tmp_path / "i", "--recall", 1, "-v"))
    assert first.returncode == 0, first.stderr
    assert b"finds 1.0000 of the 8 nearest of 60 rows" in first.stderr
    again = ovs("ovs-curate", *asked(folder, "--index", "IVF4,SQ8", "--index-file", tmp_path / "i", "--recall", 1))
    assert again.stdout == first.stdout
    header = json.loads(first.stdout.splitlines()[0])
    assert header["curation"]["index"] == {"factory": "IVF4,SQ8", "nprobe": 4, "recall": 1.0}
    assert first.stdout.splitlines()[1:] == curated.read_bytes().splitlines()[1:]


def tar_of(path: Path, images: Path) -> Path:
    """Two samples a scene, of captions in text and in JSON."""
    with tarfile.open(path, "w") as tar:
        for k, image in enumerate(sorted(images.iterdir())):
            for name, data in (
                (f"{k:04d}.png", image.read_bytes()),
                (f"{k:04d}.txt", f"a dog\nand {('grass', 'snow')[k % 2]}".encode())
                if k % 2
                else (f"{k:04d}.json", b'{"caption": "two dogs, a sofa"}'),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def test_from_tars_to_concepts_with_the_default_vocabulary(images: Path, process: Run, shell: Run, tmp_path: Path) -> None:
    from ovskit.core.concepts.vocabulary import default_vocabulary

    tar_of(tmp_path / "00000.tar", images)
    tar_of(tmp_path / "00001.tar", images)
    done = process(
        "ovs-extract", tmp_path / "00000.tar", tmp_path / "00001.tar", "--size", 64, "--pool", "cls", "-o", tmp_path / "rows.npz"
    )
    assert done.returncode == 0, done.stderr
    names = default_vocabulary().names
    np.savez(tmp_path / "words.npz", names=np.array(names), rows=np.random.default_rng(0).normal(size=(len(names), 128)))
    line = f"cd {tmp_path} && ovs-curate rows.npz --pairs '*.tar' --concept-rows words.npz --near-duplicates inf | tee c.jsonl | tail -n 1"
    done = shell(line)
    assert (done.returncode, done.stdout) == (0, b'{"end":10}\n')
    pairs = lines(tmp_path / "c.jsonl")[1:-1]
    assert [pair["key"] for pair in pairs] == [f"{tar}/{k:04d}" for tar in ("00000", "00001") for k in range(5)]
    assert pairs[1]["captions"] == ["a dog\nand snow"]
    assert {c["name"] for c in pairs[1]["concepts"] if c["own"]} == {"dog", "snow"}
    assert {c["name"] for c in pairs[0]["concepts"] if c["own"]} == {"dog", "sofa"}
    # One tar alone has the same keys.
    one = process("ovs-extract", tmp_path / "00001.tar", "--size", 64, "--pool", "cls", "-o", tmp_path / "one.npz")
    assert one.returncode == 0
    done = process("ovs-curate", tmp_path / "one.npz", "--pairs", tmp_path, "--concept-rows", tmp_path / "words.npz")
    assert [json.loads(row)["key"] for row in done.stdout.splitlines()[1:-1]] == [f"00001/{k:04d}" for k in range(5)]


def test_a_vocabulary_is_mined(ovs: Run, tmp_path: Path) -> None:
    captions = ["two dogs on the grass"] * 4 + ["a dog's tennis ball"] * 3 + ["a woman and a man"] * 2
    (tmp_path / "pairs.jsonl").write_text(
        "".join(json.dumps({"file_name": f"{k}.jpg", "caption": c}) + "\n" for k, c in enumerate(captions))
    )
    done = ovs("ovs-curate", "--mine", "--pairs", tmp_path / "pairs.jsonl", "--min-count", 3, "-o", tmp_path / "terms.txt")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "terms.txt").read_text().splitlines()[1:] == ["dog", "grass", "tennis ball"]
    rare = ovs("ovs-curate", "--mine", "--pairs", tmp_path / "pairs.jsonl", "--min-count", 30)
    assert rare.returncode == 2
    one_line(rare, "no noun is named 30 times", "lower --min-count")


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    """Files that do not fit ``folder``'s, each in one way."""
    rows = MADE.rows.copy()
    rows[3, 3] = np.nan
    write_rows(tmp_path / "nan.npz", MADE.names, rows)
    write_rows(tmp_path / "narrow.npz", MADE.names, rows[:, :20])
    write_rows(tmp_path / "others.npz", [f"x/{name}" for name in MADE.names], MADE.rows)
    write_rows(tmp_path / "clip.npz", MADE.names, MADE.rows, model={"model": "clip:ViT-B-16/openai"})
    data = (folder / "rows.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    np.savez(tmp_path / "few.npz", names=np.array(WORDS[:5]), rows=MADE.texts[:5])
    np.savez(tmp_path / "pickle.npz", names=np.array([{}] * 2, dtype=object), rows=MADE.texts[:2])
    np.savez(tmp_path / "zero.npz", names=np.array(WORDS), rows=MADE.texts * 0)
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with tarfile.open(tmp_path / "whole.tar", "w") as tar:
        for name in ("000.jpg", "000.txt"):
            member = tarfile.TarInfo(name)
            member.size = 900
            tar.addfile(member, io.BytesIO(b"a" * 900))
    (tmp_path / "cut.tar").write_bytes((tmp_path / "whole.tar").read_bytes()[:1500])
    return tmp_path


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ((), 2, ["ovs-extract --pool cls"]),
        (("{f}/rows.npz",), 2, ["--pairs"]),
        (("{t}/nowhere.npz", "{p}", "{w}", "{v}"), 66, ["nowhere.npz"]),
        (("{t}/cut.npz", "{p}", "{w}", "{v}"), 65, ["not a whole feature stream"]),
        (("{t}/nan.npz", "{p}", "{w}", "{v}"), 65, ["003.jpg holds infinities or NaN"]),
        (("{t}/narrow.npz", "{p}", "{w}", "{v}"), 65, ["rows of 24 numbers, and the images' have 20"]),
        (("{t}/others.npz", "{p}", "{w}", "{v}"), 65, ["do not belong together", "x/000", "pairs are 000, 001, 002"]),
        (("{f}/rows.npz", "{p}", "{v}"), 65, ["model description is incomplete"]),
        (("{f}/rows.npz", "{p}", "--concept-rows={t}/few.npz", "{v}"), 65, ["no row for 7 of 12 concepts, such as "]),
        (("{f}/rows.npz", "{p}", "--concept-rows={t}/pickle.npz", "{v}"), 65, ["not a .npz with the arrays names"]),
        (("{f}/rows.npz", "{p}", "--concept-rows={t}/zero.npz", "{v}"), 65, ["a row of zeros"]),
        (("{f}/rows.npz", "{p}", "--concept-rows={t}/gone.npz", "{v}"), 66, ["no such file"]),
        (("{f}/rows.npz", "{p}", "--concept-rows={f}/words.txt", "{v}"), 65, ["not a .npz"]),
        (("{f}/rows.npz", "{p}", "{w}", "--vocabulary={t}/empty.txt"), 65, ["has no term"]),
        (("{f}/rows.npz", "{p}", "{w}", "--vocabulary=voc-22"), 2, ["voc-22", "voc-21"]),
        (("{f}/rows.npz", "--pairs={t}/cut.tar", "{w}", "{v}"), 65, ["cut.tar"]),
        (("{f}/rows.npz", "--pairs={t}/nothing", "{w}", "{v}"), 66, ["nothing"]),
        (("{f}/rows.npz", "{p}", "{w}", "{v}", "--shard=4/4"), 2, ["--shard 4/4"]),
        (("{f}/rows.npz", "{p}", "{w}", "{v}", "--index=Nonsense"), 2, ["--index Nonsense", "faiss"]),
        (("{f}/rows.npz", "{p}", "{w}", "{v}", "--expansion=language"), 2, ["--caption-rows"]),
        (("{f}/rows.npz", "{p}", "{w}", "{v}", "--from-pairs=x"), 2, ["has no effect without --from"]),
        (("{f}/rows.npz", "{p}", "{w}", "{v}", "--from={t}/clip.npz"), 65, ["of another model"]),
        (("{f}/rows.npz", "{p}", "{w}", "{v}", "--template=a {}"), 2, ["has no effect with --concept-rows"]),
        (("{f}/rows.npz", "{p}", "{v}", "--template=none"), 2, ["write {{}} once"]),
        (("--explain=999", "{f}/curated.jsonl"), 2, ["--explain 999", "such as 000, 001, 002"]),
        (("--explain=001", "{f}/rows.npz"), 65, ["not a curated stream"]),
        (("--explain=001", "--join"), 2, ["give one of them"]),
        (("--min-count=3", "{f}/rows.npz", "{p}"), 2, ["has no effect without --mine"]),
        (("--mine",), 2, ["--pairs"]),
        (("{f}/rows.npz", "{p}", "{w}", "{v}", "--make-index"), 2, ["--index FACTORY and --index-file FILE"]),
    ],
)
def test_what_does_not_fit_is_one_line(
    folder: Path, curated: Path, broken: Path, ovs: Run, change: tuple[str, ...], code: int, said: list[str]
) -> None:
    assert curated.is_file()
    short = {"{p}": f"--pairs={folder}/pairs.jsonl", "{w}": f"--concept-rows={folder}/words.npz", "{v}": f"--vocabulary={folder}/words.txt"}
    given = [short.get(word, word.replace("{f}", str(folder)).replace("{t}", str(broken))) for word in change]
    done = ovs("ovs-curate", *given, "-o", broken / "out.jsonl")
    assert done.returncode == code, done.stderr
    one_line(done, *(word.replace("{{}}", "{}") for word in said))
    assert not (broken / "out.jsonl").exists()
    assert not list(broken.glob(".out*"))


def test_a_tar_that_cannot_be_used_is_skipped_if_asked(images: Path, folder: Path, ovs: Run, tmp_path: Path) -> None:
    tar_of(tmp_path / "good.tar", images)
    (tmp_path / "bad.tar").write_bytes((tmp_path / "good.tar").read_bytes()[:700])
    names = [f"{tar}.tar/{k:04d}.png" for tar in ("bad", "good") for k in range(5)]
    write_rows(tmp_path / "rows.npz", names, MADE.rows[:10], root=str(tmp_path))
    more = ("--concept-rows", folder / "words.npz", "--vocabulary", folder / "words.txt")
    done = ovs("ovs-curate", tmp_path / "rows.npz", "--pairs", tmp_path / "*.tar", *more, "--on-error", "skip")
    assert done.returncode == 3
    assert b"bad.tar" in done.stderr
    assert done.stdout.splitlines()[-1] == b'{"end":5}'


def test_one_concept_and_an_archive_of_one(folder: Path, ovs: Run) -> None:
    done = ovs("ovs-curate", *asked(folder, "--vocabulary", "dog,"))
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()[1:-1]]
    assert {concept["name"] for pair in found for concept in pair["concepts"]} == {"dog"}
    assert b"pairs have no concept: a training step sees their captions alone" in done.stderr


def test_captions_without_a_concept_stay_alone(folder: Path, ovs: Run) -> None:
    done = ovs("ovs-curate", *asked(folder, "--vocabulary", "dog,more", "-k", 1))
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()[1:-1]]
    empty = [pair for pair in found if not pair["concepts"]]
    assert len(found) == 60
    assert f"{len(empty)} pairs have no concept".encode() in done.stderr
    said = ovs("ovs-curate", "--explain", empty[0]["key"], stdin=done.stdout).stdout.decode()
    assert "no concepts: neither its captions nor its neighbours' name one of the vocabulary" in said
    assert " ".join(empty[0]["captions"][0].split()) in said


def test_rows_of_clip_retrieval(folder: Path, curated: Path, ovs: Run, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra: parquet)")
    from pyarrow import parquet

    for k, part in enumerate((slice(0, 25), slice(25, 60))):
        np.save(tmp_path / f"img_emb_{k}.npy", MADE.rows[part])
        columns = {"image_path": MADE.names[part], "caption": MADE.captions[part]}
        parquet.write_table(arrow.table(columns), tmp_path / f"metadata_{k}.parquet")
    lists = [word for k in (0, 1) for word in ("--metadata", tmp_path / f"metadata_{k}.parquet")]
    pairs = [word for k in (0, 1) for word in ("--pairs", tmp_path / f"metadata_{k}.parquet")]
    matrices = [tmp_path / f"img_emb_{k}.npy" for k in (0, 1)]
    words = ("--vocabulary", folder / "words.txt")
    done = ovs("ovs-curate", *matrices, *lists, *pairs, "--concept-rows", folder / "words.npz", *words)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()[1:]] == lines(curated)[1:]
    without = ovs("ovs-curate", *matrices, *lists, *pairs, *words)
    assert without.returncode == 2
    one_line(without, "does not say which model", "--concept-rows")


# Words of a CLIP, in this process: no published model is small enough, and another process does not know ours.


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of ``clip:ovskit-curate``, a whole small CLIP."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("tower")
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    (folder / "ovskit-curate.json").write_text(json.dumps({"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(folder / "ovskit-curate.json")
    for seed, name in ((0, "w.safetensors"), (1, "other.safetensors")):
        torch.manual_seed(seed)
        network = open_clip.create_model("ovskit-curate")
        save_file({key: value.clone() for key, value in network.state_dict().items()}, folder / name)
    return folder / "w.safetensors"


def here(tool: str, *arguments: object) -> int:
    from importlib import import_module

    app = import_module(f"ovskit.cli.{tool}").app
    found = app.click_command().main(list(map(str, arguments)), prog_name=f"ovs-{tool}", standalone_mode=False)
    return int(found or 0)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's cache, for this process, in a folder of its own."""
    from ovskit.core.runtime.cache_folder import own_folder

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    own_folder.cache_clear()
    yield tmp_path / "cache"
    own_folder.cache_clear()


def test_two_towers(images: Path, tower: Path, tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pairs.jsonl").write_text(
        "".join(json.dumps({"file_name": path.name, "caption": "a dog and a cat"}) + "\n" for path in sorted(images.iterdir()))
    )
    rows = tmp_path / "rows.npz"
    model = ("--model", "clip:ovskit-curate", "--weights", tower)
    assert here("extract", images, *model, "--size", 32, "--pool", "cls", "-o", rows) == 0
    asked = (rows, "--pairs", tmp_path / "pairs.jsonl", "--root", images, "--vocabulary", "dog,cat,sky", "--weights", tower)
    assert here("curate", *asked, "-o", tmp_path / "a.jsonl") == 0
    kept = list(cache.rglob("concepts/*.npz"))
    assert len(kept) == 1
    assert here("curate", *asked, "-o", tmp_path / "b.jsonl") == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    first = lines(tmp_path / "a.jsonl")[1]
    assert [concept["name"] for concept in first["concepts"] if concept["own"]] == [c["name"] for c in first["concepts"]]
    # The rows are those of the text tower, in the template.
    import torch

    from ovskit.core.formats.streams.row_files import RowFiles
    from ovskit.core.models.backbones.interface import BackboneSpec
    from ovskit.core.models.registry import load_text

    with RowFiles([str(rows)]) as files:
        spec = BackboneSpec.from_json(files.header.model)
        image = files.take(np.array([0]))[0]
    text = load_text(spec, weights=tower, device=torch.device("cpu")).embed(["a photo of a cat"])[0]
    wanted = max(1e-6, float(image @ text / np.linalg.norm(image) / np.linalg.norm(text)))
    assert next(c["alignment"] for c in first["concepts"] if c["name"] == "cat") == pytest.approx(wanted, abs=1e-6)
    assert here("curate", *asked, "--template", "a drawing of a {}", "-o", tmp_path / "c.jsonl") == 0
    assert len(list(cache.rglob("concepts/*.npz"))) == 2
    capfd.readouterr()
    other = (*asked[:-1], tower.parent / "other.safetensors", "--template", "{}")
    assert here("curate", *other, "-o", tmp_path / "d.jsonl") == 65
    assert "the rows were made by clip:ovskit-curate with weights sha256" in capfd.readouterr().err


def test_rows_of_a_model_without_words(images: Path, ovs: Run, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"file_name": "scene-0.png", "caption": "a dog"}\n')
    assert ovs("ovs-extract", images, "--size", 64, "--pool", "cls", "-o", tmp_path / "rows.npz").returncode == 0
    done = ovs("ovs-curate", tmp_path / "rows.npz", "--pairs", tmp_path / "pairs.jsonl")
    assert done.returncode == 2
    one_line(done, "builtin", "knows no words", "clip:ARCH/TAG", "--concept-rows")


def test_weights_that_cannot_be_had(folder: Path, ovs: Run, tmp_path: Path) -> None:
    from ovskit.core.models.backbones.interface import BackboneSpec

    spec = BackboneSpec(
        "clip:ViT-B-16/openai", "clip:ViT-B-16/openai", "key", -1, 16, 768, True, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", "0" * 64
    )
    write_rows(tmp_path / "clip.npz", MADE.names, MADE.rows, model=spec.to_json())
    done = ovs("ovs-curate", tmp_path / "clip.npz", "--pairs", folder / "pairs.jsonl")
    assert done.returncode == 69
    one_line(done, "clip:ViT-B-16/openai", "--weights")
