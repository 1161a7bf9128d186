import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qdformer.checkpoint.weights import read_weights
from qdformer.commands import demo
from qdformer.demo import batch
from qdformer.demo.annotate import AnnotateOptions
from qdformer.demo.batch import annotate_all
from qdformer.errors import InputError

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "projects/QDFormer/demo.py"


def folder_of(tmp_path, video, good, broken):
    """Copies of a video, and files of a video's name that are none."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in good:
        (folder / name).write_bytes(video.read_bytes())
    contents = [b"", b"#EXTM3U\nfile:///etc/passwd", video.read_bytes()[:300], b"\0" * 999]
    for name, content in zip(broken, contents, strict=True):
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def script():
    """What demo.py runs: run(*arguments) is its command line in this process."""
    names = vars(demo).copy()
    names["run"] = lambda *given: demo.main([*map(str, given)])
    return names


def test_broken_videos_are_told_and_the_rest_goes_on(trained, video, tmp_path):
    good, broken = ["-a b.mkv", "b.mkv", "z.mkv"], ["c.mp4", "d.mp4", "e.mkv", "y.avi"]
    folder = folder_of(tmp_path, video, good, broken)
    done = subprocess.run(
        [sys.executable, SCRIPT, "--input", folder, "--output", tmp_path / "out",
         "--weights", trained],
        capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    *lines, last = done.stdout.splitlines()
    assert lines == [f"{folder / name} -> {tmp_path / 'out' / name}" for name in good]
    assert last == "3 of 7 videos done"
    for name in broken:
        (said,) = [line for line in done.stderr.splitlines() if str(folder / name) in line]
        assert "; " in said
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == good
    overlays = {(tmp_path / "out" / name / "overlay.mp4").read_bytes() for name in good}
    assert len(overlays) == 1


def test_several_inputs_and_the_options_behind_them(script):
    given = ["--input", "a.mp4", "b.mp4", "--weights", "W", "MODEL.DEVICE", "cpu"]
    args = script["parser"]().parse_args(script["joined"](given))
    assert (args.input, args.weights) == (["a.mp4", "b.mp4"], "W")
    assert args.opts == ["MODEL.DEVICE", "cpu"]


def test_one_video_with_a_leading_dash(script, trained, video, tmp_path, monkeypatch, capsys):
    folder = folder_of(tmp_path, video, ["-a b.mkv"], ["1", "2", "3", "4"])
    monkeypatch.chdir(folder)
    assert script["run"]("--input", "-a b.mkv", "--weights", trained, "--output", "out") == 0
    assert "1 of 1 videos done" in capsys.readouterr().out
    assert (folder / "out" / "-a b.mkv" / "overlay.mp4").is_file()


def test_weights_that_do_not_carry_their_config_take_one(
    script, trained, video, tmp_path, composed
):
    state = read_weights(str(trained))
    torch.save({"model": state["model"]}, tmp_path / "plain.pth")
    config = tmp_path / "config.yaml"
    config.write_text(state["description"]["config"])
    given = ["--input", video, "--weights", tmp_path / "plain.pth"]
    with pytest.raises(SystemExit, match="--config-file"):
        script["run"](*given, "--output", tmp_path / "out")
    extra = ["--config-file", config, "--output"]
    assert script["run"](*given, *extra, tmp_path / "out") == 0
    assert script["run"]("--input", video, "--weights", trained, "--output", tmp_path / "b") == 0
    overlays = [tmp_path / name / video.name / "overlay.mp4" for name in ("out", "b")]
    assert overlays[0].read_bytes() == overlays[1].read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--input", "absent.mp4"), "absent.mp4: no such file"),
        (("--input", "{video}", "--weights", "absent.pth"), "absent.pth: no such file"),
        (("--input", "{video}", "--weights", "{video}"), "cannot be used as weights"),
        (("--input", "{video}", "--every", "0"), "0.02 to 60.0 are possible"),
        (("--input", "{video}", "MODEL.NONE", "1"), "MODEL.NONE"),
    ],
)
def test_what_cannot_work_is_one_sentence(script, trained, video, tmp_path, arguments, words):
    given = [text.format(video=video) for text in arguments]
    weights = [] if "--weights" in given else ["--weights", trained]
    with pytest.raises(SystemExit, match=words):
        script["run"](*given[:2], *weights, "--output", tmp_path / "out", *given[2:])
    assert not list((tmp_path / "out").glob("*"))


def test_memory_that_runs_out_costs_one_video(predictor, video, tmp_path, monkeypatch):
    folder = folder_of(tmp_path, video, ["a.mkv", "b.mkv"], ["1", "2", "3", "4"])
    whole = batch.annotate

    def annotate(predictor, file, *rest):
        if "a.mkv" in file.name:
            raise RuntimeError("CUDA out of\nmemory")
        return whole(predictor, file, *rest)

    monkeypatch.setattr(batch, "annotate", annotate)
    videos = [folder / "a.mkv", folder / "b.mkv"]
    first, second = annotate_all(lambda: predictor, videos, tmp_path / "out", AnnotateOptions())
    assert "a.mkv: not annotated (RuntimeError: CUDA out of memory)" in first.error
    assert not second.error and (second.folder / "overlay.mp4").is_file()


def test_videos_of_one_name_are_refused_before_any_work(tmp_path, predictor):
    videos = [tmp_path / "a/clip.mp4", tmp_path / "b/clip.mp4"]
    with pytest.raises(InputError, match="one name"):
        annotate_all(lambda: predictor, videos, tmp_path, AnnotateOptions())


def test_results_never_take_the_place_of_a_video(predictor, video, tmp_path):
    folder = folder_of(tmp_path, video, ["a.mkv"], ["1", "2", "3", "4"])
    (outcome,) = annotate_all(lambda: predictor, [folder / "a.mkv"], folder, AnnotateOptions())
    assert "is there already" in outcome.error
    assert (folder / "a.mkv").read_bytes() == video.read_bytes()
