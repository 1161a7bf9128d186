import pytest

from qdformer.data.source_count import subsample_by_source_count
from qdformer.errors import InputError


def records(single, multi):
    kinds = ["v1s"] * single + ["v1m", "v2"] * multi
    return [{"subset": kind, "id": index} for index, kind in enumerate(kinds[: single + multi])]


@pytest.mark.parametrize("single", [0, 0.25, 0.5])
def test_every_part_has_as_many_clips(single):
    chosen = subsample_by_source_count(records(10, 16), single, seed=0)
    assert len(chosen) == 16
    assert sum(record["subset"] == "v1s" for record in chosen) == 16 * single
    assert [r["id"] for r in chosen] == sorted({r["id"] for r in chosen})


def test_the_seed_chooses_and_larger_parts_hold_smaller_ones():
    clips = records(20, 20)
    ids = {
        (single, seed): {r["id"] for r in subsample_by_source_count(clips, single, seed)}
        for single in (0, 0.25, 0.5)
        for seed in (0, 1)
    }
    assert ids[0.25, 0] != ids[0.25, 1]
    singles = set(range(20))
    assert ids[0.25, 0] & singles < ids[0.5, 0] & singles
    assert ids[0.5, 0] - singles < ids[0.25, 0] - singles < ids[0, 0] - singles


@pytest.mark.parametrize(("single", "multi", "part"), [(0, 5, 0.5), (5, 0, 0.5), (3, 20, 1.0)])
def test_too_few_clips_are_counted(single, multi, part):
    with pytest.raises(InputError, match=f"SINGLE_SOURCE is {part}, .*{single} with one source"):
        subsample_by_source_count(records(single, multi), part, seed=0)
