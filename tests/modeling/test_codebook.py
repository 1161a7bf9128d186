import math

import pytest
import torch

from qdformer.modeling.codebook import Codebook, ContinuousTokens

CODES, CHANNELS = 8, 4
PLAIN = {"num_codes": CODES, "channels": CHANNELS, "commitment": 0.5}


def make(**options):
    torch.manual_seed(0)
    return Codebook(**PLAIN, **options)


def test_nearest_codeword_by_l2():
    codebook, tokens = make(), torch.randn(3, 5, CHANNELS)
    result = codebook(tokens)
    for clip in range(3):
        for i in range(5):
            distances = [
                float((tokens[clip, i] - word).norm()) for word in codebook.codewords.detach()
            ]
            assert int(result.codes[clip, i]) == distances.index(min(distances))
    torch.testing.assert_close(result.tokens, codebook.codewords[result.codes])


def test_loss_is_eq_9_term_by_term():
    codebook, tokens = make(), torch.randn(2, 3, CHANNELS)
    words = codebook.codewords[codebook(tokens).codes].detach()
    expected = sum(
        (1 + 0.5) * float((words[b, i] - tokens[b, i]) @ (words[b, i] - tokens[b, i]))
        for b in range(2)
        for i in range(3)
    )
    assert float(codebook(tokens).loss.sum()) == pytest.approx(expected, rel=1e-5)
    local = codebook(tokens, update=False).loss
    assert local.shape == (2, 3) and float(local.sum()) == pytest.approx(expected / 3, rel=1e-5)


def test_gradients_of_eq_9():
    codebook = make()
    tokens = torch.randn(1, 1, CHANNELS, requires_grad=True)
    result = codebook(tokens)
    word = codebook.codewords[result.codes].detach()
    result.loss.sum().backward()
    torch.testing.assert_close(tokens.grad, 2 * 0.5 * (tokens - word).detach())
    moved = codebook.codewords.grad[result.codes[0, 0]]
    torch.testing.assert_close(moved, 2 * (word - tokens)[0, 0].detach())


def test_straight_through_gradient_and_none_for_the_codewords():
    codebook = make()
    tokens = torch.randn(2, 3, CHANNELS, requires_grad=True)
    direction = torch.randn(2, 3, CHANNELS)
    (codebook(tokens).tokens * direction).sum().backward()
    torch.testing.assert_close(tokens.grad, direction)
    assert codebook.codewords.grad is None


@pytest.mark.parametrize("rule", ["gradient", "ema"])
def test_local_tokens_never_move_the_codebook(rule):
    codebook = make(update_rule=rule, revive_below=0.5, unit_norm=True)
    before = {key: value.clone() for key, value in codebook.state_dict().items()}
    tokens = torch.randn(6, 3, CHANNELS, requires_grad=True)
    result = codebook(tokens, update=False)
    (result.loss.sum() + result.tokens.sum()).backward()
    assert all(torch.equal(value, before[key]) for key, value in codebook.state_dict().items())
    assert all(parameter.grad is None for parameter in codebook.parameters())
    assert tokens.grad.abs().sum() > 0


def test_nothing_moves_in_evaluation():
    codebook = make(update_rule="ema", revive_below=0.5).eval()
    before = {key: value.clone() for key, value in codebook.state_dict().items()}
    codebook(torch.randn(6, 3, CHANNELS))
    assert all(torch.equal(value, before[key]) for key, value in codebook.state_dict().items())


def test_ema_codeword_goes_to_the_mean_of_its_tokens():
    codebook = make(update_rule="ema", decay=0.5)
    centres = torch.eye(CHANNELS) * 5
    codebook.codewords[:CHANNELS] = centres
    tokens = centres + 0.1 * torch.randn(CHANNELS, CHANNELS)
    for _ in range(40):
        codebook(tokens[None])
    torch.testing.assert_close(codebook.codewords[:CHANNELS], tokens, atol=1e-4, rtol=1e-4)


def test_ema_of_one_step_by_hand():
    codebook = make(update_rule="ema", decay=0.9)
    old = codebook.codewords.clone()
    token = old[2] + 0.01
    codebook(token.view(1, 1, -1))
    weight = 0.9 / CODES + 0.1
    expected = (0.9 / CODES * old[2] + 0.1 * token) / weight
    torch.testing.assert_close(codebook.codewords[2], expected)
    torch.testing.assert_close(codebook.codewords[3], old[3])
    assert float(codebook.usage[2]) == pytest.approx(weight)


def test_dead_codewords_return_at_tokens():
    codebook = make(update_rule="ema", decay=0.5, revive_below=0.1)
    codebook.codewords += 100  # far from every token but one word wins them all
    tokens = torch.randn(32, 4, CHANNELS)
    for _ in range(20):
        codebook(tokens)
    assert float(codebook.statistics()["usage"]) > 0.5


def test_without_revival_far_codewords_stay_dead():
    codebook = make(decay=0.5)
    with torch.no_grad():
        codebook.codewords[1:] += 100
    for _ in range(20):
        codebook(torch.randn(32, 4, CHANNELS))
    assert float(codebook.statistics()["usage"]) == pytest.approx(1 / CODES)
    assert float(codebook.statistics()["perplexity"]) == pytest.approx(1.0, abs=1e-3)


def test_unused_codewords_of_an_average_stay_where_they_are():
    codebook = make(update_rule="ema", decay=0.5)
    before = codebook.codewords.clone()
    token = before[:1] * 1.0
    for _ in range(60):
        codebook(token[None])
    torch.testing.assert_close(codebook.codewords, before)


def test_perplexity_of_even_use():
    assert float(make().statistics()["perplexity"]) == pytest.approx(CODES)


def test_unit_norm_ignores_the_length_of_tokens():
    codebook, tokens = make(unit_norm=True), torch.randn(2, 3, CHANNELS)
    first, second = codebook(tokens), codebook(tokens * 7)
    assert torch.equal(first.codes, second.codes)
    torch.testing.assert_close(first.loss, second.loss)
    norms = first.tokens.norm(dim=-1)
    torch.testing.assert_close(norms, torch.full_like(norms, math.sqrt(CHANNELS)))


def test_fade_in_runs_from_continuous_to_quantised():
    codebook, tokens = make(fade_in=4), torch.randn(2, 3, CHANNELS)
    words = codebook.codewords[codebook.eval()(tokens).codes].detach()
    codebook.train()
    for step in range(6):
        closing = min(step / 4, 1)
        torch.testing.assert_close(
            codebook(tokens).tokens.detach(), (1 - closing) * tokens + closing * words
        )


def test_a_closed_bottleneck_stays_closed_whatever_the_config_says():
    trained, tokens = make(fade_in=2), torch.randn(2, 3, CHANNELS)
    for _ in range(3):
        trained(tokens)
    loaded = make(fade_in=1000)
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded.eval()(tokens).tokens, trained.eval()(tokens).tokens)
    assert float(loaded.closed) == 1


def test_one_codeword_makes_all_tokens_alike():
    torch.manual_seed(0)
    codebook = Codebook(num_codes=1, channels=CHANNELS, commitment=0.5)
    tokens = codebook(torch.randn(2, 5, CHANNELS)).tokens
    torch.testing.assert_close(tokens, tokens[:1, :1].expand_as(tokens))


def test_continuous_tokens_pass():
    tokens = torch.randn(2, 3, CHANNELS)
    result = ContinuousTokens()(tokens)
    assert result.tokens is tokens and result.codes is None and float(result.loss.sum()) == 0


def test_unknown_update():
    with pytest.raises(AssertionError, match="'momentum' is not one of"):
        make(update_rule="momentum")
