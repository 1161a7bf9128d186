"""The runs of a table, with a stand-in for train_net.py that does at once what it is told."""

import fcntl
import json
import sys
import textwrap
from pathlib import Path

import pytest
from tqdm import tqdm

from qdformer.engine.hooks import Preempted
from qdformer.errors import InputError
from qdformer.reproduction import runs as runs_module
from qdformer.reproduction.experiments import EXPERIMENTS, Experiment, Row, find_experiment
from qdformer.reproduction.runs import config_of, execute, plan

CONFIGS = Path(__file__).parents[2] / "configs"
STAND_IN = """
    import json, os, sys
    from pathlib import Path
    import yaml

    args = sys.argv[1:]
    cfg = yaml.safe_load(Path(args[args.index("--config-file") + 1]).read_text())
    folder = Path(args[args.index("OUTPUT_DIR") + 1])
    with open(os.environ["CALLS"], "a") as calls:
        calls.write(f"{folder.name} {' '.join(a for a in args if a.startswith('--'))}\\n")
    told = os.environ.get("TOLD", "")
    tokens = cfg["MODEL"]["QDFORMER"]["NUM_TOKENS"]
    if told == f"fail {tokens}":
        sys.exit("train_net: the loss is not finite")
    if told == f"stop {tokens}" and not (folder / "begun").exists():
        (folder / "begun").touch()
        sys.exit(os.EX_TEMPFAIL)
    if told == f"die {tokens}":
        os.kill(os.getpid(), 9)
    if "--eval-only" in args:
        assert Path(args[args.index("MODEL.WEIGHTS") + 1]).is_file()
        tokens = tokens + 100
    (folder / "model_final.safetensors").touch()
    (folder / "metrics.json").write_text(json.dumps({"iteration": 1}) + "\\n")
    for name in cfg["DATASETS"]["TEST"]:
        result = folder / "inference" / name / f"{name}_avs_semantic.json"
        result.parent.mkdir(parents=True, exist_ok=True)
        metrics = {"mIoU": 10.0 * tokens + cfg["SEED"], "frames": 3.0}
        result.write_text(json.dumps({"metrics": metrics}))
"""

TOKENS = Experiment(
    "tokens",
    (
        Row("one", {"MODEL.QDFORMER.NUM_TOKENS": 1}, {"avss": 40.2}),
        Row("two", {"MODEL.QDFORMER.NUM_TOKENS": 2}),
        Row("two again", {"MODEL.QDFORMER.NUM_TOKENS": 2}, weights_of="two"),
    ),
)


@pytest.fixture
def calls(tmp_path, monkeypatch):
    script = tmp_path / "train_net.py"
    script.write_text(textwrap.dedent(STAND_IN))
    monkeypatch.setattr(runs_module, "TRAIN", (sys.executable, str(script)))
    monkeypatch.setattr(runs_module, "POLL", 0.01)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls.txt"))

    def read():
        path = tmp_path / "calls.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    return read


def tokens(output, *overrides, seeds=1, data=("tiny_avss",)):
    return plan(
        TOKENS,
        data=data,
        seeds=seeds,
        config_file="",
        overrides=["SOLVER.MAX_ITER", "2", *overrides],
        output=output,
    )


def test_all_rows_are_run_once_and_those_that_need_weights_get_them(composed, tmp_path, calls):
    planned = tokens(tmp_path, seeds=2)
    execute(planned)
    called = calls()
    assert len(called) == 6
    assert [call.split()[-1] for call in called] == ["--resume", "--resume", "--eval-only"] * 2
    values = [run.result()["metrics"]["mIoU"] for run in planned]
    assert values == [10, 20, 1020, 11, 21, 1021]
    execute(planned)
    assert calls() == []


def test_another_setting_is_another_run_and_the_same_one_is_shared(composed, tmp_path, calls):
    execute(tokens(tmp_path))
    calls()
    execute(tokens(tmp_path, "SOLVER.BASE_LR", "0.5"))
    assert len(calls()) == 3
    one = Experiment("other", (Row("one", {"MODEL.QDFORMER.NUM_TOKENS": 1}),))
    shared = plan(one, data=["tiny_avss"], seeds=1, config_file="", output=tmp_path,
                  overrides=["SOLVER.MAX_ITER", "2"])  # fmt: skip
    execute(shared)
    assert calls() == []


