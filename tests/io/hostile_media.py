"""Files that readers must survive: damaged ones, hand-made traps, and what is no file at all.

A file is its bytes, or a function that puts something at a path.
"""

import io
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.io.valid_media import RATE, png, riff, sound_file, tone, valid_files

Content = bytes | Callable[[Path], object]


def put(content: Content, path: Path) -> Path:
    """Makes the file."""
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    return path


def damaged(kind: str, rng: np.random.Generator) -> tuple[str, bytes]:
    """One of the valid files after a few mutations, with checksums mended half of the time."""
    files = valid_files(kind)
    name = str(rng.choice(list(files)))
    data = bytearray(files[name])
    for _ in range(rng.integers(1, 4)):
        mutation = MUTATIONS[rng.integers(len(MUTATIONS))]
        data = mutation(data, files, rng) if data else data
    if rng.random() < 0.5:
        data = mend_checksums(data)
    return name, bytes(data)


def _truncate(data, files, rng):
    return data[: rng.integers(len(data) + 1)]


def _flip_bits(data, files, rng):
    for place in rng.integers(0, len(data), rng.integers(1, 9)):
        data[place] ^= 1 << rng.integers(8)
    return data


def _overwrite(data, files, rng):
    start, length = rng.integers(len(data)), rng.integers(1, 33)
    run = rng.choice([b"\0", b"\xff", None])
    data[start : start + length] = run * length if run else rng.bytes(length)
    return data


def _extreme_number(data, files, rng):
    """In the first bytes, where sizes, rates and counts are."""
    start = rng.integers(min(len(data), 80))
    value = int(rng.choice([0, 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1]))
    data[start : start + 4] = struct.pack(rng.choice(["<I", ">I"]), value)
    return data


def _splice(data, files, rng):
    other = files[str(rng.choice(list(files)))]
    return data[: rng.integers(len(data) + 1)] + other[rng.integers(len(other)) :]


def _repeat(data, files, rng):
    start, length = rng.integers(len(data)), rng.integers(1, 200)
    return data[:start] + data[start : start + length] * int(rng.integers(2, 40)) + data[start:]


def _empty(data, files, rng):
    return data[:0]


MUTATIONS = [_truncate, *[_flip_bits, _overwrite, _extreme_number] * 3, _splice, _repeat, _empty]


def mend_checksums(data: bytearray) -> bytearray:
    """Those of png chunks and ogg pages, which would keep damage from going any deeper."""
    if data.startswith(b"\x89PNG"):
        place = 8
        while place + 12 <= len(data):
            end = place + 8 + int.from_bytes(data[place : place + 4], "big")
            data[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4, "big")
            place = end + 4
    start = data.find(b"OggS")
    while start >= 0 and start + 27 <= len(data):
        table = data[start + 27 : start + 27 + data[start + 26]]
        end = start + 27 + len(table) + sum(table)
        data[start + 22 : start + 26] = bytes(4)
        data[start + 22 : start + 26] = _ogg_crc(data[start:end]).to_bytes(4, "little")
        start = data.find(b"OggS", end)
    return data


def _ogg_crc(page: bytes) -> int:
    value = 0
    for byte in page:
        value = (value << 8 & 0xFFFFFFFF) ^ _OGG_TABLE[value >> 24 ^ byte]
    return value


def _ogg_entry(value: int) -> int:
    value <<= 24
    for _ in range(8):
        value = value << 1 ^ (0x104C11DB7 if value >> 31 else 0)
    return value


_OGG_TABLE = [_ogg_entry(byte) for byte in range(256)]


@cache
def hostile_files(kind: str) -> dict[str, Content]:
    """Hand-made files of a kind, and what is no file at all, by name."""
    suffix, make = _HOSTILE[kind]
    return make() | {f"{name}{suffix}": content for name, content in _NO_FILES.items()}


def _hostile_images() -> dict[str, Content]:
    bomb = zlib.compress(bytes(2**26))
    pixels = (b"IDAT", zlib.compress(bytes(5 * 4)))
    progressive = io.BytesIO()
    Image.new("RGB", (2048, 2048)).save(progressive, "jpeg", progressive=True)
    last_scan = progressive.getvalue()[progressive.getvalue().rindex(b"\xff\xda") : -2]
    claimed = {f"{w}x{h}.png": png(w, h, pixels) for w, h in _CLAIMED_SIZES}
    jpeg = valid_files("image")["RGB.jpg"]
    size = jpeg.index(b"\xff\xc0") + 5
    return claimed | {
        "65535x65535.jpg": jpeg[:size] + b"\xff" * 4 + jpeg[size + 4 :],
        "icc_bomb.png": png(4, 4, (b"iCCP", b"a\0\0" + bomb), pixels),
        "text_bomb.png": png(4, 4, (b"zTXt", b"a\0\0" + bomb), pixels),
        "itext_bomb.png": png(4, 4, (b"iTXt", b"a\0\1\0\0\0" + bomb), pixels),
        "texts.png": png(4, 4, *[(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6)))] * 99, pixels),
        "pixel_bomb.png": png(4, 4, (b"IDAT", bomb)),
        "huge_chunk.png": png(4, 4) + struct.pack(">I", 2**31 - 1) + b"tEXt",
        "many_scans.jpg": progressive.getvalue()[:-2] + last_scan * 2000 + b"\xff\xd9",
        "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n",
        "row.png": png(4000, 1, (b"IDAT", zlib.compress(bytes(4001)))),
        "pixel.png": png(1, 1, (b"IDAT", zlib.compress(bytes(2)))),
        "all_255.png": png(4, 4, (b"IDAT", zlib.compress((b"\0" + b"\xff" * 4) * 4))),
    }


