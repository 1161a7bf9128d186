from pathlib import Path

import pytest

from qdformer.errors import InputError
from qdformer.synthetic.assets import Asset, AssetFolders, load_libraries
from qdformer.synthetic.sounds import SOUND_CLASSES

SPLITS = ("train", "val", "test")


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.fixture
def folders(tmp_path):
    sounds = [f"sounds/{c}/1-{i}-{take}.ogg" for c in "ab" for i in range(9) for take in "AB"]
    cutouts = [f"cutouts/a/{i}.png" for i in range(5)] + ["cutouts/b/one.png"]
    touch(tmp_path, *sounds, *cutouts, "sounds/a/.hidden.ogg", "sounds/a/notes.txt")
    return AssetFolders(cutouts=tmp_path / "cutouts", sounds=tmp_path / "sounds")


@pytest.mark.parametrize(
    "name, source",
    [("2-132157-B", "a/2-132157"), ("03-A", "a/03"), ("dog", "a/dog"), ("dog-", "a/dog")],
)
def test_source_is_the_name_up_to_the_last_dash(name, source):
    assert Asset("sounds", "a", name).source == source


def test_recordings_are_shared_out_by_source(folders):
    libraries = load_libraries(folders, (), SPLITS)
    for name in "ab":
        parts = {split: libraries[split].sounds[name] for split in SPLITS}
        assert sorted(asset.name for part in parts.values() for asset in part) == sorted(
            f"1-{i}-{take}" for i in range(9) for take in "AB"
        )
        sources = [{asset.source for asset in parts[split]} for split in SPLITS]
        assert [len(source) for source in sources] == [7, 1, 1]
        assert len(set().union(*sources)) == 9


def test_cutouts_are_shared_out_or_else_shared(folders):
    libraries = load_libraries(folders, (), SPLITS)
    several = [libraries[split].cutouts["a"] for split in SPLITS]
    assert [len(part) for part in several] == [3, 1, 1]
    assert len({asset for part in several for asset in part}) == 5
    assert all(libraries[split].cutouts["b"] == libraries["train"].cutouts["b"] for split in SPLITS)


def test_two_cutouts_for_three_splits_keep_training_apart(tmp_path, folders):
    touch(tmp_path, "cutouts/b/two.png")
    train, val, test = (
        load_libraries(folders, ("b",), SPLITS)[split].cutouts["b"] for split in SPLITS
    )
    assert len(train) == len(val) == 1 and val == test and train != val


def test_the_shares_depend_on_names_alone(tmp_path, folders):
    before = load_libraries(folders, ("a", "b"), SPLITS)
    sounds = folders.sounds.rename(tmp_path / "elsewhere")
    after = load_libraries(AssetFolders(folders.cutouts, sounds), ("b", "a"), SPLITS)
    for split in SPLITS:
        for name in "ab":
            assert [asset.name for asset in before[split].sounds[name]] == [
                asset.name for asset in after[split].sounds[name]
            ]


def test_classes_keep_the_order_asked_for_and_are_sorted_otherwise(folders):
    assert list(load_libraries(folders, ("b", "a"), ("val",))["val"].sounds) == ["b", "a"]
    assert list(load_libraries(folders, (), ("val",))["val"].cutouts) == ["a", "b"]


def test_everything_is_built_in_where_no_folder_is_given(folders):
    library = load_libraries(AssetFolders(), (), ("train",))["train"]
    assert list(library.sounds) == list(SOUND_CLASSES) and not library.files()
    library = load_libraries(folders, (), ("train",))["train"]
    assert {asset.kind for asset in library.files()} == {"cutouts", "sounds"}
    assert library.noise and library.backgrounds


def test_folders_under_a_root(tmp_path):
    (tmp_path / "noise").mkdir()
    other = tmp_path / "other"
    assert AssetFolders.under(tmp_path, None, other, None, None) == AssetFolders(
        tmp_path / "cutouts", other, tmp_path / "noise", None
    )
    assert AssetFolders.under(None, None, None, other, None) == AssetFolders(noise=other)


@pytest.mark.parametrize(
    "add, classes, splits, message",
    [
        ("sounds/c/1-1-A.wav", (), SPLITS, "class 'c' has no cutouts: .*cutouts has them for a, b"),
        ("cutouts/c/1.png", ("a", "c"), SPLITS, "class 'c' has no sounds: .*sounds has .* a, b"),
        ("cutouts/c/1.txt", (), SPLITS, "cutouts/c: has no cutouts in it .*.png"),
        ("cutouts/b/2.png", ("dog",), SPLITS, "class 'dog' has no cutouts"),
    ],
)
def test_classes_that_lack_something(tmp_path, folders, add, classes, splits, message):
    touch(tmp_path, add)
    with pytest.raises(InputError, match=message):
        load_libraries(folders, classes, splits)


def test_fewer_sources_than_splits(tmp_path):
    touch(tmp_path, "cutouts/a/1.png", *(f"sounds/a/1-{i}-{t}.wav" for i in "12" for t in "AB"))
    folders = AssetFolders(tmp_path / "cutouts", tmp_path / "sounds")
    with pytest.raises(InputError, match=r"class 'a' has recordings of 2 source\(s\).* 3 splits"):
        load_libraries(folders, (), SPLITS)
    assert load_libraries(folders, (), SPLITS[:2]).keys() == set(SPLITS[:2])


@pytest.mark.parametrize(
    "folders, message",
    [
        (AssetFolders(cutouts=Path("x")), "x: these cutouts need a folder of sounds"),
        (AssetFolders(sounds=Path("x")), "x: these sounds need a folder of cutouts"),
        (AssetFolders(noise=Path("nowhere")), "nowhere: this folder of noise does not exist"),
    ],
)
def test_folders_that_cannot_be_used(folders, message):
    with pytest.raises(InputError, match=message):
        load_libraries(folders, (), SPLITS)


def test_an_empty_folder(tmp_path):
    with pytest.raises(InputError, match="has no folder in it"):
        load_libraries(AssetFolders(noise=tmp_path), (), SPLITS)
    with pytest.raises(InputError, match="has no backgrounds in it"):
        load_libraries(AssetFolders(backgrounds=tmp_path), (), SPLITS)
