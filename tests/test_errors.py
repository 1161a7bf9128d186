import pytest

from qdformer.engine.non_finite import NonFiniteLoss
from qdformer.errors import InputError, is_input_error, make_folder, one_line_message

WRAPPED = """
-- Process 1 terminated with the following error:
Traceback (most recent call last):
  File "a.py", line 1, in f
qdformer.engine.non_finite.NonFiniteLoss: iteration 3: loss_mask is not finite
"""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InputError("a.png: no such file"), "a.png: no such file"),
        (NonFiniteLoss("iteration 3"), "iteration 3"),
        (RuntimeError(WRAPPED), "iteration 3: loss_mask is not finite"),
        (InputError(f"Caught InputError in worker.\n{WRAPPED}"), "iteration 3: loss_mask is not "
         "finite"),
        (InputError("a\nb.png: no such file"), "a b.png: no such file"),
        (InputError(""), ""),
    ],
)  # fmt: skip
def test_a_sentence_on_one_line(error, expected):
    assert is_input_error(error) and one_line_message(error) == expected


@pytest.mark.parametrize("text", ["", "out of memory", f"{WRAPPED}\nRuntimeError: another"])
def test_other_errors_are_not_ours(text):
    assert not is_input_error(RuntimeError(text))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="OUTPUT is x, which cannot be written"):
        make_folder(tmp_path / "file" / "x", "OUTPUT is x, which")
