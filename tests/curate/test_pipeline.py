"""Curation from end to end: an obvious reference, and what it may not depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovskit.core.curate import neighbours, pipeline
from ovskit.core.curate.job import CurateInputs, CurateJob
from ovskit.core.curate.kernels import unit
from ovskit.core.curate.options import CurateOptions, SearchOptions, VocabularyOptions
from ovskit.core.formats.streams.curated import CuratedPair
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.progress import unwatched
from tests.curate.small_set import WORDS, SmallSet, small_set, write_small_set
from tests.reference.curation import nearest, relevance

MADE = small_set()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_set(tmp_path_factory.mktemp("small"), MADE)


def curated(folder: Path, options: CurateOptions | None = None, search: SearchOptions | None = None, **inputs: object) -> list[CuratedPair]:
    files = CurateInputs((str(folder / "rows.npz"),), (str(folder / "pairs.jsonl"),))._replace(**inputs)  # type: ignore[arg-type]
    concepts = VocabularyOptions(vocabulary=str(folder / "words.txt"), concept_rows=folder / "words.npz")
    failures = Failures(skip=False)
    with CurateJob(files, options or CurateOptions(), concepts, search or SearchOptions(), failures, "cpu", 2, unwatched) as job:
        return list(job.pairs(frozenset()))


def named(caption: str) -> set[str]:
    return {word for word in WORDS if word in caption.split()}


def reference(made: SmallSet, k: int, count: int, *, guided: bool, code: bool, own: bool) -> dict[str, float]:
    """The scores of image k's archive, by name."""
    rows, texts = unit(made.rows), unit(made.texts)
    near, _ = nearest(rows[k], rows, made.names, k, count, 0.999)
    has = [named(made.captions[i]) for i in near]
    listed = sorted(set().union(*has, named(made.captions[k]) if own else set()))
    f = lambda row: {w: float(row.astype(np.float64) @ texts[WORDS.index(w)].astype(np.float64)) for w in listed}  # noqa: E731
    return relevance(f(rows[k]), [f(rows[i]) for i in near], has, guided=guided, code=code) if listed else {}


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(("ranking", "score"), [("guided", "eq8"), ("guided", "code"), ("naive", "eq8")])
def test_it_is_the_reference(folder: Path, ranking: str, score: str, own: bool) -> None:
    options = CurateOptions(neighbours=5, ranking=ranking, score=score, own=own)  # type: ignore[arg-type]
    found = curated(folder, options)
    assert [pair.id for pair in found] == list(range(1, 61))
    for k, pair in enumerate(found):
        assert (pair.key, pair.file_name, pair.captions) == (MADE.names[k].removesuffix(".jpg"), MADE.names[k], (MADE.captions[k],))
        near, cosines = nearest(unit(MADE.rows)[k], unit(MADE.rows), MADE.names, k, 5, 0.999)
        assert [neighbour.key for neighbour in pair.neighbours] == [MADE.names[i].removesuffix(".jpg") for i in near]
        np.testing.assert_allclose([neighbour.similarity for neighbour in pair.neighbours], cosines, atol=1e-6)
        wanted = reference(MADE, k, 5, guided=ranking == "guided", code=score == "code", own=own)
        assert {concept.name: concept.score for concept in pair.concepts} == pytest.approx(wanted, abs=2e-6)
        for concept in pair.concepts:
            assert concept.own == (concept.name in named(MADE.captions[k]))
            assert concept.seen == tuple(i for i, place in enumerate(near) if concept.name in named(MADE.captions[place]))
        clusters = [concept.cluster for concept in pair.concepts]
        assert set(clusters) == set(range(min(3, len(clusters))))


def test_captions_that_are_like_the_image(folder: Path) -> None:
    options = CurateOptions(neighbours=3, expansion="language", caption_rows=(str(folder / "caption_rows.npz"),))
    for k, pair in enumerate(curated(folder, options)):
        near, _ = nearest(unit(MADE.rows)[k], unit(MADE.caption_rows), MADE.names, k, 3)
        assert [neighbour.key for neighbour in pair.neighbours] == [MADE.names[i].removesuffix(".jpg") for i in near]
        assert [concept.score for concept in pair.concepts] == [concept.alignment for concept in pair.concepts]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 30))
