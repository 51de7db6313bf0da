from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.shard import Shard, join_shards, parse_shard, shard_of


@given(st.lists(st.integers(), max_size=50), st.integers(1, 9))
def test_shards_partition_the_input(items: list[int], count: int) -> None:
    parts = [list(Shard(k, count).pick(items)) for k in range(count)]
    woven = [parts[k % count][k // count] for k in range(len(items))]
    assert woven == items
    assert sum(map(len, parts)) == len(items)


@pytest.mark.parametrize("text", ["3/2", "2/2", "-1/2", "1", "a/b", "1/0", "1/2/3", "", " 0/1", "0.5/1"])
def test_bad_shards_say_the_valid_form(text: str) -> None:
    with pytest.raises(UsageError, match=r"I/N|shards count from zero"):
        parse_shard(text)


def test_no_shard_is_everything() -> None:
    assert list(parse_shard(None).pick([1, 2, 3])) == [1, 2, 3]


def test_auto_combines_array_and_step_tasks() -> None:
    # sbatch --array=0-6:2 (4 tasks), srun -n 3: twelve shards
    seen = set()
    for task in (0, 2, 4, 6):
        for rank in range(3):
            environ = {
                "SLURM_ARRAY_TASK_ID": str(task),
                "SLURM_ARRAY_TASK_MIN": "0",
                "SLURM_ARRAY_TASK_MAX": "6",
                "SLURM_ARRAY_TASK_STEP": "2",
                "SLURM_ARRAY_TASK_COUNT": "4",
                "SLURM_PROCID": str(rank),
                "SLURM_STEP_NUM_TASKS": "3",
            }
            shard = parse_shard("auto", environ)
            assert shard.count == 12
            seen.add(shard.index)
    assert seen == set(range(12))


def test_auto_with_tasks_only_and_array_only() -> None:
    assert parse_shard("auto", {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4"}) == Shard(1, 4)
    assert parse_shard("auto", {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}) == Shard(3, 8)


@pytest.mark.parametrize(
    "environ", [{}, {"SLURM_PROCID": "x"}, {"SLURM_PROCID": "4", "SLURM_STEP_NUM_TASKS": "2"}, {"SLURM_ARRAY_TASK_ID": "9"}]
)
def test_auto_outside_slurm_or_with_nonsense_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="--shard auto"):
        parse_shard("auto", environ)


def array(spec: str, task: int) -> dict[str, str]:
    """What SLURM sets for a task of ``sbatch --array=spec``: the step is that of the text, the rest counts indices."""
    indices: set[int] = set()
    for part in spec.split(","):
        span, _, step = part.partition(":")
        begin, _, end = span.partition("-")
        indices |= set(range(int(begin), int(end or begin) + 1, int(step or 1)))
    step = (spec.partition(":")[2] or "1").partition(",")[0]
    numbers = {"ID": task, "COUNT": len(indices), "MIN": min(indices), "MAX": max(indices), "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(number) for name, number in numbers.items()}


@pytest.mark.parametrize(
    ("spec", "task", "shard"),
    [("0-3", 2, "2/4"), ("1-4", 4, "3/4"), ("0-6:3", 3, "1/3"), ("1-7:2", 7, "3/4"), ("0", 0, "0/1"), ("0,1,2", 1, "1/3")],
)
def test_a_whole_array_counts_from_its_first_index(spec: str, task: int, shard: str) -> None:
    assert str(parse_shard("auto", array(spec, task))) == shard


@pytest.mark.parametrize(
    ("spec", "task"), [("2", 2), ("1,3", 3), ("0,2", 0), ("2-3", 2), ("0-1,3", 3), ("10-16:2", 12), ("0-4:2,5", 5), ("0-3", 4), ("1-3", 0)]
)
def test_a_part_of_an_array_sent_again_is_refused(spec: str, task: int) -> None:
    with pytest.raises(UsageError, match=r"--shard \$SLURM_ARRAY_TASK_ID/N"):
        parse_shard("auto", array(spec, task))


def test_an_array_of_one_is_everything_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """It may be the first task sent again, which nothing tells apart."""
    assert parse_shard("auto", array("0", 0)) == Shard()
    assert "needs --shard 0/N" in caplog.text


def test_an_empty_variable_is_none() -> None:
    assert parse_shard("auto", {"SLURM_ARRAY_TASK_ID": "", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}) == Shard(1, 2)


@given(st.integers(3, 9), st.randoms())
def test_only_all_shards_are_the_whole(count: int, random: Random) -> None:
    shards = [Shard(k, count) for k in range(count)]
    random.shuffle(shards)
    names = [f"{shard}.npz" for shard in shards]
    assert join_shards(shards, names) is None
    assert join_shards(shards[:1], names[:1]) == shards[0]
    for wrong, words in (
        (shards[:-1], f"{shards[-1]} is missing"),
        ([*shards[:-1], shards[0]], f"both shard {shards[0]}"),
        ([*shards[:-1], None], f"{shards[0]}, but {names[-1]} is not a shard"),
        ([*shards[:-1], Shard(0, count + 1)], f"is 0/{count + 1}"),
    ):
        with pytest.raises(InputError, match=words):
            join_shards(wrong, names[: len(wrong)])


def test_files_that_do_not_say_are_joined_as_ever() -> None:
    assert join_shards([None, None], ["a", "b"]) is None
    assert join_shards([None], ["a"]) is None


@pytest.mark.parametrize("value", ["4/4", "0/0", "-1/2", "1", 3, {}, "", "0/1/2", "9999999999/99999999999"])
def test_what_is_no_shard_in_a_header(value: object) -> None:
    with pytest.raises(ValueError, match="is not a shard"):
        shard_of(value)
