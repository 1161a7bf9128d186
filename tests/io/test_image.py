import struct
import zlib
from functools import partial

import numpy as np
import pytest
from PIL import Image

from qdformer.errors import InputError
from qdformer.io.image import read_image, read_label_map, read_rgba, read_size
from qdformer.io.palette import class_palette

# (2, 3) with every corner different, so that a flip or a transposition would show.
LABELS = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
PALETTE = class_palette(71)


def save(path, pixels, mode=None, colors=None):
    image = Image.fromarray(pixels) if mode is None else Image.fromarray(pixels).convert(mode)
    if colors is not None:
        image = Image.fromarray(pixels, "L")
        image.putpalette(np.asarray(colors, np.uint8).tobytes())
    image.save(path)
    return path


def test_frames_are_rgb(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    assert np.array_equal(read_image(save(tmp_path / "a.png", pixels)), pixels)
    with_alpha = np.dstack([pixels, np.full((4, 6), 7, np.uint8)])
    assert np.array_equal(read_image(save(tmp_path / "b.png", with_alpha)), pixels)
    gray = read_image(save(tmp_path / "c.png", pixels[..., 0]))
    assert np.array_equal(gray, np.repeat(pixels[..., :1], 3, axis=2))
    gray[:] = 0  # what is returned can be written to


def test_exif_orientation_turns_neither_frame_nor_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (4, 6, 3)
    assert read_size(tmp_path / "a.jpg") == (4, 6)


def test_size_is_read_from_the_header_alone(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((40, 60, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:60])
    assert read_size(path) == (40, 60)
    with pytest.raises(InputError, match="a.png: cannot be decoded"):
        read_image(path)


@pytest.mark.parametrize("read", [read_image, read_size, lambda p: read_label_map(p, "binary")])
def test_missing_and_undecodable_files_are_named(tmp_path, read):
    with pytest.raises(InputError, match="none.png: no such image"):
        read(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match="text.png: cannot be decoded"):
        read(tmp_path / "text.png")


@pytest.mark.parametrize(
    ("pixels", "mode", "colors"),
    [
        (LABELS * 255, None, None),
        (LABELS, None, None),
        (LABELS * 255, "1", None),
        (LABELS * 255, "RGB", None),
        (LABELS, "RGB", None),
        (LABELS * 255, "LA", None),
        (LABELS * 128, None, None),
        (LABELS, None, [(0, 0, 0), (255, 255, 255)]),
        (1 - LABELS, None, [(255, 255, 255), (0, 0, 0)]),
        (LABELS, None, [(0, 0, 0), (128, 0, 0)]),
        (LABELS, None, [(i, i, i) for i in range(256)]),
        (LABELS * 255, None, [(i, i, i) for i in range(256)]),
    ],
    ids=[
        "gray 0/255",
        "gray 0/1",
        "1 bit",
        "RGB 0/255",
        "RGB 0/1",
        "gray and alpha",
        "gray 0/128",
        "palette black, white",
        "palette white, black",
        "palette black, red",
        "gray palette 0/1",
        "gray palette 0/255",
    ],
)
def test_binary_masks_of_every_kind_are_the_same(tmp_path, pixels, mode, colors):
    labels = read_label_map(save(tmp_path / "a.png", pixels, mode, colors), "binary")
    assert labels.dtype == np.uint8 and np.array_equal(labels, LABELS)


def test_binary_masks_are_thresholded_and_not_dithered(tmp_path):
    gray = np.array([[0, 100, 127], [128, 200, 255]], np.uint8).repeat(20, 0).repeat(20, 1)
    labels = read_label_map(save(tmp_path / "a.png", gray), "binary")
    assert np.array_equal(labels, gray > 127)


@pytest.mark.parametrize("values", [(0, 1), (0, 2), (0, 100), (0, 1, 2), (0, 1, 2, 3), (0, 255)])
def test_what_is_not_black_is_object_where_nothing_is_bright(tmp_path, values):
    gray = np.array([values], np.uint8).repeat(4, 0)
    labels = read_label_map(save(tmp_path / "a.png", gray), "binary")
    assert np.array_equal(labels, gray > 0)


def test_empty_binary_mask(tmp_path):
    labels = read_label_map(save(tmp_path / "a.png", np.zeros((2, 3), np.uint8)), "binary")
    assert labels.shape == (2, 3) and not labels.any()


def test_index_masks_keep_gray_values_and_palette_indices(tmp_path):
    indices = np.array([[0, 1, 70], [255, 71, 33]], np.uint8)
    for name, colors in [("gray", None), ("palette", class_palette(256))]:
        path = save(tmp_path / f"{name}.png", indices, colors=colors)
        assert np.array_equal(read_label_map(path, "index"), indices)
    assert np.array_equal(
        read_label_map(save(tmp_path / "rgb.png", indices, "RGB"), "index"), indices
    )


def test_index_masks_with_colors_or_16_bits_are_refused(tmp_path):
    colored = save(tmp_path / "color.png", PALETTE[LABELS])
    with pytest.raises(InputError, match="color.png: a mask of class indices"):
        read_label_map(colored, "index")
    deep = save(tmp_path / "deep.png", LABELS.astype(np.uint16) * 300)
    with pytest.raises(InputError, match="deep.png: a mask of class indices"):
        read_label_map(deep, "index")


def test_every_color_of_the_palette_is_its_index(tmp_path):
    indices = np.arange(71, dtype=np.uint8)[None].repeat(2, 0)
    path = save(tmp_path / "a.png", PALETTE[indices])
    assert np.array_equal(read_label_map(path, "palette", PALETTE), indices)
    # The order of the palette is what decides, sorted or not.
    assert np.array_equal(read_label_map(path, "palette", PALETTE[::-1]), 70 - indices)
    # Metadata hold it as a list of tuples.
    as_list = [tuple(color) for color in PALETTE.tolist()]
    assert np.array_equal(read_label_map(path, "palette", as_list), indices)


def test_colors_outside_the_palette_are_ignored(tmp_path):
    colors = np.array([[(128, 0, 0), (128, 0, 1), (255, 255, 255)]], np.uint8)
    labels = read_label_map(save(tmp_path / "a.png", colors), "palette", PALETTE)
    assert labels.tolist() == [[1, 255, 255]]


def test_palette_lookup_equals_a_dictionary(tmp_path):
    random = np.random.default_rng(0)
    number = {tuple(color): index for index, color in enumerate(PALETTE.tolist())}
    for shape in ((1, 1), (1, 7), (40, 50)):
        # Channels of the palette's colors, mixed at random: some pixels have a color of it.
        for mixed in (0.0, 0.3, 1.0):
            pixels = PALETTE[np.sort(random.integers(0, 71, shape))]
            noise = PALETTE.reshape(-1)[random.integers(0, PALETTE.size, pixels.shape)]
            pixels = np.where(random.random((*shape, 1)) < mixed, noise, pixels)
            expected = [[number.get(tuple(pixel), 255) for pixel in row] for row in pixels.tolist()]
            labels = read_label_map(save(tmp_path / "a.png", pixels), "palette", PALETTE)
            assert labels.dtype == np.uint8 and labels.tolist() == expected


@pytest.mark.parametrize("mode", [None, "P"])
def test_the_brightest_channel_decides_about_binary_masks(tmp_path, mode):
    colors = np.array([[(200, 0, 1), (0, 200, 1), (0, 1, 200), (127, 127, 127)]], np.uint8)
    labels = read_label_map(save(tmp_path / "a.png", colors, mode), "binary")
    assert labels.tolist() == [[1, 1, 1, 0]]


def claim(path, width, height):
    """A png whose header claims a size, in front of the data of one pixel."""
    data = bytearray(save(path, LABELS[:1, :1]).read_bytes())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    return path


READS = [
    read_image,
    read_rgba,
    read_size,
    *(
        partial(read_label_map, label_format=f, palette=PALETTE)
        for f in ("binary", "index", "palette")
    ),
]


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("size", [(100_000, 100_000), (10_000, 10_000), (2**26 + 1, 1)])
def test_sizes_are_refused_before_anything_is_decoded(tmp_path, recwarn, read, size):
    path = claim(tmp_path / "a.png", *size)
    with pytest.raises(InputError, match=f"a.png: .*{size[0]} x {size[1]} pixels"):
        read(path)
    assert not recwarn.list


def test_the_largest_size_is_read_from_the_header(tmp_path):
    assert read_size(claim(tmp_path / "a.png", 2**20, 2**6)) == (2**6, 2**20)


@pytest.mark.parametrize("suffix", ["gif", "bmp", "tiff", "webp", "ppm", "eps"])
def test_other_formats_are_not_tried_whatever_their_name(tmp_path, suffix):
    Image.fromarray(LABELS * 255).save(tmp_path / f"a.{suffix}")
    path = (tmp_path / f"a.{suffix}").rename(tmp_path / "a.png")
    for read in READS:
        with pytest.raises(InputError, match="a.png: .*neither png nor jpeg"):
            read(path)


def test_jpegs_with_scans_without_number_are_refused(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (800, 600)).save(path, progressive=True)
    data = path.read_bytes()
    scan = data[data.rindex(b"\xff\xda") : -2]
    path.write_bytes(data[:-2] + 5 * scan + data[-2:])
    assert read_image(path).shape == (600, 800, 3)
    path.write_bytes(data[:-2] + 5000 * scan + data[-2:])
    with pytest.raises(InputError, match="a.jpg: .* scans"):
        read_image(path)


def test_frames_of_16_bits_keep_their_upper_8(tmp_path):
    deep = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    frame = read_image(save(tmp_path / "a.png", deep))
    assert frame[0, :, 0].tolist() == [0, 0, 1, 128, 255]


@pytest.mark.parametrize("white", [1, 255, 65535])
def test_binary_masks_of_16_bits(tmp_path, white):
    path = save(tmp_path / "a.png", LABELS.astype(np.uint16) * white)
    assert np.array_equal(read_label_map(path, "binary"), LABELS)


def test_of_animated_files_the_first_picture_is_taken(tmp_path):
    pictures = [Image.fromarray(LABELS * value) for value in (255, 9, 99)]
    pictures[0].save(tmp_path / "a.png", save_all=True, append_images=pictures[1:])
    assert np.array_equal(read_image(tmp_path / "a.png")[..., 0], LABELS * 255)


def test_transparency_of_every_kind(tmp_path):
    alpha = np.array([[0, 9, 255], [255, 9, 0]], np.uint8)
    gray = np.dstack([LABELS, alpha])
    color = np.dstack([LABELS, LABELS + 7, LABELS + 9, alpha])
    assert np.array_equal(read_rgba(save(tmp_path / "a.png", color)), color)
    assert np.array_equal(read_rgba(save(tmp_path / "a.png", gray))[..., [0, 3]], gray)
    Image.fromarray(LABELS).save(tmp_path / "a.png", transparency=1)
    assert np.array_equal(read_rgba(tmp_path / "a.png")[..., 3], 255 - 255 * LABELS)
    with pytest.raises(InputError, match="a.png: .*no alpha channel"):
        read_rgba(save(tmp_path / "a.png", LABELS))