def test_the_order_of_rows_and_pairs_changes_nothing_but_the_order(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(60).tolist()
    other = curated(write_small_set(tmp_path_factory.mktemp("other"), MADE, order))
    by_key = {pair.key: pair for pair in curated(folder)}
    assert [pair.key for pair in other] == [MADE.names[k].removesuffix(".jpg") for k in order]
    assert all(replace(pair, id=0) == replace(by_key[pair.key], id=0) for pair in other)


@pytest.mark.parametrize(("batch", "part", "chunk"), [(7, 3, 9), (60, 1, 1000), (1, 8, 16)])
def test_batches_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, batch: int, part: int, chunk: int) -> None:
    whole = curated(folder)
    monkeypatch.setattr(pipeline, "BATCH", batch)
    monkeypatch.setattr(pipeline, "_PART", part)
    monkeypatch.setattr(pipeline, "_LOOKED_UP", part)
    monkeypatch.setattr(neighbours, "CHUNK", chunk)
    assert curated(folder) == whole


def test_another_set_lends_its_concepts_but_not_the_image_itself(folder: Path, tmp_path: Path) -> None:
    write_small_set(tmp_path, MADE, range(10, 40))
    found = curated(folder, from_rows=(str(tmp_path / "rows.npz"),), from_pairs=(str(tmp_path / "pairs.jsonl"),))
    for k, pair in enumerate(found):
        near, _ = nearest(unit(MADE.rows)[k], unit(MADE.rows[10:40]), MADE.names[10:40], k - 10, 8, 0.999)
        assert [neighbour.key for neighbour in pair.neighbours] == [MADE.names[i + 10].removesuffix(".jpg") for i in near]


def test_ten_equal_images_have_no_neighbours_among_themselves(tmp_path: Path) -> None:
    rows = MADE.rows.copy()
    rows[20:30] = rows[20]
    found = curated(write_small_set(tmp_path, MADE._replace(rows=rows)))
    equal = {f"{k:03d}" for k in range(20, 30)}
    assert all(not equal & {neighbour.key for neighbour in pair.neighbours} for pair in found if pair.key in equal)
    same = [[neighbour.key for neighbour in pair.neighbours] for pair in found if pair.key in equal]
    assert all(one == same[0] for one in same)
    kept = curated(tmp_path, CurateOptions(near_duplicates=np.inf))
    first = next(pair for pair in kept if pair.key == "025")
    assert [neighbour.key for neighbour in first.neighbours] == ["020", "021", "022", "023", "024", "026", "027", "028"]


def test_rows_without_a_pair_are_left_out_and_counted(tmp_path: Path) -> None:
    write_small_set(tmp_path, MADE)
    lines = (tmp_path / "pairs.jsonl").read_text().splitlines()
    (tmp_path / "pairs.jsonl").write_text("\n".join(line for line in lines if "007" not in line and "031" not in line))
    files = CurateInputs((str(tmp_path / "rows.npz"),), (str(tmp_path / "pairs.jsonl"),))
    concepts = VocabularyOptions(vocabulary=str(tmp_path / "words.txt"), concept_rows=tmp_path / "words.npz")
    with CurateJob(files, CurateOptions(), concepts, SearchOptions(), Failures(skip=False), "cpu", 1, unwatched) as job:
        keys = [pair.key for pair in job.pairs(frozenset())]
        assert keys == [f"{k:03d}" for k in range(60) if k not in (7, 31)]
        said = dict(job.report())
    assert said["2 rows have no pair, such as 007, 031: they were left out"] is True
    assert said["58 pairs curated with 12 concepts"] is False


def test_rows_and_pairs_of_different_sets_are_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"file_name": "x/1.jpg", "caption": "a cat"}\n')
    with pytest.raises(InputError, match=r"do not belong together: of 60 rows looked at, such as 000, 001, 002, none .* pairs are x/1;"):
        curated(folder, pairs=(str(tmp_path / "other.jsonl"),))
