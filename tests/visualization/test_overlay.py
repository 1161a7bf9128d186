import numpy as np
import pytest
from detectron2.data.catalog import Metadata
from detectron2.utils.visualizer import Visualizer

from qdformer.visualization.overlay import MIN_SIDE, Layer, overlay, to_short_side

GRAY = 120


@pytest.fixture
def metadata():
    return Metadata(
        name="drawn",
        stuff_classes=["background", "dog", "violin", "typing_on_keyboard"],
        stuff_colors=[(0, 0, 0), (220, 20, 20), (20, 200, 40), (40, 40, 60)],
        ignore_label=255,
    )


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def difference(first, second):
    return np.abs(first.astype(int) - second).max(initial=0)


@pytest.fixture
def scene():
    """All that is drawn in one label map: a hole, two objects of a class, one at the corner."""
    labels = np.zeros((240, 300), np.uint8)
    labels[20:140, 30:180] = 1
    labels[60:100, 80:120] = 0
    labels[150:220, 40:90] = labels[20:60, 200:290] = 2
    labels[200:, 250:] = 3
    labels[100:120, 200:220] = 255
    return labels


@pytest.mark.parametrize("size", [(224, 224), (360, 640), (300, 224)])
def test_frame_without_objects_is_unchanged(metadata, size):
    image = noise(*size)
    labels = np.zeros(size, np.uint8)
    labels[10:50, 20:90] = 255
    labels[100:150, 20:90] = 77  # a class without a name
    np.testing.assert_array_equal(overlay(image, labels, metadata), image)


@pytest.mark.parametrize(
    ("size", "enlarged"), [((64, 64), (224, 224)), ((64, 96), (224, 336)), ((120, 80), (336, 224))]
)
def test_small_frames_are_enlarged(metadata, size, enlarged):
    image = noise(*size)
    drawn = overlay(image, np.zeros(size, np.uint8), metadata)
    assert drawn.shape == (*enlarged, 3) and drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn, to_short_side(image, MIN_SIDE))
    plain = np.full((*size, 3), GRAY, np.uint8)
    assert (overlay(plain, np.zeros(size, np.uint8), metadata) == GRAY).all()


@pytest.mark.parametrize("side", [64, 256])
def test_only_the_region_is_painted_and_in_its_color(metadata, side):
    image = np.full((side, side, 3), GRAY, np.uint8)
    labels = np.zeros((side, side), np.uint8)
    top, bottom, left, right = (int(part * side) for part in (0.25, 0.75, 0.125, 0.875))
    labels[top:bottom, left:right] = 2
    drawn = overlay(image, labels, metadata, alpha=0.5)

    scale = len(drawn) / side
    inside = np.zeros(drawn.shape[:2], bool)
    # One pixel of white edge lies around what is painted.
    rows = slice(int(top * scale) - 2, int(bottom * scale) + 2)
    inside[rows, int(left * scale) - 2 : int(right * scale) + 2] = True
    assert (drawn[~inside] == GRAY).all()

    # A corner of the region, where neither the edge nor the name is.
    corner = drawn[int(top * scale) + 4 : int(top * scale) + 30, int(left * scale) + 4 :][:, :30]
    blend = (np.array(metadata.stuff_colors[2]) + GRAY) / 2
    assert np.abs(corner.astype(float) - blend).max() <= 2


@pytest.mark.parametrize("alpha", [0.2, 0.9])
def test_alpha_is_the_opacity(metadata, alpha):
    image = np.full((240, 240, 3), GRAY, np.uint8)
    labels = np.ones((240, 240), np.uint8)
    drawn = overlay(image, labels, metadata, alpha=alpha)
    blend = alpha * np.array(metadata.stuff_colors[1]) + (1 - alpha) * GRAY
    assert np.abs(drawn[20, 20] - blend).max() <= 2


def test_ring_with_a_hole_keeps_the_hole(metadata):
    image = np.full((240, 240, 3), GRAY, np.uint8)
    labels = np.zeros((240, 240), np.uint8)
    labels[20:220, 20:220] = 1
    labels[60:100, 60:180] = 0
    drawn = overlay(image, labels, metadata)
    assert (drawn[62:98, 62:178] == GRAY).all()
    assert drawn[40, 40, 0] > GRAY > drawn[40, 40, 1]


def test_label_map_of_another_size_is_brought_to_the_frame(metadata):
    image = noise(256, 256)
    labels = np.zeros((64, 64), np.uint8)
    labels[16:48, 8:40] = 1
    large = labels.repeat(4, axis=0).repeat(4, axis=1)
    np.testing.assert_array_equal(
        overlay(image, labels, metadata), overlay(image, large.astype(np.int64), metadata)
    )


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_names_stay_inside_the_frame(metadata, corner):
    def extent(rows, columns):
        labels = np.zeros((256, 256), np.uint8)
        labels[rows, columns] = 3
        background = np.full((256, 256, 3), GRAY, np.uint8)
        black = (overlay(background, labels, metadata).max(axis=2) < 60).nonzero()
        return [axis.max() - axis.min() for axis in black]

    edges = [slice(0, 6), slice(250, 256)]
    at_the_edge = extent(edges[corner[0]], edges[corner[1]])
    in_the_middle = extent(slice(126, 132), slice(126, 132))
    assert np.abs(np.subtract(at_the_edge, in_the_middle)).max() <= 2


def test_names_of_neighbors_do_not_cover_each_other(metadata):
    image = np.full((256, 256, 3), GRAY, np.uint8)

    def black(*classes):
        labels = np.zeros((256, 256), np.uint8)
        for label in classes:
            labels[120:136, 100 + 20 * label : 120 + 20 * label] = label
        return (overlay(image, labels, metadata).max(axis=2) < 60).sum()

    assert black(1, 2) == pytest.approx(black(1) + black(2), rel=0.05)


