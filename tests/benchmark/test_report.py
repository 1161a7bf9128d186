# ruff: noqa: E501 (tables as they are printed)
import json
from copy import deepcopy

import pytest

from qdformer.benchmark.report import (
    FORMAT,
    comparison,
    load_result,
    readme_table,
    save_result,
    stage_table,
)
from qdformer.errors import InputError


def measured(median, **more):
    return {"median": median, "min": median / 2, "max": median * 2, **more}


def timed(ratio, seconds):
    reference = measured(seconds / ratio)
    return {"ratio": measured(ratio), "seconds": measured(seconds), "reference_seconds": reference}


FULL = {
    "format": FORMAT,
    "settings": {
        "config": "configs/qdformer_r50.yaml",
        "overrides": [],
        "device": "cpu",
        "frames": 5,
        "size": 224,
        "batch": 2,
        "precision": "fp32",
        "repeats": 10,
    },
    "machine": {"cpu": "Some CPU", "threads": 2, "gpu": None},
    "results": {
        "eval": timed(2.5, 0.5),
        "train": timed(10.0, 2.0),
        "memory": {"method": "of some kind", "eval": 1.5e9, "train": 2.4e9, "libraries": 7e8},
        "stages": {
            "whole": {
                **timed(2.0, 0.4), "flops": 6e9, "trained_parameters": 3e6, "parameters": 4e6
            },
            "stages": [
                {
                    "name": "backbone", **timed(1.5, 0.3), "flops": 4e9,
                    "trained_parameters": 2e6, "parameters": 3e6,
                },
                {
                    "name": "rest", **timed(0.5, 0.1), "flops": 2e9,
                    "trained_parameters": 1e6, "parameters": 1e6,
                },
            ],
            "flops_count": "all of them",
        },
    },
}  # fmt: skip


@pytest.fixture
def other():
    """The same on a GPU, twice as fast, with only the forward measured."""
    result = deepcopy(FULL)
    result["settings"]["overrides"] = ["MODEL.DEVICE", "cuda"]
    result["machine"]["gpu"] = "Some GPU"
    result["results"] = {"eval": timed(1.25, 0.002)}
    return result


def test_what_was_written_comes_back(tmp_path):
    save_result(FULL, tmp_path / "a.json")
    assert load_result(tmp_path / "a.json") == FULL
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_files_that_are_no_results(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(InputError, match="a.json: no such file; give the JSON that benchmark.py"):
        load_result(path)
    path.write_text("{")
    with pytest.raises(InputError, match="a.json: is no JSON; give the file that benchmark.py"):
        load_result(path)
    for foreign in ([], {"results": {}}, {**FULL, "format": "qdformer benchmark 0"}):
        path.write_text(json.dumps(foreign))
        with pytest.raises(InputError, match="a.json: is not a result of this version"):
            load_result(path)


def test_two_results_side_by_side(other):
    assert comparison({"a.json": FULL, "b.json": other}).splitlines() == [
        "|                                 |                  a.json |                         b.json |   B / A |",
        "|:--------------------------------|------------------------:|-------------------------------:|--------:|",
        "| config                          |            qdformer_r50 | qdformer_r50 MODEL.DEVICE cuda |         |",
        "| on                              |     Some CPU, 2 threads |                       Some GPU |         |",
        "| for                             | 2 x 5 x 224 x 224, fp32 |        2 x 5 x 224 x 224, fp32 |         |",
        "| eval / ResNet-50                |                    2.50 |                           1.25 |   0.500 |",
        "| eval, s                         |                   0.500 |                          0.002 |   0.004 |",
        "| training step / ResNet-50       |                   10.00 |                              - |       - |",
        "| training step, s                |                    2.00 |                              - |       - |",
        "| peak memory eval, GB            |                    1.50 |                              - |       - |",
        "| peak memory training, GB        |                    2.40 |                              - |       - |",
        "| peak memory libraries alone, GB |                   0.700 |                              - |       - |",
        "| backbone / ResNet-50            |                    1.50 |                              - |       - |",
        "| rest / ResNet-50                |                   0.500 |                              - |       - |",
    ]  # fmt: skip


def test_more_than_two_results_have_no_quotient(other):
    lines = comparison({"a": FULL, "b": other, "c": other}).splitlines()
    assert lines[0].split() == ["|", "|", "a", "|", "b", "|", "c", "|"]
    assert "B / A" not in lines[0]


def test_measurements_of_data_evaluators_and_growth():
    result = deepcopy(FULL)
    rates = {"mapper": measured(40.0), "1 worker": 30.0}
    result["results"] = {
        "growth": [{"frames": 10, "size": 224, "memory": 2e9, **timed(5.0, 1.0)}],
        "data": {"clips": 24, "train": rates},
        "evaluators": {"224 x 224": {"boundary_f": measured(1234.5)}},
    }
    cells = [line.split("|")[1:-1] for line in comparison({"a": result}).splitlines()[5:]]
    assert [(label.strip(), value.strip()) for label, value in cells] == [
        ("eval 10 x 224 x 224 / ResNet-50 of 5 x 224 x 224", "5.00"),
        ("peak memory eval 10 x 224 x 224, GB", "2.00"),
        ("data training, mapper, clips/s", "40.00"),
        ("data training, 1 worker, clips/s", "30.00"),
        ("boundary_f, 224 x 224, frames/s", "1234"),
    ]


def test_the_readmes_table(other):
    assert readme_table([FULL, other]).splitlines() == [
        "| config                         | device              | precision   |        frames |   batch |   eval / ResNet-50 |   training step / ResNet-50 |   peak memory eval, GB |   peak memory training, GB |   clips/s eval |   clips/s training |",
        "|:-------------------------------|:--------------------|:------------|--------------:|--------:|-------------------:|----------------------------:|-----------------------:|---------------------------:|---------------:|-------------------:|",
        "| qdformer_r50                   | Some CPU, 2 threads | fp32        | 5 x 224 x 224 |       2 |               2.50 |                       10.00 |                   1.50 |                       2.40 |           4.00 |               1.00 |",
        "| qdformer_r50 MODEL.DEVICE cuda | Some GPU            | fp32        | 5 x 224 x 224 |       2 |               1.25 |                           - |                      - |                          - |           1000 |                  - |",
    ]  # fmt: skip


def test_the_stages_with_what_they_need():
    assert stage_table(FULL).splitlines() == [
        "| stage    |    ms |   least to most |   / ResNet-50 |   share |   GFLOPs |   M trained |    M |",
        "|:---------|------:|----------------:|--------------:|--------:|---------:|------------:|-----:|",
        "| backbone | 300.0 |  150.0 to 600.0 |          1.50 |     75% |     4.00 |        2.00 | 3.00 |",
        "| rest     | 100.0 |   50.0 to 200.0 |          0.50 |     25% |     2.00 |        1.00 | 1.00 |",
        "| whole    | 400.0 |  200.0 to 800.0 |          2.00 |    100% |     6.00 |        3.00 | 4.00 |",
        "FLOPs: all of them.",
    ]  # fmt: skip
