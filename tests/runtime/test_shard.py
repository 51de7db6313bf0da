import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.shard import Shard, parse_shard


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
    # sbatch --array=10-16:2 (4 tasks), srun -n 3: twelve shards
    seen = set()
    for task in (10, 12, 14, 16):
        for rank in range(3):
            environ = {
                "SLURM_ARRAY_TASK_ID": str(task),
                "SLURM_ARRAY_TASK_MIN": "10",
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