def test_a_row_that_fails_says_why_and_the_rest_goes_on(composed, tmp_path, calls, monkeypatch):
    monkeypatch.setenv("TOLD", "fail 1")
    planned = tokens(tmp_path)
    execute(planned)
    assert planned[0].result()["error"] == "train_net: the loss is not finite"
    assert [run.is_done() for run in planned] == [False, True, True]
    monkeypatch.setenv("TOLD", "die 1")
    execute(planned)
    assert "signal 9" in planned[0].result()["error"]
    monkeypatch.delenv("TOLD")
    calls()
    execute(planned)
    assert len(calls()) == 1 and all(run.is_done() for run in planned)


def test_what_was_stopped_goes_on(composed, tmp_path, calls, monkeypatch):
    monkeypatch.setenv("TOLD", "stop 2")
    planned = tokens(tmp_path)
    with pytest.raises(Preempted):
        execute(planned)
    assert [run.result() is not None for run in planned] == [True, False, False]
    monkeypatch.delenv("TOLD")
    execute(planned)
    assert all(run.is_done() for run in planned) and len(calls()) == 4


def test_unknown_names_list_the_known_ones(composed, tmp_path):
    with pytest.raises(InputError, match="'tab9' is no table or figure; known: tab1, tab2"):
        find_experiment("tab9")
    with pytest.raises(InputError, match="'none_train' is not registered; known: .*tiny_avss"):
        tokens(tmp_path, data=["none"])
    with pytest.raises(InputError, match="Non-existent key: SOLVER.NONE"):
        tokens(tmp_path, "SOLVER.NONE", "1")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_row_is_a_valid_config_of_its_own(composed, tmp_path, name):
    experiment = EXPERIMENTS[name]
    planned = plan(
        experiment, data=["tiny_avss"], seeds=1, config_file="", overrides=[], output=tmp_path
    )
    assert len({run.folder for run in planned}) == len(experiment.rows) == len(planned)
    assert not any(tmp_path.iterdir())


def test_an_earlier_process_of_a_run_is_waited_for(composed, tmp_path, calls):
    (run, *_) = tokens(tmp_path)
    run.folder.mkdir(parents=True)
    with runs_module._alone(run.folder, tqdm(disable=True)), pytest.raises(BlockingIOError):
        with (run.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_results_are_json(composed, tmp_path, calls):
    planned = tokens(tmp_path)
    execute(planned)
    result = json.loads((planned[0].folder / "result.json").read_text())
    assert set(result) == {"metrics", "error", "seconds", "peak_memory_gb"}
    assert result["seconds"] > 0 and 0 < result["peak_memory_gb"] < 10


def test_who_waits_for_an_earlier_call_says_so(tmp_path):
    said, holder = [], (tmp_path / "lock").open("w")
    fcntl.flock(holder, fcntl.LOCK_EX)

    class Bar:
        def set_postfix_str(self, text):
            said.append(text)
            holder.close()  # the earlier call's process ends

    with runs_module._alone(tmp_path, Bar()):
        assert "waiting for its end" in said[0] and said[1] == ""
    with runs_module._alone(tmp_path, Bar()):
        assert len(said) == 2


@pytest.mark.parametrize(
    ("data", "expected"),
    [("avsbench_avss", "qdformer_r50"), ("avsbench_ms3", "qdformer_r50_ms3"),
     ("avsbench_s4", "qdformer_r50_s4")],
)  # fmt: skip
def test_a_schedule_belongs_to_its_data_set(data, expected):
    """MS3 has 13 epochs of 296 clips, 962 iterations, not the 33,992 of AVSS."""
    given = str(CONFIGS / "qdformer_r50.yaml")
    assert config_of(data, given, []) == str(CONFIGS / f"{expected}.yaml")


def test_a_schedule_for_other_clips_is_refused_or_the_users_own():
    given = str(CONFIGS / "qdformer_r50.yaml")
    with pytest.raises(InputError, match="avsbench_avss_train, not for mine_ms3_train"):
        config_of("mine_ms3", given, [])
    assert config_of("mine_ms3", given, ["SOLVER.MAX_ITER", "10"]) == given
    assert config_of("mine_ms3", "", []) == ""
