import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest

from qdformer.benchmark import report
from qdformer.benchmark.measures import MEASURES
from qdformer.benchmark.report import (
    FORMAT,
    chart_file,
    comparison,
    load_result,
    run_benchmark,
    stage_table,
)
from qdformer.commands import benchmark as benchmark_command
from qdformer.errors import InputError


def measured(median):
    return {"median": median, "min": median / 2, "max": median * 2}


def timed(ratio, seconds):
    reference = measured(seconds / ratio)
    return {"ratio": measured(ratio), "seconds": measured(seconds), "reference_seconds": reference}


def stage(ratio, seconds, flops, trained, parameters, **name):
    counts = {"flops": flops, "trained_parameters": trained, "parameters": parameters}
    return {**name, **timed(ratio, seconds), **counts}


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
        "memory": {"eval": 1.5e9, "train": 2.4e9, "libraries": 7e8},
        "stages": {
            "whole": stage(2.0, 0.4, 6e9, 3e6, 4e6),
            "stages": [
                stage(1.5, 0.3, 4e9, 2e6, 3e6, name="backbone"),
                stage(0.5, 0.1, 2e9, 1e6, 1e6, name="rest"),
            ],
        },
    },
}


def cells(table):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def fake_measures(monkeypatch, **found):
    """Measures that yield a list's values, and raise those that are errors."""

    def measure(values):
        def results(cfg, options):
            for value in values:
                if isinstance(value, Exception):
                    raise value
                yield value

        return results

    monkeypatch.setattr(report, "MEASURES", {k: measure(values) for k, values in found.items()})


@pytest.fixture
def commit(monkeypatch):
    """Set the commit that is measured."""
    machine = report.describe_machine("cpu")
    return lambda name: monkeypatch.setattr(
        report, "describe_machine", lambda device: {**machine, "commit": name}
    )


def test_what_fails_later_loses_nothing_that_was_measured(options, monkeypatch):
    fake_measures(monkeypatch, a=[1], b=[{"half": 2}, RuntimeError("out of memory")], c=[3])
    with pytest.raises(RuntimeError, match="out of memory"):
        run_benchmark(replace(options, measures=("a", "b", "c")))
    result = load_result(options.output)
    assert result["results"] == {"a": 1, "b": {"half": 2}}
    assert result["settings"] == options.settings()
    assert result["machine"]["cpu"] and result["machine"]["gpu"] is None


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ("abc", "abc", True),
        ("abc", "abd", False),
        ("abc-dirty", "abc-dirty", False),
        (None, None, False),
    ],
)
def test_earlier_results_stay_if_the_code_is_the_same(
    options, monkeypatch, commit, first, second, kept
):
    fake_measures(monkeypatch, a=[1], b=[2])
    commit(first)
    run_benchmark(replace(options, measures=("a",)))
    commit(second)
    found = run_benchmark(replace(options, measures=("b",)))["results"]
    assert found == ({"a": 1, "b": 2} if kept else {"b": 2})
    workload = replace(options.workload, frames=3)
    found = run_benchmark(replace(options, measures=("b",), workload=workload))
    assert found["results"] == {"b": 2}


def test_what_cannot_be_measured_or_written(options):
    message = f"there is no measure 'speed'; choose among {', '.join(MEASURES)}"
    with pytest.raises(InputError, match=message):
        run_benchmark(replace(options, measures=("eval", "speed")))
    fast = replace(options, workload=replace(options.workload, precision="fast"))
    with pytest.raises(InputError, match="--precision fast is for evaluation"):
        run_benchmark(replace(fast, measures=("train",)))
    with pytest.raises(InputError, match="small.yaml: is no JSON"):
        run_benchmark(replace(options, output=Path(options.config_file)))
    with pytest.raises(InputError, match="--output is .*, which cannot be written"):
        run_benchmark(replace(options, output=Path(options.config_file, "a.json")))


