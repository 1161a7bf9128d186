import inspect

import pytest
import torch

from qdformer.errors import InputError
from qdformer.modeling.codebook import Quantized
from qdformer.modeling.meta_arch import QDFormer, QDFormerBaseline
from tests.samples import make_clip, small_config, small_model

SWITCHES = {
    "row 6, all": [],
    "row 5, without local calibration": ["MODEL.QDFORMER.LOCAL_CALIBRATION", False],
    "row 4, without recombination": [
        "MODEL.QDFORMER.LOCAL_CALIBRATION", False, "MODEL.QDFORMER.RECOMBINATION", False],
    "row 3, not quantized": [
        "MODEL.QDFORMER.LOCAL_CALIBRATION", False, "MODEL.QDFORMER.RECOMBINATION", False,
        "MODEL.QDFORMER.QUANTIZATION", False],
    "row 1, baseline": ["MODEL.META_ARCHITECTURE", "QDFormerBaseline"],
    "codewords by gradient": ["MODEL.QDFORMER.CODEBOOK.UPDATE", "gradient"],
    "Fig. 3 and Eq. 9 as written": [
        "MODEL.QDFORMER.CODEBOOK.UPDATE", "gradient",
        "MODEL.QDFORMER.CODEBOOK.UNIT_NORM", False, "MODEL.QDFORMER.CODEBOOK.REVIVE_BELOW", 0.0,
        "MODEL.QDFORMER.CODEBOOK.FADE_IN", 0.0, "MODEL.QDFORMER.LOSS.QUANT_MEAN", False,
        "MODEL.QDFORMER.LOSS.GLOBAL", 0.0],
    "frames on their own": ["MODEL.QDFORMER.ENCODER.TEMPORAL_WINDOW", 0],
    "background as a class": ["MODEL.QDFORMER.BACKGROUND_CLASS", True],
    "last layer only": ["MODEL.QDFORMER.DEEP_SUPERVISION", False],
    "focal pixel loss": ["MODEL.QDFORMER.LOSS.PIXEL", "focal"],
    "sound in patches": ["MODEL.AUDIO.PATCHES", True],
    "sound in patches, baseline": [
        "MODEL.AUDIO.PATCHES", True, "MODEL.META_ARCHITECTURE", "QDFormerBaseline"],
    "a level that nothing reads": ["MODEL.QDFORMER.ENCODER.IN_FEATURES", ["res3", "res4"]],
    "a level of timm's that nothing reads": [
        "MODEL.QDFORMER.ENCODER.IN_FEATURES", ["res3"], "MODEL.TIMM.DROP_PATH_RATE", 0.0,
        "MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", "pvt_v2_b0"],
    "one token": ["MODEL.QDFORMER.NUM_TOKENS", 1],
}  # fmt: skip


def train_step(model, clips):
    losses = model.train()(clips)
    sum(losses.values()).backward()
    return losses


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_every_parameter_gets_a_gradient(switches, storage):
    model = small_model(*switches)
    losses = train_step(model, [make_clip(seed=1), make_clip(frames=2, seed=2)])
    assert all(loss.isfinite() for loss in losses.values())
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    # With a single query, attention among queries has nothing to choose from.
    single = model.prototypes.shape[0] == 1
    assert [name for name in without if not (single and "self_attention" in name)] == []


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_a_batch_says_what_its_clips_say_alone(switches):
    model = small_model(*switches).eval()
    clips = [make_clip(frames=3, seed=1), make_clip(frames=1, seed=2), make_clip(frames=2, seed=3)]
    with torch.no_grad():
        together = model(clips)
        alone = [model([clip])[0] for clip in clips]
        reverse = model(clips[::-1])[::-1]
    for one, other, third in zip(together, alone, reverse):
        for name in ("scores", "masks", "foreground"):
            torch.testing.assert_close(one[name], other[name], atol=1e-4, rtol=1e-3)
            torch.testing.assert_close(one[name], third[name], atol=1e-4, rtol=1e-3)
        if one["local_codes"] is not None:
            assert torch.equal(one["local_codes"], other["local_codes"])
            assert torch.equal(one["global_codes"], third["global_codes"])


def test_output_of_a_clip():
    model = small_model().eval()
    clip = make_clip(frames=4) | {"height": 90, "width": 70}
    with torch.no_grad():
        output = model([clip])[0]
    assert output["sem_seg"].shape == output["foreground"].shape == (4, 90, 70)
    assert output["sem_seg"].dtype == torch.uint8
    assert output["scores"].shape == output["classes"].shape == (4, 5)
    assert output["masks"].shape == (4, 5, 16, 16)
    for name in ("global", "local"):
        assert output[f"{name}_codes"].shape == (4, 5)
        assert output[f"{name}_tokens"].shape == output[f"{name}_words"].shape == (4, 5, 32)


