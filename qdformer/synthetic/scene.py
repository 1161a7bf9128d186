"""One composed clip: what is in it, what it looks like, what it sounds like.

All chance comes from the generator that is handed in: first to `plan_clip`, then to `mix`. So the
same seed gives the same clip, whoever makes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torchaudio.functional import add_noise

from qdformer.audio.log_mel import SAMPLE_RATE
from qdformer.synthetic.asset_readers import (
    FADE,
    loud_starts,
    read_background,
    read_cutout,
    read_sound,
)
from qdformer.synthetic.assets import Asset, Library

_LEVEL, _PEAK = 0.08, 0.6  # root mean square and greatest peak of a sounding second
_GAIN = 3.0  # decibels up or down
_SOUNDS, _STAYS = 0.6, 0.35  # chances to sound, and to do as in the second before
_OUT_OF_SIGHT = 0.15  # chance, for all sources but the first
_SIDES = (0.25, 0.45)  # the longer side of an object over that of the frame
_SPEEDS = (0.03, 0.15)  # share of the free way a second
_GROWTH = 0.05  # a second
# Chances of 0, 1 and 2 silent objects; beside a single source there is mostly one.
_SILENT_BESIDE_ONE, _SILENT_BESIDE_MANY = (0.1, 0.6, 0.3), (0.3, 0.5, 0.2)


@dataclass(frozen=True)
class Source:
    """A class that sounds: ``active`` (T,) bool tells in which seconds."""

    class_index: int
    sound: Asset
    active: np.ndarray


@dataclass(frozen=True)
class Actor:
    """An object on screen.

    ``class_index`` counts from 1; ``sounding`` (T,) bool; ``place`` (T, 2) float in [0, 1], the
    share of the free way to the right and down; ``side`` (T,) float, the longer side as a share of
    the frame's.
    """

    class_index: int
    cutout: Asset
    mirrored: bool
    sounding: np.ndarray
    place: np.ndarray
    side: np.ndarray


@dataclass(frozen=True)
class Clip:
    """The plan of a clip; ``actors`` from the rearmost to the foremost."""

    num_frames: int
    sources: tuple[Source, ...]
    actors: tuple[Actor, ...]
    background: Asset
    crop: tuple[float, float, float]
    noise: Asset


def plan_clip(
    rng: np.random.Generator,
    library: Library,
    num_frames: int,
    sources: tuple[int, int],
    constant: bool = False,
    first_heard: bool = False,
) -> Clip:
    """Draws what happens in a clip.

    Args:
        rng: the clip's generator.
        library: the assets to choose from; its classes count from 1 in their order.
        num_frames: frames and seconds (T).
        sources: the least and the greatest number of sources that sound; all are of different
            classes, and at least one is on screen.
        constant: every source sounds in every second, in sight.
        first_heard: a single source sounds in the first second, the only one that is annotated.
    """
    names = list(library.sounds)
    count = int(rng.integers(sources[0], sources[1] + 1))
    chances = _SILENT_BESIDE_ONE if count == 1 else _SILENT_BESIDE_MANY
    silent = min(int(rng.choice(len(chances), p=chances)), len(names) - count)
    chosen = rng.permutation(len(names))[: count + silent]
    active = _activity(rng, count, num_frames, constant)
    if first_heard and count == 1:
        active[0, 0] = True
    heard = tuple(
        Source(int(index) + 1, _choose(rng, library.sounds[names[index]]), active[i])
        for i, index in enumerate(chosen[:count])
    )
    starts = _spread(rng, count + silent)
    actors = []
    for i, index in enumerate(chosen):
        hidden = rng.random() < _OUT_OF_SIGHT and 0 < i < count and not constant
        sounding = active[i] if i < count else np.zeros(num_frames, bool)
        cutout = _choose(rng, library.cutouts[names[index]])
        actor = _actor(rng, int(index) + 1, cutout, sounding, starts[i])
        actors += [] if hidden else [actor]
    return Clip(
        num_frames=num_frames,
        sources=heard,
        actors=tuple(actors[i] for i in rng.permutation(len(actors))),
        background=_choose(rng, library.backgrounds),
        crop=(rng.uniform(0.6, 1.0), rng.random(), rng.random()),
        noise=_choose(rng, library.noise),
    )


def draw_frames(clip: Clip, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draws the frames one by one.

    Args:
        clip: the plan.
        size: height and width H of the square frames, pixels.

    Yields:
        A frame (H, H, 3) uint8 RGB and its labels (H, H) uint8: the class of the foremost object
        whose alpha is above one half at the pixel; 0 where it is silent or there is none.
    """
    background = _background(clip, size)
    for t in range(clip.num_frames):
        frame, labels = background.copy(), np.zeros((size, size), np.uint8)
        for actor in clip.actors:
            layer, left, top = placed(actor, t, size)
            window = np.s_[top : top + layer.shape[0], left : left + layer.shape[1]]
            alpha = layer[..., 3]
            frame[window] *= 1 - alpha[..., None] / 255
            frame[window] += layer[..., :3]
            labels[window][alpha > 127.5] = actor.class_index if actor.sounding[t] else 0
        yield np.clip(frame.round(), 0, 255).astype(np.uint8), labels


