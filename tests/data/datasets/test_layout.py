import dataclasses

import pytest

from qdformer.data.datasets.avsbench import LAYOUTS
from qdformer.data.datasets.layout import clip_record, find_folder, numbered_files, read_table
from qdformer.errors import InputError

AVSS = LAYOUTS["avss"]
HEADER = "vid,uid,s_min,s_sec,a_obj,split,label"


def table(folder, *lines, layout=AVSS):
    (folder / layout.table).write_text("\n".join(lines), encoding="utf-8")
    return read_table(folder, layout)


def test_columns_are_found_by_name_in_any_order(tmp_path):
    (clip,) = table(tmp_path, "label,extra,uid,split", "v2,?,a_b_0_10000,test")
    assert clip == {
        "subset": "v2",
        "name": "a_b_0_10000",
        "split": "test",
        "video_id": "a_b_0_10000",
    }


@pytest.mark.parametrize(
    ("layout", "header", "line", "expected"),
    [
        ("s4", "a,b,c,d", "n_1,9,dog,val", {"name": "n_1", "category": "dog", "subset": "s4"}),
        ("ms3", "a,b", "n_1,val", {"name": "n_1", "subset": "ms3"}),
        ("avss", "a,b,c,d,e,f,g", "o,n_1,0,0,dog,val,v1m", {"name": "n_1", "subset": "v1m"}),
    ],
)
def test_columns_of_unknown_names_are_found_by_position(tmp_path, layout, header, line, expected):
    (clip,) = table(tmp_path, header, line, layout=LAYOUTS[layout])
    assert clip == {**expected, "split": "val", "video_id": "n_1"}


def test_byte_order_mark_blank_lines_and_spaces_are_passed_over(tmp_path):
    clips = table(tmp_path, "\ufeffuid, split, label", "a, train, v2", "", " , , ", "b,val,v2")
    assert [(clip["name"], clip["split"]) for clip in clips] == [("a", "train"), ("b", "val")]


@pytest.mark.parametrize("value", ["..", ".", "/etc", "a/b", "../../a", ""])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_fields_that_lead_out_of_the_tree_are_refused(tmp_path, value, place):
    fields = ["a", "train", "v2"]
    fields[place] = value
    with pytest.raises(InputError, match="metadata.csv, line 3: .* must be a plain file name"):
        table(tmp_path, "uid,split,label", "ok,train,v2", ",".join(fields))


def test_unusable_tables_are_refused(tmp_path):
    with pytest.raises(InputError, match="metadata.csv: the list of clips is missing"):
        read_table(tmp_path, AVSS)
    for lines in ([], ["uid"], ["o,n_1,0,0,dog,val,v1m"]):
        with pytest.raises(InputError, match="first line must name the columns uid, split, label"):
            table(tmp_path, *lines)
    with pytest.raises(InputError, match="line 2: found 5 columns where the first line has 7"):
        table(tmp_path, HEADER, "o,n_1,0,0,dog")
    (tmp_path / AVSS.table).write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="metadata.csv: cannot be read as a csv file"):
        read_table(tmp_path, AVSS)


def test_ids_stay_unique_when_names_are_not(tmp_path):
    clips = table(
        tmp_path,
        "uid,split,label",
        *("a,train,v1s", "a,train,v1m", "b,train,v2", "a,train,v1s"),
    )
    assert [clip["video_id"] for clip in clips] == ["train_v1s_a", "train_v1m_a", "b"]


def test_first_folder_that_exists_is_taken(tmp_path):
    with pytest.raises(InputError, match="holds no folder AVSBench_semantic or AVSS or avs_rel"):
        find_folder(tmp_path, AVSS)
    for name in reversed(AVSS.folders):
        (tmp_path / name).mkdir()
        assert find_folder(tmp_path, AVSS) == tmp_path / name
    with pytest.raises(InputError, match="nowhere: no such folder; set DETECTRON2_DATASETS"):
        find_folder(tmp_path / "nowhere", AVSS)


def test_files_are_ordered_by_number_and_strays_are_passed_over(tmp_path):
    folder = tmp_path / "v2/u/frames"
    folder.mkdir(parents=True)
    for name in ["10.jpg", "9.jpg", ".DS_Store", "._9.jpg", "PaxHeader", "1.png", "x1.jpg", ".jpg"]:
        (folder / name).touch()
    (folder / "2.jpg").touch()
    files = numbered_files(tmp_path, AVSS.frames, {"subset": "v2", "name": "u"})
    assert files == {n: str(folder / f"{n}.jpg") for n in (2, 9, 10)}
    assert numbered_files(tmp_path, AVSS.frames, {"subset": "v2", "name": "absent"}) == {}


def test_braces_in_names_are_no_templates(tmp_path):
    folder = tmp_path / "v2/{index}/frames"
    folder.mkdir(parents=True)
    (folder / "0.jpg").touch()
    files = numbered_files(tmp_path, AVSS.frames, {"subset": "v2", "name": "{index}"})
    assert list(files) == [0]


@pytest.fixture
def clip(tmp_path):
    """A clip of two frames in a layout of one template of each kind."""
    layout = dataclasses.replace(
        AVSS,
        frames="{name}/f{index}.jpg",
        masks=(("{name}/i{index}.png", "index"), ("{name}/c{index}.png", "palette")),
        sounds=("{name}.wav", "{name}.pkl"),
    )
    (tmp_path / "u").mkdir()
    names = ["u/f1.jpg", "u/f2.jpg", "u/i1.png", "u/i2.png", "u/c1.png", "u/c2.png"]
    for name in [*names, "u.wav", "u.pkl"]:
        (tmp_path / name).touch()
    return tmp_path, layout, {"name": "u", "subset": "v2", "split": "val", "video_id": "u"}


def test_first_kind_of_mask_and_of_sound_is_taken(clip):
    folder, layout, _ = clip
    record = clip_record(*clip)
    assert record["label_format"] == "index"
    assert record["sem_seg_file_names"] == [str(folder / "u/i1.png"), str(folder / "u/i2.png")]
    assert record["audio_file_name"] == str(folder / "u.wav")

    for name in ("u/i1.png", "u/i2.png", "u/c1.png", "u.wav"):
        (folder / name).unlink()
    record = clip_record(*clip)
    assert record["label_format"] == "palette"
    assert record["sem_seg_file_names"] == [None, str(folder / "u/c2.png")]
    assert record["audio_file_name"] == str(folder / "u.pkl")


def test_missing_parts_of_a_clip_are_named(clip):
    folder, layout, _ = clip
    (folder / "u/f4.jpg").touch()
    with pytest.raises(InputError, match=r"f<number>.jpg: frame 3 of this clip is missing"):
        clip_record(*clip)
    (folder / "u/f4.jpg").unlink()
    for mask in ("i1", "i2", "c1", "c2"):
        (folder / f"u/{mask}.png").unlink()
    with pytest.raises(InputError, match=r"u/i1.png or .*u/c1.png: no frame of this clip has"):
        clip_record(*clip)
    # A mask of a frame that is not there does not help.
    (folder / "u/i0.png").touch()
    with pytest.raises(InputError, match="no frame of this clip has a mask"):
        clip_record(*clip)
    (folder / "u/i1.png").touch()
    for name in ("u.wav", "u.pkl"):
        (folder / name).unlink()
    with pytest.raises(InputError, match=r"u.wav or .*u.pkl: the sound of this clip is missing"):
        clip_record(*clip)
    for name in ("f1", "f2"):
        (folder / f"u/{name}.jpg").unlink()
    with pytest.raises(InputError, match=r"f<number>.jpg: no frames of this clip"):
        clip_record(*clip)