_CLAIMED_SIZES = [(100_000, 100_000), (10_000, 10_000), (2**31 - 1, 1), (8192, 8193), (0, 5)]


def _hostile_sounds() -> dict[str, Content]:
    samples = {
        "one_sample": [0.5],
        "no_sample": [],
        "nan": [0.5, np.nan],
        "infinite": [[np.inf, -np.inf], [0.5, 0.5]],
        "greatest": np.tile([[3e38, 3e38], [-3e38, -3e38]], (2000, 1)),
        "subnormal": np.full(4000, 1e-45),
        "silence": np.zeros(4000),
        "dc": np.ones(90000),
        "channels": np.zeros((10, 1024)),
    }
    files = {f"{n}.wav": sound_file(np.array(s), "FLOAT") for n, s in samples.items()}
    for rate in (1, 3999, 4001, 44101, 999_983, 2**31 - 1):
        files[f"greatest_{rate}.wav"] = sound_file(samples["greatest"], "FLOAT", rate)
    double, flac = (
        sound_file(np.array([1e300, 0]), "DOUBLE"),
        valid_files("sound")["FLAC_PCM_16.flac"],
    )
    layout, claimed = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16), bytes([0, 255]) * 50
    sizes = struct.pack("<QQQI", 2**62, 2**62, 2**61, 0)
    hours = riff((b"fmt ", layout), (b"data", claimed))
    place = hours.index(b"data") + 4
    return files | {
        "double.wav": double,
        "claims_hours.wav": hours[:place] + b"\xf0\xff\xff\xff" + hours[place + 4 :],
        "claims_years.wav": riff(
            (b"ds64", sizes), (b"fmt ", layout), (b"data", claimed), form=b"RF64"
        ).replace(b"data" + struct.pack("<I", 100), b"data" + b"\xff" * 4),
        # STREAMINFO's 36 bits of the number of samples.
        "claims_weeks.flac": flac[:21] + bytes([flac[21] | 15]) + b"\xff" * 4 + flac[26:],
        "is_hours.wav": partial(_put_long, hours[:place]),
        "guess.raw": np.random.default_rng(0).bytes(999),
        "guess.vox": np.random.default_rng(0).bytes(999),
        "sun.au": sound_file(tone(), container="AU"),
    }


def _put_long(start: bytes, path: Path) -> None:
    path.write_bytes(start + struct.pack("<I", 2**31 - 100))
    os.truncate(path, 2**31)


def _hostile_log_mels() -> dict[str, Content]:
    one = torch.zeros(1)
    values = {
        "terabytes": one.expand(10**9, 1, 96, 64),
        "strided": torch.zeros(1, 1, 96, 64).expand(10**6, 1, 96, 64),
        "no_examples": torch.zeros(0, 1, 96, 64),
        "sparse": torch.zeros(1, 1, 96, 64).to_sparse(),
        "quantized": torch.quantize_per_tensor(torch.zeros(1, 1, 96, 64), 1.0, 0, torch.qint8),
        "array": np.zeros((1, 1, 96, 64)),
        "objects": np.array([None]),
        "great": torch.full((1, 1, 96, 64), 101.0),
        "too_great": torch.full((1, 1, 96, 64), 1e300, dtype=torch.float64),
        "nan": torch.full((1, 1, 96, 64), float("nan")),
        "dict": {"a": torch.zeros(1, 1, 96, 64)},
    }
    for dtype in (torch.bool, torch.complex64, torch.int64, torch.uint8):
        values[str(dtype)] = torch.zeros(1, 1, 96, 64, dtype=dtype)
    return {f"{name}.pkl": pickle.dumps(value) for name, value in values.items()} | {
        "nested.pkl": pickle.PROTO + b"\2" + b"]" * 100_000 + b"a" * 99_999 + b".",
        "memo.pkl": pickle.PROTO + b"\2]" + b"q\0h\0" * 1000 + b".",
        "long.pkl": pickle.PROTO + b"\2" + pickle.LONG4 + struct.pack("<i", 2**31 - 1),
        "bytes.pkl": pickle.PROTO + b"\4" + pickle.BINBYTES8 + struct.pack("<Q", 2**62),
    }


_HOSTILE = {
    "image": (".png", _hostile_images),
    "sound": (".wav", _hostile_sounds),
    "log-mel": (".pkl", _hostile_log_mels),
}

_NO_FILES: dict[str, Content] = {
    "empty": b"",
    "missing": lambda path: None,
    "a\nline": b"",
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "circle": lambda path: path.symlink_to(path),
    "large": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 2**28 + 1),
}
