import pytest
import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import nn

from qdformer.errors import InputError
from qdformer.export import onnx as onnx_export
from qdformer.export.onnx import OnnxSegmenter, export_onnx
from qdformer.modeling.inference_fusion import fuse_for_inference
from tests.samples import make_clip, small_model

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

NAMES = ["background", "bell", "drum", "siren", "violin"]
SIZES = [(64, 64), (96, 64), (42, 70)]


def varied_model():
    """Untrained, but with several codewords and classes in every clip; as few parts as will do."""
    model = small_model(
        "MODEL.QDFORMER.CLASS_THRESHOLD", 0.0,
        "MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4"],
        "MODEL.QDFORMER.ENCODER.IN_FEATURES", ["res3", "res4"],
        "MODEL.QDFORMER.DECODER_LAYERS", 1,
        "MODEL.QDFORMER.BACKGROUND_CLASS", True,
    ).eval()  # fmt: skip
    torch.manual_seed(3)
    model.pixel_mean += 100
    model.pixel_std *= 60
    decoder = model.mask_decoder
    with torch.no_grad():
        model.prototypes *= 3
        # Otherwise the sound drowns all that distinguishes the tokens.
        model.audio_encoder.projection.weight /= model.audio_encoder(
            make_clip()["audio"]
        ).tokens.std()
        for head in (decoder.mask_head, decoder.class_head, decoder.box_head):
            nn.init.normal_(head[-1].weight)
            nn.init.zeros_(head[-1].bias)
        nn.init.normal_(model.codebook.codewords)
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model, and what was read back from its file alone."""
    model = varied_model()
    path = tmp_path_factory.mktemp("onnx") / "new" / "model.onnx"
    export_onnx(model, path, NAMES)
    return model, OnnxSegmenter(path), path


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("frames", [1, 3, 5])
def test_one_file_serves_every_length_and_size(exported, frames, size):
    model, segmenter, _ = exported
    clip = make_clip(frames=frames, size=size, seed=frames)
    with torch.no_grad():
        expected, found = model([clip])[0], segmenter([clip])[0]
    assert len(expected["sem_seg"].unique()) > 1
    assert (expected["sem_seg"] != found["sem_seg"]).float().mean() <= 0.001
    vectors = {f"{name}_{part}" for name in ("global", "local") for part in ("tokens", "words")}
    assert expected.keys() - found.keys() == vectors and found.keys() <= expected.keys()
    assert found["sem_seg"].dtype == torch.uint8 and found["sem_seg"].shape == (frames, *size)
    for name in ("classes", "global_codes", "local_codes"):
        assert torch.equal(expected[name], found[name])
    for name in ("foreground", "scores", "masks"):
        torch.testing.assert_close(found[name], expected[name], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_logits_masks_and_boxes(exported, size):
    model, segmenter, _ = exported
    batch = model.collate([make_clip(frames=4, size=size)])
    inputs = onnx_export._network_inputs(batch)
    found = segmenter.session.run(
        None, {name: value.contiguous().numpy() for name, value in inputs.items()}
    )
    with torch.no_grad():
        expected = onnx_export._Network(model)(**inputs)
    assert [output.name for output in segmenter.session.get_outputs()] == list(expected)
    for value, own in zip(found, expected.values(), strict=True):
        torch.testing.assert_close(torch.from_numpy(value), own, atol=1e-3, rtol=1e-3)


def test_a_long_clip_goes_through_in_windows_and_clips_keep_their_order(exported):
    model, segmenter, _ = exported
    clips = [make_clip(frames=model.window + 3, size=(32, 32), seed=1), make_clip(seed=2)]
    with torch.no_grad():
        expected, found = model(clips), segmenter(clips)
    assert len(found[0]["sem_seg"]) == model.window + 3
    for one, other in zip(expected, found, strict=True):
        assert (one["sem_seg"] != other["sem_seg"]).float().mean() <= 0.001
        torch.testing.assert_close(other["masks"], one["masks"], atol=1e-3, rtol=1e-3)


def test_the_file_says_what_the_network_does_not_hold(exported):
    model, segmenter, path = exported
    assert segmenter.class_names == NAMES
    assert segmenter.thresholds == model.thresholds
    assert segmenter.background_class == model.background_class == 4
    assert torch.equal(segmenter.pixel_mean, model.pixel_mean)
    assert torch.equal(segmenter.pixel_std, model.pixel_std)
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


def test_the_model_stays_as_it_was(exported):
    model = exported[0]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not {"collate", "inference"} & vars(model).keys()


def test_what_cannot_be_exported_is_refused(tmp_path):
    with pytest.raises(InputError, match="FAST_INFERENCE"):
        export_onnx(fuse_for_inference(small_model()), tmp_path / "model.onnx")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="folder cannot be written"):
        export_onnx(small_model(), tmp_path / "file" / "model.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


class OneLength(nn.Module):
    def forward(self, images, log_mel, valid):
        return {"logits": images.new_ones(len(images)) + valid[:, 0]}


class NoSuchOperator(nn.Module):
    def forward(self, images, log_mel, valid):
        return {"logits": torch.cdist(valid, valid + images[:, 0, :1, :2].sum())}


def test_networks_for_one_length_and_operators_that_onnx_lacks_are_refused():
    with pytest.raises(InputError, match="images of shape .*not for clips of any length and size"):
        onnx_export._translate(OneLength(), 32)
    with pytest.raises(InputError, match="cannot be written as ONNX by torch .*cdist"):
        onnx_export._translate(NoSuchOperator(), 32)


def test_what_is_no_exported_model_is_named(tmp_path):
    with pytest.raises(InputError, match="absent.onnx: no such file"):
        OnnxSegmenter(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(InputError, match="text.onnx: cannot be read as ONNX"):
        OnnxSegmenter(tmp_path / "text.onnx")
    helper = onnx.helper
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "other", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(InputError, match="other.onnx: an ONNX file, but not of this project"):
        OnnxSegmenter(tmp_path / "other.onnx")


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install onnx onnxscript"):
        export_onnx(small_model(), tmp_path / "model.onnx")
    with pytest.raises(InputError, match="pip install onnxruntime"):
        OnnxSegmenter(tmp_path / "model.onnx")


@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("size", [(7, 7), (21, 14)])
def test_window_masks_are_those_of_timm(size, shift):
    block = SwinTransformerBlock(
        4, (28, 28), num_heads=1, window_size=7, shift_size=shift, dynamic_mask=True
    )
    x = torch.zeros(1, *size, 4)
    expected, found = block.get_attn_mask(x), onnx_export._shifted_window_mask(block, x)
    assert (found is None) == (shift == 0)
    assert found is None or torch.equal(found, expected)