@pytest.mark.parametrize("patches", [False, True])
def test_prototypes_can_read_different_things_where_a_frame_has_patches(patches):
    """Of one key, all of them read the same."""
    model = small_model("MODEL.AUDIO.PATCHES", patches).eval()
    audio = model.audio_encoder(make_clip()["audio"])
    assert audio.tokens.shape[1:] == (25 if patches else 1, 32)
    layer = model.local_calibration.decoder.decoder.layers[0]
    queries = 10 * model.prototypes.expand(3, -1, -1)
    keys = audio.tokens + audio.position
    read = layer.cross_attention(queries, keys, audio.tokens)
    assert torch.allclose(read, read[:, :1], atol=1e-6) is not patches


def test_any_number_of_frames_at_inference():
    model = small_model().eval()
    with torch.no_grad():
        for frames in (1, 7):
            assert model([make_clip(frames=frames)])[0]["sem_seg"].shape[0] == frames


def test_without_calibration_a_token_keeps_its_codeword_throughout_the_clip():
    model = small_model("MODEL.QDFORMER.LOCAL_CALIBRATION", False).eval()
    with torch.no_grad():
        output = model([make_clip(frames=3)])[0]
    assert torch.equal(output["local_codes"], output["global_codes"])


@pytest.mark.parametrize("patches", [False, True])
def test_the_sound_of_a_frame_reaches_its_tokens_only(patches):
    """Local calibration hears frame t alone: another sound at t changes the tokens at t alone."""
    model = small_model("MODEL.AUDIO.PATCHES", patches).eval()
    # Many codewords, so that every change of a token shows in its code.
    model.codebook.codewords.copy_(torch.randn(16, 32))
    clip, changed = make_clip(frames=3), make_clip(frames=3)
    changed["audio"][1] += 3 * torch.randn(1, 96, 64)
    inputs = [model.audio_encoder(c["audio"]) for c in (clip, changed)]
    first, second = (
        model.local_calibration.decoder(model.prototypes, audio.tokens, audio.position)
        for audio in inputs
    )
    torch.testing.assert_close(first[[0, 2]], second[[0, 2]])
    assert not torch.allclose(first[1], second[1])


def test_local_tokens_speak_the_words_of_their_own_clip():
    """Of a batch of clips of several lengths."""
    model, lengths = small_model().eval(), [1, 4, 2]
    audio = model.audio_encoder(torch.randn(sum(lengths), 1, 96, 64))
    tokens = torch.randn(len(lengths), 5, 32)
    codes = torch.tensor([[3, 3, 3, 3, 3], [1, 7, 1, 7, 1], [0, 4, 8, 12, 15]])
    heard = Quantized(tokens, tokens, codes, torch.zeros(len(lengths), 5))
    local = model.local_calibration(model.prototypes, audio, heard, model.codebook, lengths)
    for words, spoken in zip(codes, local.codes.split(lengths)):
        assert set(spoken.flatten().tolist()) <= set(words.tolist())


def test_local_tokens_never_move_the_codebook(storage):
    """A step whose loss is the local tokens' alone leaves no gradient on the codewords."""
    model = small_model("MODEL.QDFORMER.CODEBOOK.UPDATE", "gradient").train()
    audio = model.audio_encoder(make_clip()["audio"])
    before = model.codebook.state_dict()["usage"].clone()
    tokens = torch.randn(1, 5, 32)
    heard = Quantized(tokens, tokens, torch.randint(16, (1, 5)), torch.zeros(1, 5))
    local = model.local_calibration(model.prototypes, audio, heard, model.codebook, [3])
    (local.loss.sum() + local.tokens.square().sum()).backward()
    assert model.codebook.codewords.grad is None
    model.codebook.step()
    assert torch.equal(model.codebook.usage, before)
    assert model.prototypes.grad.abs().sum() > 0


def test_clips_without_objects_and_without_annotation(storage):
    model = small_model()
    silent = make_clip(objects=0)
    unseen = make_clip(seed=1, annotated=torch.zeros(3, dtype=torch.bool))
    for clips in ([silent], [unseen], [silent, unseen]):
        losses = train_step(model, clips)
        assert all(loss.isfinite() for loss in losses.values())


def test_frames_of_different_size_share_a_batch():
    model = small_model().eval()
    clips = [make_clip(size=(64, 96)), make_clip(size=(48, 64), seed=1)]
    with torch.no_grad():
        outputs = model(clips)
    assert [tuple(output["sem_seg"].shape) for output in outputs] == [(3, 64, 96), (3, 48, 64)]


