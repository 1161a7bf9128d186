"""Sounds that are synthesized, so that a data set can be composed without any download.

Every class has a timbre of its own. A *source* fixes what belongs to one instrument or animal
(pitch, tempo, brightness); a *take* of it differs in what is played. The name of a recording is
``<source>-<take>``: takes of one source belong in one split.
"""

import zlib
from collections.abc import Callable

import numpy as np
from scipy import signal

from qdformer.audio.log_mel import SAMPLE_RATE

DURATION = 5.0
_NUM_SOURCES = 20
SOUND_NAMES = tuple(f"{source:02d}-{take}" for source in range(_NUM_SOURCES) for take in "AB")
NOISE_NAMES = tuple(f"{source:02d}-A" for source in range(6))

# What to draw a source's or a take's parameters from.
Draw = np.random.Generator


def synthesize(class_name: str, name: str) -> np.ndarray:
    """Synthesises one recording of a built-in class, or of background noise.

    Args:
        class_name: one of ``SOUND_CLASSES`` or ``NOISE_CLASSES``.
        name: ``<source>-<take>``, such as those of ``SOUND_NAMES`` and ``NOISE_NAMES``.

    Returns:
        (L,) float32, mono, 16 kHz, ``DURATION`` seconds, peak 0.9; the same for the same names.
    """
    source, take = (
        np.random.default_rng(zlib.crc32(f"{class_name}/{part}".encode()))
        for part in (name.partition("-")[0], name)
    )
    sound = {**_CLASSES, **_NOISES}[class_name](source, take)
    return (0.9 * sound / np.abs(sound).max()).astype(np.float32)


def _bell(source: Draw, take: Draw) -> np.ndarray:
    pitch, decay = source.uniform(420, 900), source.uniform(0.5, 0.9)
    partials = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.74, 3.76, 5.1]) * (
        1 + source.uniform(-0.01, 0.01, 8)
    )
    weights = source.uniform(0.5, 1.0, 8) * np.array([0.4, 1, 0.8, 0.6, 0.9, 0.6, 0.5, 0.3])
    t = _time(2.5)
    stroke = sum(
        weight * np.exp(-t * (0.6 + 0.5 * ratio) / decay) * np.sin(2 * np.pi * pitch * ratio * t)
        for weight, ratio in zip(weights, partials, strict=True)
    )
    return _repeat(take, stroke, period=source.uniform(0.55, 0.9), jitter=0.03)


def _bird(source: Draw, take: Draw) -> np.ndarray:
    low, high = source.uniform(2600, 3600), source.uniform(4600, 6500)
    length, down = source.uniform(0.06, 0.13), source.random() < 0.5
    sound = np.zeros(_samples(DURATION))
    start = take.uniform(0, 0.1)
    while start < DURATION:
        for _ in range(take.integers(2, 6)):
            span = np.linspace(0, 1, _samples(length * take.uniform(0.8, 1.2)))
            sweep = span[::-1] if down else span
            glide = low + (high - low) * sweep ** take.uniform(0.7, 1.8)
            _add(sound, start, np.sin(_phase(glide)) * np.sin(np.pi * span) ** 0.7)
            start += span.size / SAMPLE_RATE + take.uniform(0.01, 0.05)
        start += take.uniform(0.08, 0.25)
    return sound


def _clock(source: Draw, take: Draw) -> np.ndarray:
    rate, pitch, tock = (
        source.uniform(3, 5.5),
        source.uniform(1500, 2600),
        source.uniform(0.75, 0.9),
    )
    t = _time(0.12)
    sound = np.zeros(_samples(DURATION))
    for count, start in enumerate(np.arange(take.uniform(0, 1 / rate), DURATION, 1 / rate)):
        tone = pitch * (1.0 if count % 2 else tock)
        ring = sum(np.sin(2 * np.pi * tone * k * t) / k for k in (1, 1.62, 2.41))
        click = (ring + 0.6 * take.standard_normal(t.size)) * np.exp(-t / 0.014)
        _add(sound, start, click * take.uniform(0.85, 1.0))
    return sound


def _drum(source: Draw, take: Draw) -> np.ndarray:
    pitch, rate = source.uniform(110, 190), source.uniform(2.5, 4.5)
    drop, length = source.uniform(0.5, 1.2), source.uniform(0.09, 0.16)
    t = _time(0.6)
    sound = np.zeros(_samples(DURATION))
    for start in np.arange(take.uniform(0, 0.5 / rate), DURATION, 1 / rate):
        glide = pitch * (1 + drop * np.exp(-t / 0.03))
        skin = np.sin(_phase(glide)) * np.exp(-t / length)
        slap = _lowpass(take.standard_normal(t.size), 1200) * np.exp(-t / 0.025)
        _add(sound, start, (skin + 0.8 * slap) * take.choice([1.0, 1.0, 0.6]))
        if take.random() < 0.3:
            _add(sound, start + 0.5 / rate, 0.6 * (skin + 0.8 * slap))
    return sound


def _guitar(source: Draw, take: Draw) -> np.ndarray:
    root, bright = source.uniform(100, 165), source.uniform(0.9, 1.6)
    spacing, pluck = source.uniform(0.16, 0.28), source.uniform(0.15, 0.3)
    chord = root * 2 ** (np.array([0, 7, 12, 16, 19, 24]) / 12)
    harmonics = np.arange(14)
    weights = np.sin(np.pi * harmonics * pluck) / np.maximum(harmonics, 1) ** bright
    t = _time(1.0)
    sound = np.zeros(_samples(DURATION))
    for start in np.arange(take.uniform(0, spacing), DURATION, spacing):
        pitch = take.choice(chord) * 2 ** (take.choice([0, 0, 5, 7]) / 12)
        # The k-th harmonic, which fades k times as fast, is the k-th power of one decaying turn.
        turn = np.exp((2j * np.pi * pitch - 0.7) * t)
        string = np.polyval(weights[::-1], turn).imag
        _add(sound, start, string * np.exp(-1.5 * t) * np.minimum(1, t / 0.003))
    return sound


