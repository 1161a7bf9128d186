import torch

from qdformer.modeling.vggish import VGGish

# Names and sizes of the released vggish-10086976.pth.
RELEASED = {
    "features.0": (64, 1, 3, 3),
    "features.3": (128, 64, 3, 3),
    "features.6": (256, 128, 3, 3),
    "features.8": (256, 256, 3, 3),
    "features.11": (512, 256, 3, 3),
    "features.13": (512, 512, 3, 3),
    "embeddings.0": (4096, 12288),
    "embeddings.2": (4096, 4096),
    "embeddings.4": (128, 4096),
}


def test_published_widths_have_the_released_names_and_shapes():
    with torch.device("meta"):
        vggish = VGGish()
    shapes = {name: tuple(value.shape) for name, value in vggish.state_dict().items()}
    expected = {f"{name}.weight": shape for name, shape in RELEASED.items()}
    expected |= {f"{name}.bias": shape[:1] for name, shape in RELEASED.items()}
    assert shapes == expected
    assert sum(parameter.numel() for parameter in vggish.parameters()) == 72_141_184


def test_time_and_frequency_come_before_channels():
    """A weight at row t, column f, channel c of the flattened map reads that very cell."""
    vggish = VGGish(conv_dims=(1, 1, 1, 2), fc_dims=(1,))
    log_mel = torch.rand(1, 1, 96, 64)
    cells = vggish.features(log_mel)  # (1, 2, 6, 4)
    with torch.no_grad():
        vggish.embeddings[0].weight.zero_()
        vggish.embeddings[0].bias.fill_(1)
        vggish.embeddings[0].weight[0, (3 * 4 + 2) * 2 + 1] = 1
    torch.testing.assert_close(vggish(log_mel)[0, 0], 1 + cells[0, 1, 3, 2])


def test_embedding_ends_in_a_relu():
    torch.manual_seed(0)
    embedding = VGGish(conv_dims=(4, 4, 4, 4), fc_dims=(8, 32))(torch.randn(4, 1, 96, 64))
    assert embedding.min() == 0 < embedding.max()


def test_examples_are_independent():
    torch.manual_seed(0)
    vggish, log_mel = VGGish(conv_dims=(4, 4, 4, 4), fc_dims=(8,)), torch.randn(3, 1, 96, 64)
    torch.testing.assert_close(vggish(log_mel)[1:2], vggish(log_mel[1:2]))