def test_files_that_are_no_results(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(InputError, match="a.json: no such file"):
        load_result(path)
    path.write_text("{")
    with pytest.raises(InputError, match="a.json: is no JSON"):
        load_result(path)
    for foreign in ([], {"results": {}}, {**FULL, "format": "qdformer benchmark 0"}):
        path.write_text(json.dumps(foreign))
        with pytest.raises(InputError, match="a.json: is not a result of this version"):
            load_result(path)


def test_two_results_side_by_side():
    other = deepcopy(FULL)
    other["machine"]["gpu"] = "Some GPU"
    other["results"] = {"eval": timed(1.25, 0.002)}
    table = cells(comparison([FULL, other]))
    assert table[0] == ["", "qdformer_r50", "qdformer_r50", "B / A"]
    assert table[1][:3] == ["", "Some CPU, 2 threads", "Some GPU"]
    assert table[2][:3] == ["", "2 x 5 x 224 x 224, fp32", "2 x 5 x 224 x 224, fp32"]
    assert table[4:] == [
        ["eval / ResNet-50", "2.50", "1.25", "0.500"],
        ["eval, s", "0.500", "0.002", "0.004"],
        ["training step / ResNet-50", "10.00", "-", "-"],
        ["training step, s", "2.00", "-", "-"],
        ["peak memory eval, GB", "1.50", "-", "-"],
        ["peak memory train, GB", "2.40", "-", "-"],
        ["peak memory libraries, GB", "0.700", "-", "-"],
        ["backbone / ResNet-50", "1.50", "-", "-"],
        ["rest / ResNet-50", "0.500", "-", "-"],
    ]
    assert "B / A" not in comparison([FULL, other, other])


def test_measurements_of_data_evaluators_and_growth():
    result = deepcopy(FULL)
    result["results"] = {
        "growth": [{"frames": 10, "size": 224, "memory": 2e9, **timed(5.0, 1.0)}],
        "data": {"train": {"mapper": measured(40.0), "1 worker": 30.0}},
        "evaluators": {"224 x 224": {"boundary_f": measured(1234.5)}},
        "video": {"whole": measured(0.5), "whole / longest part": measured(1.25)},
    }
    assert cells(comparison([result]))[4:] == [
        ["eval 10 x 224 x 224 / ResNet-50 of 5 x 224 x 224", "5.00"],
        ["peak memory eval 10 x 224 x 224, GB", "2.00"],
        ["data train, mapper, clips/s", "40.00"],
        ["data train, 1 worker, clips/s", "30.00"],
        ["boundary_f, 224 x 224, frames/s", "1234"],
        ["video, whole, s/s", "0.500"],
        ["video, whole / longest part", "1.25"],
    ]


def test_the_stages_with_what_they_need():
    assert cells(stage_table(FULL))[2:] == [
        ["backbone", "300.0", "150.0 to 600.0", "1.50", "75%", "4.00", "2.00", "3.00"],
        ["rest", "100.0", "50.0 to 200.0", "0.50", "25%", "2.00", "1.00", "1.00"],
        ["whole", "400.0", "200.0 to 800.0", "2.00", "100%", "6.00", "3.00", "4.00"],
    ]


def test_the_command_measures_the_config_and_shows_what_it_found(options, capsys, tmp_path):
    arguments = [
        "--config-file", options.config_file, "--device", "cpu", "--frames", 2, "--size", 32,
        "--repeats", 1, "--measure", "eval", "stages", "--output", options.output,
        "MODEL.QDFORMER.NUM_TOKENS", 3,
    ]  # fmt: skip
    benchmark_command.main([*map(str, arguments)])
    result = json.loads(options.output.read_text())
    assert result["settings"]["overrides"] == ["MODEL.QDFORMER.NUM_TOKENS", "3"]
    assert list(result["results"]) == ["eval", "stages"]
    assert result["results"]["eval"]["ratio"]["min"] > 0
    chart = chart_file(options.output, "stages")
    assert chart.read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert "mask_decoder" in shown and str(chart) in shown

    benchmark_command.main(["--compare", str(options.output), str(options.output)])
    assert "B / A" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="c.json: no such file"):
        benchmark_command.main(["--compare", str(options.output), str(tmp_path / "c.json")])