def _helicopter(source: Draw, take: Draw) -> np.ndarray:
    rate, cut = source.uniform(9, 16), source.uniform(500, 1100)
    t = _time(DURATION)
    phase = _phase(rate * (1 + 0.04 * _slow(take, 0.5)))
    chop = (0.5 + 0.5 * np.cos(phase)) ** source.uniform(2, 4)
    rotor = _band(take, 40, cut) * (0.15 + chop)
    turbine = np.sin(2 * np.pi * source.uniform(1900, 2600) * t + 0.3 * np.sin(phase))
    return rotor / rotor.std() + 0.08 * turbine


def _panflute(source: Draw, take: Draw) -> np.ndarray:
    root, breath = source.uniform(480, 680), source.uniform(0.15, 0.3)
    speed, depth = source.uniform(4.5, 6), source.uniform(0.003, 0.008)
    sound = np.zeros(_samples(DURATION))
    start = 0.0
    while start < DURATION:
        length = take.choice([0.3, 0.45, 0.6])
        t = _time(length)
        pitch = root * 2 ** (take.choice([0, 2, 4, 7, 9, 12]) / 12)
        phase = _phase(pitch * (1 + depth * np.sin(2 * np.pi * speed * t)))
        tone = np.sin(phase) + 0.12 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase)
        air = signal.sosfilt(
            signal.butter(1, [pitch, min(4 * pitch, 7500)], "band", fs=SAMPLE_RATE, output="sos"),
            take.standard_normal(t.size),
        )
        shape = np.minimum(1, t / 0.05) * np.minimum(1, (length - t) / 0.05)
        _add(sound, start, (tone + breath * air / air.std()) * shape)
        start += length
    return sound


def _siren(source: Draw, take: Draw) -> np.ndarray:
    low, high = source.uniform(650, 850), source.uniform(1250, 1700)
    period, two_tone = source.uniform(0.5, 1.1), source.random() < 0.4
    wave = np.sin(2 * np.pi * _time(DURATION) / period + take.uniform(0, 2 * np.pi))
    swing = np.tanh(8 * wave) if two_tone else wave
    phase = _phase(low + (high - low) * (0.5 + 0.5 * swing))
    return sum(np.sin(k * phase) / k for k in (1, 2, 3, 4)) * (1 + 0.1 * _slow(take, 2))


def _white(source: Draw, take: Draw) -> np.ndarray:
    return take.standard_normal(_samples(DURATION))


def _pink(source: Draw, take: Draw) -> np.ndarray:
    spectrum = np.fft.rfft(_white(source, take))
    spectrum /= np.sqrt(np.maximum(np.arange(spectrum.size), 20.0))
    return np.fft.irfft(spectrum)


def _wind(source: Draw, take: Draw) -> np.ndarray:
    return _band(take, 60, source.uniform(400, 700)) * (_slow(take, 0.7) + 1.2)


def _rain(source: Draw, take: Draw) -> np.ndarray:
    drops = take.random(_samples(DURATION)) < source.uniform(0.004, 0.012)
    band = signal.butter(2, [1500, 6000], "band", fs=SAMPLE_RATE, output="sos")
    splash = signal.sosfilt(band, drops * take.standard_normal(drops.size))
    return splash / splash.std() + 0.5 * take.standard_normal(drops.size)


_CLASSES: dict[str, Callable[[Draw, Draw], np.ndarray]] = {
    "bell": _bell,
    "bird": _bird,
    "clock": _clock,
    "drum": _drum,
    "guitar": _guitar,
    "helicopter": _helicopter,
    "panflute": _panflute,
    "siren": _siren,
}
_NOISES: dict[str, Callable[[Draw, Draw], np.ndarray]] = {
    "white": _white,
    "pink": _pink,
    "wind": _wind,
    "rain": _rain,
}
SOUND_CLASSES, NOISE_CLASSES = tuple(_CLASSES), tuple(_NOISES)


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


def _time(seconds: float) -> np.ndarray:
    return np.arange(_samples(seconds)) / SAMPLE_RATE


def _phase(frequency: np.ndarray) -> np.ndarray:
    return 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE


def _add(sound: np.ndarray, start: float, event: np.ndarray) -> None:
    first = _samples(start)
    event = event[: max(sound.size - first, 0)]
    sound[first : first + event.size] += event


def _repeat(rng: Draw, event: np.ndarray, period: float, jitter: float) -> np.ndarray:
    sound = np.zeros(_samples(DURATION))
    for start in np.arange(0, DURATION, period):
        _add(sound, start + rng.uniform(0, jitter), event * rng.uniform(0.75, 1.0))
    return sound


def _lowpass(sound: np.ndarray, cut: float) -> np.ndarray:
    return signal.sosfilt(signal.butter(2, cut, fs=SAMPLE_RATE, output="sos"), sound)


def _band(rng: Draw, low: float, high: float) -> np.ndarray:
    band = signal.butter(2, [low, high], "band", fs=SAMPLE_RATE, output="sos")
    return signal.sosfilt(band, rng.standard_normal(_samples(DURATION)))


def _slow(rng: Draw, rate: float) -> np.ndarray:
    """A smooth curve within [-1, 1] that turns about ``rate`` times a second."""
    knots = rng.uniform(-1, 1, int(DURATION * rate * 2) + 4)
    return np.interp(np.linspace(0, knots.size - 1, _samples(DURATION)), range(knots.size), knots)
