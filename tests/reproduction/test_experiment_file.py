import pytest

from qdformer.errors import InputError
from qdformer.reproduction.experiment_file import read_experiment
from qdformer.reproduction.runs import plan

TABLE = """
title: Tokens and a backbone
rows:
  - name: four tokens
    overrides: {MODEL.QDFORMER.NUM_TOKENS: 4, MODEL.QDFORMER.RECOMBINATION: false}
  - name: the same at 96 pixels
    weights_of: four tokens
    overrides: {MODEL.QDFORMER.NUM_TOKENS: 4, MODEL.QDFORMER.RECOMBINATION: false,
                INPUT.MIN_SIZE_TEST: 96}
  - name: another config
    config: other.yaml
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(TABLE)
    (tmp_path / "other.yaml").write_text("MODEL: {QDFORMER: {NUM_TOKENS: 7}}\nVERSION: 2\n")
    return path


def test_rows_become_runs_of_their_configs(table, composed, tmp_path):
    experiment = read_experiment(str(table))
    assert experiment.title == "Tokens and a backbone"
    first, second, third = plan(
        experiment, data=["tiny_avss"], seeds=1, config_file="", output=tmp_path,
        overrides=["SOLVER.MAX_ITER", "1"],
    )  # fmt: skip
    assert [run.cfg.MODEL.QDFORMER.NUM_TOKENS for run in (first, second, third)] == [4, 4, 7]
    assert not first.cfg.MODEL.QDFORMER.RECOMBINATION and third.cfg.MODEL.QDFORMER.RECOMBINATION
    assert second.weights == first.folder / "model_final.safetensors"
    assert second.cfg.INPUT.MIN_SIZE_TEST == 96 and third.weights is None
    assert all(run.cfg.SOLVER.MAX_ITER == 1 for run in (first, second, third))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: [", "cannot be read"),
        ("[1, 2]", "no rows"),
        ("rows: []", "no rows"),
        ("rows: [{overrides: {}}]", "row 1 has no name"),
        ("rows: [{name: a, keys: {}}]", "row 1 has 'keys'"),
        ("rows: [{name: a, overrides: [1]}]", "overrides is"),
        ("rows: [{name: a}, {name: a}]", "row 2: a second row"),
        ("rows: [{name: a, weights_of: b}]", "weights_of is 'b'"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_experiment(str(path))
