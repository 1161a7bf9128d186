import torch

from qdformer.modeling.mask_decoder import MaskDecoder
from qdformer.modeling.visual_tokens import VisualTokens

CHANNELS = 16


def make(deep_supervision=True):
    torch.manual_seed(0)
    return MaskDecoder(
        num_classes=3, layers=2, channels=CHANNELS, heads=2, feedforward=16,
        deep_supervision=deep_supervision,
    )  # fmt: skip


def inputs(frames=2, tokens=3):
    torch.manual_seed(1)
    memory = torch.rand(frames, 6, CHANNELS)
    visual = VisualTokens(memory, torch.rand(frames, 6, CHANNELS), [(2, 3)], None)
    return torch.rand(frames, tokens, CHANNELS), visual, torch.rand(frames, CHANNELS, 4, 5)


def test_eq_7_against_loops():
    decoder = make().eval()
    tokens, visual, pixels = inputs()
    predictions = decoder(tokens, visual, pixels)
    decoded = decoder.decoder(tokens, visual.tokens, memory_position=visual.position)[-1]
    for f in range(2):
        for i in range(3):
            *weight, bias = decoder.mask_head(decoded[f, i])
            mask = sum(w * pixels[f, c] for c, w in enumerate(weight)) + bias
            torch.testing.assert_close(predictions.masks[0, f, i], mask)
            torch.testing.assert_close(
                predictions.logits[0, f, i], decoder.class_head(decoded[f, i])
            )


def test_equal_tokens_say_the_same():
    tokens, visual, pixels = inputs()
    predictions = make().eval()(tokens[:, :1].expand(-1, 3, -1), visual, pixels)
    torch.testing.assert_close(predictions.masks[:, :, 0], predictions.masks[:, :, 2])


def test_layers_are_supervised_in_training_only():
    arguments = inputs()
    assert len(make().train()(*arguments).masks) == 2
    assert len(make().eval()(*arguments).masks) == 1
    assert len(make(deep_supervision=False).train()(*arguments).masks) == 1
    deep = make().train()(*arguments)
    torch.testing.assert_close(deep.masks[-1:], make().eval()(*arguments).masks)


def test_boxes_are_fractions_and_classes_start_rare():
    predictions = make()(*inputs())
    assert predictions.boxes.min() > 0 and predictions.boxes.max() < 1
    assert float(predictions.logits.sigmoid().mean()) < 0.05
