from dataclasses import replace

import numpy as np
import pytest
import soundfile
from PIL import Image

from qdformer.audio.log_mel import SAMPLE_RATE
from qdformer.synthetic.assets import Asset, AssetFolders, Library, load_libraries
from qdformer.synthetic.scene import draw_frames, mix, plan_clip

PITCHES = (300, 700, 1500, 3100)
COLORS = ((250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0))
SIZE = 40


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Four classes: each a square of one color that sounds one pitch; noise; a gray background."""
    root = tmp_path_factory.mktemp("assets")
    time = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    cutouts, sounds = {}, {}
    for name, pitch, color in zip("abcd", PITCHES, COLORS):
        Image.new("RGBA", (8, 8), (*color, 255)).save(root / f"{name}.png")
        soundfile.write(root / f"{name}.wav", np.sin(2 * np.pi * pitch * time) / 2, SAMPLE_RATE)
        cutouts[name] = (Asset("cutouts", name, name, root / f"{name}.png"),)
        sounds[name] = (Asset("sounds", name, name, root / f"{name}.wav"),)
    noise = np.random.default_rng(0).uniform(-1, 1, SAMPLE_RATE)
    soundfile.write(root / "noise.wav", noise, SAMPLE_RATE)
    Image.new("RGB", (50, 60), (90, 90, 90)).save(root / "gray.png")
    return Library(
        cutouts=cutouts,
        sounds=sounds,
        noise=(Asset("noise", "n", "noise", root / "noise.wav"),),
        backgrounds=(Asset("backgrounds", "", "gray", root / "gray.png"),),
    )


def plans(library, count=60, sources=(1, 3), num_frames=6, **options):
    return [
        plan_clip(np.random.default_rng(i), library, num_frames, sources, **options)
        for i in range(count)
    ]


def rectangle(actor, t):
    """(left, top, right, bottom) of a square cutout, by the definition of place and side."""
    side = round(actor.side[t] * SIZE)
    left, top = (round(place * (SIZE - side)) for place in actor.place[t])
    return left, top, left + side, top + side


def foremost(clip, t, x, y):
    for actor in reversed(clip.actors):
        left, top, right, bottom = rectangle(actor, t)
        if left <= x < right and top <= y < bottom:
            return actor
    return None


def test_a_label_is_the_class_of_the_foremost_object_if_it_sounds(library):
    seen = set()
    for clip in plans(library, count=8):
        for t, (frame, labels) in enumerate(draw_frames(clip, SIZE)):
            assert frame.shape == (SIZE, SIZE, 3) and frame.dtype == labels.dtype == np.uint8
            for y in range(SIZE):
                for x in range(SIZE):
                    actor = foremost(clip, t, x, y)
                    color = COLORS[actor.class_index - 1] if actor else (90, 90, 90)
                    assert tuple(frame[y, x]) == color
                    label = actor.class_index if actor and actor.sounding[t] else 0
                    assert labels[y, x] == label
                    seen.add((actor is not None, label > 0))
        assert t == clip.num_frames - 1
    assert seen == {(False, False), (True, False), (True, True)}


@pytest.mark.parametrize("alpha, labeled", [(100, False), (160, True)])
def test_an_object_is_where_its_alpha_is_above_one_half(library, tmp_path, alpha, labeled):
    picture = np.full((8, 8, 4), (200, 0, 0, 255), np.uint8)
    picture[:, 2:6, 3] = alpha
    Image.fromarray(picture).save(tmp_path / "half.png")
    clip = plans(library, 1, constant=True)[0]
    actor = replace(
        clip.actors[0],
        cutout=Asset("cutouts", "a", "half", tmp_path / "half.png"),
        mirrored=False,
        class_index=9,
        sounding=np.ones(6, bool),
        side=np.full(6, 0.4),
        place=np.full((6, 2), 0.5),
    )
    frame, labels = next(draw_frames(replace(clip, actors=(actor,)), SIZE))
    # 16 pixels from 12 to 27; the middle of them shows the middle of the cutout.
    assert (labels[12:28, [12, 13, 26, 27]] == 9).all() and not labels[:, [11, 28]].any()
    assert (labels[12:28, 18:22] == (9 if labeled else 0)).all()
    mixed = np.array([200, 0, 0]) * alpha / 255 + 90 * (1 - alpha / 255)
    np.testing.assert_allclose(frame[20, 20], mixed, atol=0.51)


def test_objects_move_and_stay_within_the_frame(library):
    for clip in plans(library, num_frames=40):
        for actor in clip.actors:
            assert ((actor.place >= 0) & (actor.place <= 1)).all()
            assert ((actor.side >= 0.25) & (actor.side <= 0.45)).all()
            steps = np.abs(np.diff(actor.place, axis=0))
            assert steps.max() < 0.16 and (steps > 0.02).mean() > 0.8
            turns = np.diff(np.sign(np.diff(actor.place, axis=0)), axis=0)
            assert (turns != 0).any(), "in 40 s every object meets an edge"


def test_what_happens_in_a_clip(library):
    clips = plans(library, count=200)
    for clip in clips:
        heard = [source.class_index for source in clip.sources]
        shown = [actor.class_index for actor in clip.actors]
        assert 1 <= len(set(heard)) == len(heard) <= 3
        assert len(set(shown)) == len(shown) and set(heard) & set(shown)
        assert all(source.active.any() for source in clip.sources)
        active = {source.class_index: source.active for source in clip.sources}
        for actor in clip.actors:
            silence = np.zeros(clip.num_frames, bool)
            np.testing.assert_array_equal(actor.sounding, active.get(actor.class_index, silence))
    several = [clip for clip in clips if len(clip.sources) > 1]
    counts = np.concatenate([sum(s.active.astype(int) for s in clip.sources) for clip in several])
    assert {0, 1, 2, 3} == set(counts)
    shown = [{actor.class_index for actor in clip.actors} for clip in clips]
    heard = [{source.class_index for source in clip.sources} for clip in clips]
    assert 0.5 < np.mean([bool(s - h) for s, h in zip(shown, heard)]) < 1, "silent objects"
    assert 0.05 < np.mean([bool(h - s) for s, h in zip(shown, heard)]) < 0.5, "out of sight"
    sounding = [np.mean([actor.sounding for actor in clip.actors]) for clip in several]
    assert 0.2 < np.mean(sounding) < 0.8


def test_constant_sources_sound_always_and_in_sight(library):
    for clip in plans(library, sources=(1, 1), constant=True):
        assert len(clip.sources) == 1 and clip.sources[0].active.all()
        assert [a.sounding.all() for a in clip.actors].count(True) == 1


def test_each_second_sounds_as_it_is_labeled(library):
    for seed, clip in enumerate(plans(library, count=12)):
        sound = mix(np.random.default_rng(seed), clip, snr=None)
        assert sound.shape == (clip.num_frames * SAMPLE_RATE,) and sound.dtype == np.float32
        # One second of sound has a spectrum with bins of 1 Hz.
        spectrum = np.abs(np.fft.rfft(sound.reshape(-1, SAMPLE_RATE), axis=1)) / SAMPLE_RATE
        active = {source.class_index: source.active for source in clip.sources}
        for label, pitch in enumerate(PITCHES, start=1):
            expected = active.get(label, np.zeros(clip.num_frames, bool))
            np.testing.assert_array_equal(spectrum[:, pitch] > 0.02, expected)
            np.testing.assert_array_equal(spectrum[:, pitch] < 0.001, ~expected)


def test_seconds_begin_and_end_softly(library):
    clip = plans(library, 1, constant=True)[0]
    sound = mix(np.random.default_rng(0), clip, snr=None).reshape(-1, SAMPLE_RATE)
    assert np.abs(sound[:, [0, -1]]).max() < 1e-3 < np.abs(sound).max()
    assert np.abs(sound[:, SAMPLE_RATE // 100 : -SAMPLE_RATE // 100]).max() > 0.1


@pytest.mark.parametrize("snr", [-10.0, 0.0, 15.0])
def test_noise_has_the_level_asked_for(library, snr):
    for seed, clip in enumerate(plans(library, count=4)):
        clean = mix(np.random.default_rng(seed), clip, snr=None).astype(float)
        noisy = mix(np.random.default_rng(seed), clip, snr=snr).astype(float)
        assert np.abs(noisy).max() <= 1
        # Loud mixtures are scaled as a whole; the noise does not correlate with the tones.
        scale = (clean @ noisy) / (clean @ clean)
        noise = noisy - scale * clean
        measured = 10 * np.log10(np.sum((scale * clean) ** 2) / np.sum(noise**2))
        assert measured == pytest.approx(snr, abs=0.3)


def test_built_in_sounds_are_heard_in_every_second_that_is_labeled():
    library = load_libraries(AssetFolders(), (), ("train",))["train"]
    for seed, clip in enumerate(plans(library, count=10)):
        seconds = mix(np.random.default_rng(seed), clip, None).reshape(-1, SAMPLE_RATE)
        level = np.sqrt(np.square(seconds).mean(1))
        heard = np.any([source.active for source in clip.sources], axis=0)
        assert (level[heard] > 0.01).all() and (level[~heard] == 0).all()