def test_a_clip_does_not_depend_on_the_size_of_its_neighbors():
    model = small_model().eval()
    small, large = make_clip(size=(48, 64)), make_clip(size=(96, 128), seed=1)
    with torch.no_grad():
        together, alone = model([small, large])[0], model([small])[0]
    assert all(torch.equal(together[name], alone[name]) for name in ("sem_seg", "masks", "scores"))


def test_l_quant_as_written_and_as_a_mean():
    models = [small_model("MODEL.QDFORMER.LOSS.QUANT_MEAN", mean) for mean in (True, False)]
    terms = [torch.rand(2, 5), torch.rand(4, 5)]
    tokens = [torch.zeros(*term.shape, 32) for term in terms]
    quantized = [Quantized(each, each, None, term) for each, term in zip(tokens, terms)]
    mean, written = (model._quantization_loss(*quantized, clips=2) for model in models)
    torch.testing.assert_close(written, (terms[0].sum() + terms[1].sum()) / 2)
    torch.testing.assert_close(mean, terms[0].mean() + terms[1].mean())


def test_codebook_use_is_logged(storage):
    train_step(small_model(), [make_clip()])
    assert 0 < storage.latest()["codebook/usage"][0] <= 1
    assert 1 <= storage.latest()["codebook/perplexity"][0] <= 16
    for name in ("global", "local"):
        assert 0 <= storage.latest()[f"codebook/{name}_distance"][0] <= 4


def test_global_supervision_teaches_the_global_tokens_the_task(storage):
    """Without it nothing but the recombination reads them, whose gradient is next to nothing."""

    def gradient(*overrides):
        model = small_model("MODEL.QDFORMER.RECOMBINATION", False, *overrides)
        losses = model.train()([make_clip()])
        sum(loss for name, loss in losses.items() if name != "loss_quant").backward()
        last = model.global_decomposition.decoder.decoder.layers[-1].norm2.weight
        return last.grad

    assert gradient().abs().sum() > 0
    assert gradient("MODEL.QDFORMER.LOSS.GLOBAL", 0.0) is None


def test_the_figure_fits_on_a_page():
    for model in (QDFormer, QDFormerBaseline):
        source = inspect.getsource(model.segment).split('"""')[-1]
        lines = [line for line in source.splitlines() if line.strip()]
        assert len(lines) <= 25


def test_a_map_that_the_backbone_does_not_give_is_named():
    with pytest.raises(InputError, match="gives res2, .* but not res6"):
        small_model("MODEL.QDFORMER.ENCODER.IN_FEATURES", ["res4", "res6"])


@pytest.mark.parametrize("size", [(42, 64), (48, 80), (36, 100)])
def test_frames_of_any_shape(size, storage):
    model, clip = small_model(), make_clip(size=size)
    assert all(loss.isfinite() for loss in train_step(model, [clip]).values())
    with torch.no_grad():
        assert tuple(model.eval()([clip])[0]["sem_seg"].shape) == (3, *size)


def test_half_precision_gives_finite_losses_near_those_in_full(storage):
    model, clips = small_model().train(), [make_clip(seed=1), make_clip(seed=2)]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    full = model(clips)
    model.load_state_dict(state)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(clips)
    sum(half.values()).backward()
    for name, loss in half.items():
        assert loss.dtype == torch.float32
        assert float(loss) == pytest.approx(float(full[name]), rel=0.2, abs=0.1), name


def test_random_vggish_is_trained_and_given_weights_are_frozen():
    assert not small_model().audio_encoder.frozen
    encoder = small_model("MODEL.AUDIO.WEIGHTS", "vggish.pth").audio_encoder
    assert not any(value.requires_grad for value in encoder.network.parameters())
    trained = ["MODEL.AUDIO.WEIGHTS", "vggish.pth", "MODEL.AUDIO.FREEZE", False]
    assert not small_model(*trained).audio_encoder.frozen
    assert small_config().MODEL.AUDIO.FREEZE


@pytest.mark.parametrize("asked", [torch.float16, torch.bfloat16])
def test_autocast_is_bfloat16_whatever_is_asked_for(asked):
    """Detectron2's AMPTrainer asks for float16."""
    model, seen = small_model().eval(), []
    model.backbone.register_forward_pre_hook(
        lambda *_: seen.append((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")))
    )
    with torch.no_grad():
        model([make_clip()])
        with torch.autocast("cpu", asked):
            model([make_clip()])
    assert seen[0][0] is False
    assert seen[1] == (True, torch.bfloat16)
