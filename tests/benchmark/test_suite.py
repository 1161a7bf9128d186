import json
from dataclasses import replace
from pathlib import Path

import pytest

from qdformer.benchmark import machine, suite
from qdformer.benchmark.report import load_result, save_result
from qdformer.benchmark.suite import MEASURES, chart_file, default_measures, run_benchmark
from qdformer.commands import benchmark as benchmark_command
from qdformer.errors import InputError


@pytest.fixture
def command():
    """``benchmark.py`` as a function of its arguments."""
    return lambda *arguments: benchmark_command.main([*map(str, arguments)])


@pytest.fixture
def commit(monkeypatch):
    """Set the commit that is measured."""
    monkeypatch.setattr(machine, "_commit", lambda: "abc")
    return lambda name: monkeypatch.setattr(machine, "_commit", lambda: name)


def fake_measures(monkeypatch, **found):
    """Measures that yield a list's values, and raise those that are errors."""

    def measure(values):
        def results(cfg, options):
            for value in values:
                if isinstance(value, Exception):
                    raise value
                yield value

        return results

    monkeypatch.setattr(suite, "MEASURES", {k: measure(values) for k, values in found.items()})


def test_what_fails_later_loses_nothing_that_was_measured(options, monkeypatch):
    fake_measures(monkeypatch, a=[1], b=[{"half": 2}, RuntimeError("out of memory")], c=[3])
    with pytest.raises(RuntimeError, match="out of memory"):
        run_benchmark(replace(options, measures=("a", "b", "c")))
    assert load_result(options.output)["results"] == {"a": 1, "b": {"half": 2}}


def test_results_say_what_was_measured_on_what(options, monkeypatch):
    fake_measures(monkeypatch, a=[1])
    result = run_benchmark(replace(options, measures=("a",)))
    assert result == load_result(options.output)
    assert result["settings"] == options.settings()
    assert set(result["machine"]) == {"cpu", "threads", "gpu", "tf32", "torch", "python", "commit"}
    assert result["machine"]["gpu"] is None


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


def test_other_settings_replace_earlier_results(options, monkeypatch, commit):
    fake_measures(monkeypatch, a=[1], b=[2])
    run_benchmark(replace(options, measures=("a",)))
    workload = replace(options.workload, frames=3)
    found = run_benchmark(replace(options, measures=("b",), workload=workload))
    assert found["results"] == {"b": 2}


def test_a_measure_that_there_is_not(options):
    message = f"^there is no measure 'speed'; choose among {', '.join(MEASURES)}, and"
    with pytest.raises(InputError, match=message):
        run_benchmark(replace(options, measures=("eval", "speed")))


def test_by_default_all_that_a_precision_can_do(options):
    assert default_measures(options.workload) == ("eval", "train", "memory", "stages")
    fast = replace(options.workload, precision="fast")
    assert default_measures(fast) == ("eval", "memory", "stages")
    with pytest.raises(InputError, match="^--precision fast is for evaluation"):
        run_benchmark(replace(options, measures=("train",), workload=fast))


def test_outputs_that_cannot_be_used(options, tmp_path):
    with pytest.raises(InputError, match="small.yaml: is no JSON"):
        run_benchmark(replace(options, output=Path(options.config_file)))
    with pytest.raises(InputError, match="^--output is .*, which cannot be written"):
        run_benchmark(replace(options, output=Path(options.config_file, "a.json")))


def test_the_command_measures_the_config_and_shows_what_it_found(command, options, capsys):
    command(
        "--config-file", options.config_file, "--device", "cpu", "--frames", 2, "--size", 32,
        "--repeats", 1, "--measure", "eval", "stages", "--output", options.output,
        "MODEL.QDFORMER.NUM_TOKENS", 3,
    )  # fmt: skip
    result = json.loads(options.output.read_text())
    assert result["settings"]["overrides"] == ["MODEL.QDFORMER.NUM_TOKENS", "3"]
    assert list(result["results"]) == ["eval", "stages"]
    assert result["results"]["eval"]["ratio"]["min"] > 0
    chart = chart_file(options.output, "stages")
    assert chart.name == "small_stages.png"
    assert chart.read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert "| config " in shown
    assert "| mask_decoder " in shown
    assert str(chart) in shown


def test_the_command_shows_earlier_results(command, options, monkeypatch, tmp_path, capsys):
    fake_measures(monkeypatch)
    result = run_benchmark(replace(options, measures=()))
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file in files:
        save_result(result, file)
    command("--compare", *files)
    assert capsys.readouterr().out.splitlines()[0].split()[-4:-1] == ["B", "/", "A"]
    command("--table", *files)
    assert capsys.readouterr().out.count("| small ") == 2
    with pytest.raises(SystemExit, match="c.json: no such file"):
        command("--compare", files[0], tmp_path / "c.json")
