"""Small valid files of every kind that the readers know, and of some that they refuse."""

import io
import pickle
import struct
import zlib
from functools import cache

import numpy as np
import soundfile
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

HEIGHT, WIDTH, RATE = 16, 24, 16000


@cache
def valid_files(kind: str) -> dict[str, bytes]:
    """Files of a kind, image, sound or log-mel, by a name that tells their format."""
    return {"image": _images, "sound": _sounds, "log-mel": _log_mels}[kind]()


def _images() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    labels = Image.fromarray(rng.integers(0, 3, (HEIGHT, WIDTH), np.uint8))
    picture = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    text = PngInfo()
    text.add_text("a", "b" * 50, zip=True)
    text.add_itxt("c", "d" * 50, "en", "e", zip=True)
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    files = {}

    def save(name, image, **options):
        file = io.BytesIO()
        image.save(file, name.rpartition(".")[2].replace("jpg", "jpeg"), **options)
        files[name] = file.getvalue()

    for mode in ("1", "L", "LA", "RGB", "RGBA", "P"):
        save(f"{mode}.png", picture.convert(mode), pnginfo=text, exif=exif, icc_profile=b"i" * 40)
    save("labels.png", labels)
    save("labels_p.png", _with_palette(labels))
    save("transparent_p.png", _with_palette(labels), transparency=bytes([0, 128, 255]))
    save("deep.png", Image.fromarray(rng.integers(0, 65536, (HEIGHT, WIDTH), np.uint16)))
    save("animated.png", picture, save_all=True, append_images=[picture.rotate(180)], loop=0)
    for mode in ("L", "RGB", "CMYK"):
        save(f"{mode}.jpg", picture.convert(mode), exif=exif, icc_profile=b"i" * 40)
    save("progressive.jpg", picture, progressive=True, restart_marker_blocks=1)
    save("animated.gif", picture, save_all=True, append_images=[picture.rotate(180)])
    save("float.tiff", labels.convert("F"))
    save("windows.bmp", picture)
    save("web.webp", picture)
    return files


def _with_palette(labels: Image.Image) -> Image.Image:
    image = Image.fromarray(np.asarray(labels))
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    return image


def png(width: int, height: int, *chunks: tuple[bytes, bytes], depth=8, color=0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = [
        struct.pack(">I", len(data)) + name + data + zlib.crc32(name + data).to_bytes(4, "big")
        for name, data in ((b"IHDR", header), *chunks, (b"IEND", b""))
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tone(channels=1) -> np.ndarray:
    return 0.3 * np.sin(np.arange(4000)[:, None] * 0.1 * np.arange(1, channels + 1))


def sound_file(samples, subtype=None, rate=RATE, container="WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, format=container)
    return file.getvalue()


def _sounds() -> dict[str, bytes]:
    files = {
        f"{container}_{subtype}.{container.lower()}": sound_file(tone(), subtype, rate, container)
        for container, rate in (("WAV", RATE), ("RF64", 8000), ("FLAC", 44100), ("OGG", 48000))
        for subtype in soundfile.available_subtypes(container)
        if subtype != "MPEG_LAYER_III"  # is read, but not written
    }
    mpeg = sound_file(tone(), None, RATE, "MP3")
    layout = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 8000, 1, 0, 12, 1, 0, 576, 1, 0)
    files["stereo.wav"] = sound_file(tone(2))
    files["stereo.ogg"] = sound_file(tone(2), container="OGG")
    files["many.flac"] = sound_file(tone(8), container="FLAC")
    return files | {"mpeg.wav": riff((b"fmt ", layout), (b"data", mpeg)), "mpeg.mp3": mpeg}


def riff(*chunks: tuple[bytes, bytes], form: bytes = b"RIFF") -> bytes:
    """A wav file of any chunks."""
    body = b"".join(name + struct.pack("<I", len(data)) + data for name, data in chunks)
    return form + struct.pack("<I", len(body) + 4) + b"WAVE" + body


def _log_mels() -> dict[str, bytes]:
    leaf = torch.rand(2, 96, 64, dtype=torch.float64, requires_grad=True)
    return {
        f"{name}_{protocol}.pkl": pickle.dumps(value, protocol)
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
        for name, value in (
            ("released", leaf[:, None].float()),
            ("half", torch.zeros(1, 1, 96, 64, dtype=torch.float16)),
            ("view", torch.zeros(3, 1, 96, 64)[1:]),
        )
    }