def test_inputs_are_not_changed(metadata):
    image, labels = noise(64, 64), np.ones((64, 64), np.uint8)
    image_before, labels_before = image.copy(), labels.copy()
    overlay(image, labels, metadata)
    np.testing.assert_array_equal(image, image_before)
    np.testing.assert_array_equal(labels, labels_before)


@pytest.mark.parametrize("size", [(64, 96), (720, 300), (224, 224)])
def test_to_short_side_keeps_proportions_and_color(size):
    image = np.full((*size, 3), (10, 120, 250), np.uint8)
    resized = to_short_side(image, 224)
    assert min(resized.shape[:2]) == 224
    assert resized.shape[1] / resized.shape[0] == pytest.approx(size[1] / size[0], rel=0.01)
    assert (resized == (10, 120, 250)).all()


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1])
def test_layer_over_a_picture_is_the_overlay(metadata, scene, alpha):
    layer = Layer.draw(scene, scene.shape, metadata, alpha)
    for seed in range(2):
        image = noise(*scene.shape, seed)
        drawn = layer.over(image)
        assert drawn.dtype == np.uint8
        assert difference(drawn, overlay(image, scene, metadata, alpha)) <= 2


def test_layer_of_a_smaller_label_map_has_the_picture_s_size(metadata, scene):
    image = noise(480, 600)
    drawn = Layer.draw(scene, (480, 600), metadata).over(image)
    assert difference(drawn, overlay(image, scene, metadata)) <= 2


def test_layer_does_not_change_the_picture(metadata, scene):
    image = noise(*scene.shape)
    before = image.copy()
    Layer.draw(scene, scene.shape, metadata).over(image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("label", [0, 4, 77, 255])
def test_layer_without_objects_costs_nothing(metadata, label, monkeypatch):
    monkeypatch.delattr(Visualizer, "draw_sem_seg")
    image = noise(300, 240)
    layer = Layer.draw(np.full((300, 240), label, np.uint8), (300, 240), metadata)
    assert layer.over(image) is image
    moved = layer.moved(np.ones((300, 240, 2), np.float32))
    assert moved.over(image) is image


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (9, 2), (2, 2), (3, 3), (223, 400), (65, 49)])
def test_layers_of_small_pictures_have_no_names(metadata, size):
    """A name stands on black, darker than the picture and all colors of classes 1 and 2."""
    image = np.full((*size, 3), 255, np.uint8)
    layer = Layer.draw(np.full(size, 2, np.uint8), size, metadata)
    for drawn in (layer.over(image), layer.moved(np.zeros((*size, 2), np.float32)).over(image)):
        assert drawn.shape == image.shape
        assert drawn.max(axis=2).min() >= 200


def test_shapes_follow_and_names_stay(metadata):
    labels = np.zeros((300, 400), np.uint8)
    labels[100:200, 100:200] = 1
    gray = np.full((300, 400, 3), GRAY, np.uint8)
    layer = Layer.draw(labels, labels.shape, metadata, alpha=0.5)
    drawn = layer.over(gray)
    motion = np.full((300, 400, 2), (-40, 25), np.float32)
    moved = layer.moved(motion).over(gray)

    def box(mask):
        rows, columns = mask.nonzero()
        return rows.min(), rows.max(), columns.min(), columns.max()

    def shape(picture):
        return (picture[..., 0] > GRAY + 20) & (picture[..., 1] < GRAY - 20)

    def name(picture):
        return box(picture.max(axis=2) < 60)

    shift = np.array([-25, -25, 40, 40])
    np.testing.assert_array_equal(box(shape(moved)), box(shape(drawn)) + shift)
    assert name(moved) == name(drawn)
    # The first layer is as it was.
    np.testing.assert_array_equal(layer.over(gray), drawn)


def test_layer_that_does_not_move_is_the_same(metadata, scene):
    image = noise(*scene.shape)
    layer = Layer.draw(scene, scene.shape, metadata)
    still = layer.moved(np.zeros((*scene.shape, 2), np.float32))
    np.testing.assert_array_equal(still.over(image), layer.over(image))


def test_what_comes_from_outside_is_not_painted(metadata):
    labels = np.full((240, 300), 1, np.uint8)
    image = noise(240, 300)
    motion = np.full((240, 300, 2), (200, 0), np.float32)
    moved = Layer.draw(labels, labels.shape, metadata).moved(motion).over(image)
    unpainted = (moved == image).all(axis=2).mean(axis=0)
    assert unpainted[:95].max() < 0.5
    # Names stay, in the middle of the picture.
    assert unpainted[101:].min() > 0.5 and (unpainted[180:] == 1).all()


@pytest.mark.parametrize("name", [r"$\frac{$", "x" * 20000, "a\nb", "狗", "\udcff"])
def test_any_name_is_drawn_as_text(name):
    names = {"stuff_classes": ["background", name], "stuff_colors": [(0, 0, 0), (200, 30, 30)]}
    metadata = Metadata(ignore_label=255, **names)
    labels = np.zeros((64, 96), np.uint8)
    labels[20:50, 20:70] = 1
    image = np.zeros((64, 96, 3), np.uint8)
    plain = overlay(image, labels, Metadata(ignore_label=255, **names | {
        "stuff_classes": ["background", " "]}))  # fmt: skip
    drawn = overlay(image, labels, metadata)
    assert drawn.shape == plain.shape
    assert (drawn != plain).any()