def placed(actor: Actor, t: int, size: int) -> tuple[np.ndarray, int, int]:
    """Scales an object for frame ``t``.

    Returns:
        (h, w, 4) float32 RGBA, premultiplied, 0 to 255, and the column and row of its top left
        corner; it lies within the frame of ``size`` pixels.
    """
    cutout = read_cutout(actor.cutout)
    height, width = cutout.shape[:2]
    scale = actor.side[t] * size / max(height, width)
    shape = max(round(width * scale), 1), max(round(height * scale), 1)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    layer = cv2.resize(cutout, shape, interpolation=method)
    if actor.mirrored:
        layer = layer[:, ::-1]
    left, top = (round(p * (size - s)) for p, s in zip(actor.place[t], shape, strict=True))
    return layer, left, top


def mix(rng: np.random.Generator, clip: Clip, snr: float | None) -> np.ndarray:
    """Mixes the sound of a clip.

    Args:
        rng: the clip's generator, as `plan_clip` left it.
        clip: the plan.
        snr: decibels between all sources together and the noise, over the whole clip; None for no
            noise.

    Returns:
        (T * 16000,) float32, mono, 16 kHz, within [-1, 1]. Second t holds the sources that sound in
        frame t.
    """
    mixture = np.zeros((clip.num_frames, SAMPLE_RATE), np.float32)
    for source in clip.sources:
        for t in np.flatnonzero(source.active):
            mixture[t] += _second(rng, source.sound)
    waveform = mixture.reshape(-1)
    if snr is not None:
        start = int(rng.choice(loud_starts(clip.noise)))
        noise = np.resize(np.roll(read_sound(clip.noise), -start), waveform.size)
        tensors = (torch.from_numpy(array) for array in (waveform, noise))
        waveform = add_noise(*tensors, snr=torch.tensor(float(snr))).numpy()
    return waveform / max(1.0, np.abs(waveform).max() / 0.99)


def _second(rng: np.random.Generator, sound: Asset) -> np.ndarray:
    start = int(rng.choice(loud_starts(sound)))
    second = read_sound(sound)[start : start + SAMPLE_RATE].copy()
    ramp = np.sin(np.linspace(0, np.pi / 2, int(FADE * SAMPLE_RATE), dtype=np.float32)) ** 2
    second[: ramp.size] *= ramp
    second[-ramp.size :] *= ramp[::-1]
    # Clicks reach the peak long before the level.
    gain = min(_LEVEL / np.sqrt(np.mean(second**2)), _PEAK / np.abs(second).max())
    return second * np.float32(gain * 10 ** (rng.uniform(-_GAIN, _GAIN) / 20))


def _activity(rng: np.random.Generator, count: int, num_frames: int, constant: bool) -> np.ndarray:
    """(count, T) bool: which source sounds in which second, each at least once."""
    if constant:
        return np.ones((count, num_frames), bool)
    active = rng.random((count, num_frames)) < _SOUNDS
    stays = rng.random((count, num_frames)) < _STAYS
    for t in range(1, num_frames):
        active[:, t] = np.where(stays[:, t], active[:, t - 1], active[:, t])
    never = ~active.any(1)
    active[never, rng.integers(0, num_frames, count)[never]] = True
    return active


def _spread(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Places apart from each other: each the farthest of a few from those before it."""
    places: list[np.ndarray] = []
    for _ in range(count):
        tries = rng.random((6, 2))
        gaps = [min((np.abs(p - q).max() for q in places), default=0) for p in tries]
        places.append(tries[int(np.argmax(gaps))])
    return places


def _actor(
    rng: np.random.Generator,
    class_index: int,
    cutout: Asset,
    sounding: np.ndarray,
    start: np.ndarray,
) -> Actor:
    t = np.arange(sounding.size)
    speed = rng.uniform(*_SPEEDS, 2) * rng.choice([-1, 1], 2)
    way = start + t[:, None] * speed
    growth = rng.uniform(-_GROWTH, _GROWTH)
    return Actor(
        class_index=class_index,
        cutout=cutout,
        mirrored=bool(rng.random() < 0.5),
        sounding=sounding,
        place=1 - np.abs((way % 2) - 1),
        side=np.clip(rng.uniform(*_SIDES) * (1 + growth) ** t, *_SIDES),
    )


def _background(clip: Clip, size: int) -> np.ndarray:
    picture = read_background(clip.background)
    part, x, y = clip.crop
    side = max(int(part * min(picture.shape[:2])), 1)
    left, top = int(x * (picture.shape[1] - side)), int(y * (picture.shape[0] - side))
    picture = picture[top : top + side, left : left + side]
    method = cv2.INTER_AREA if size < side else cv2.INTER_LINEAR
    return cv2.resize(picture, (size, size), interpolation=method).astype(np.float32)


def _choose(rng: np.random.Generator, assets: tuple[Asset, ...]) -> Asset:
    return assets[int(rng.integers(len(assets)))]
