import math

import pytest
import torch

from qdformer.modeling.codebook import MOST_FORWARDS, Codebook, ContinuousTokens, rotate

CODES, CHANNELS = 8, 4
PLAIN = {"num_codes": CODES, "channels": CHANNELS, "commitment": 0.5}


def make(**options):
    torch.manual_seed(0)
    return Codebook(**PLAIN, **options)


def learn(codebook, tokens):
    """One optimizer step's worth of global tokens."""
    result = codebook(tokens)
    codebook.step()
    return result


def use(codebook):
    words = torch.zeros(1, 1, dtype=torch.long)
    tokens = codebook(torch.zeros(1, 1, CHANNELS), words)
    return codebook.statistics(tokens, tokens)


def unchanged(codebook, before):
    return all(torch.equal(value, before[key]) for key, value in codebook.state_dict().items())


def state(codebook):
    return {key: value.clone() for key, value in codebook.state_dict().items()}


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
    local = codebook(tokens, codebook(tokens).codes).loss
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
    before = state(codebook)
    tokens = torch.randn(6, 3, CHANNELS, requires_grad=True)
    result = codebook(tokens, torch.randint(CODES, (6, 2)))
    (result.loss.sum() + result.tokens.sum()).backward()
    codebook.step()
    assert unchanged(codebook, before)
    assert all(parameter.grad is None for parameter in codebook.parameters())
    assert tokens.grad.abs().sum() > 0


def test_local_tokens_take_the_nearest_of_the_words_that_they_may():
    codebook, tokens = make(), torch.randn(4, 5, CHANNELS)
    words = torch.randint(CODES, (4, 3))
    result = codebook(tokens, words)
    for frame in range(4):
        for i in range(5):
            nearest = min(
                words[frame].tolist(),
                key=lambda word: float((tokens[frame, i] - codebook.codewords[word]).norm()),
            )
            assert int(result.codes[frame, i]) == nearest
    torch.testing.assert_close(result.tokens, codebook.codewords[result.codes])


@pytest.mark.parametrize("rule", ["gradient", "ema"])
def test_a_forward_moves_nothing(rule):
    """Only a step does: passes in training mode may measure batch statistics (PreciseBN)."""
    codebook = make(update_rule=rule, revive_below=0.5, fade_in=5)
    before, tokens = state(codebook), torch.randn(6, 3, CHANNELS)
    codebook(tokens)
    assert unchanged(codebook, before)
    codebook.step()
    assert not unchanged(codebook, before)
    before = state(codebook)
    with torch.no_grad():
        codebook(tokens)
    codebook.step()
    codebook.eval()(tokens)
    codebook.step()
    assert unchanged(codebook, before)


def test_two_batches_of_a_step_count_as_one():
    """Gradients may be accumulated over several forwards."""
    one, two, tokens = make(update_rule="ema"), make(update_rule="ema"), torch.randn(6, 3, CHANNELS)
    learn(one, tokens)
    two(tokens[:2]), two(tokens[2:])
    two.step()
    torch.testing.assert_close(one.state_dict(), two.state_dict())


def test_a_loop_that_never_steps_the_codebook_is_told():
    codebook, tokens = make(), torch.randn(1, 1, CHANNELS)
    for _ in range(MOST_FORWARDS):
        codebook(tokens)
    with pytest.raises(RuntimeError, match=r"step\(\)"):
        codebook(tokens)
    codebook.step()
    codebook(tokens)


def test_ema_codeword_goes_to_the_mean_of_its_tokens():
    codebook = make(update_rule="ema", decay=0.5)
    centers = torch.eye(CHANNELS) * 5
    codebook.codewords[:CHANNELS] = centers
    tokens = centers + 0.1 * torch.randn(CHANNELS, CHANNELS)
    for _ in range(40):
        learn(codebook, tokens[None])
    torch.testing.assert_close(codebook.codewords[:CHANNELS], tokens, atol=1e-4, rtol=1e-4)


def test_ema_of_one_step_by_hand():
    codebook = make(update_rule="ema", decay=0.9)
    old = codebook.codewords.clone()
    token = old[2] + 0.01
    learn(codebook, token.view(1, 1, -1))
    weight = 0.9 / CODES + 0.1
    expected = (0.9 / CODES * old[2] + 0.1 * token) / weight
    torch.testing.assert_close(codebook.codewords[2], expected)
    torch.testing.assert_close(codebook.codewords[3], old[3])
    assert float(codebook.usage[2]) == pytest.approx(weight)


def test_codewords_return_one_a_step_at_distinct_tokens():
    codebook = make(update_rule="ema", decay=0.5, revive_below=0.9)
    with torch.no_grad():
        codebook.codewords[1:] += 100
    tokens = 5 * torch.eye(CHANNELS).repeat(1, 2).view(1, -1, CHANNELS)
    used = [int((codebook.codewords < 50).all(1).sum())]
    for _ in range(10):
        learn(codebook, tokens)
        used.append(int((codebook.codewords < 50).all(1).sum()))
    assert all(0 <= after - before <= 1 for before, after in zip(used, used[1:]))
    # All tokens have their own word, so that nothing is left to return to.
    torch.testing.assert_close(codebook(tokens).tokens, tokens, atol=0.5, rtol=0)


def test_dead_codewords_return_at_tokens():
    codebook = make(update_rule="ema", decay=0.5, revive_below=0.1)
    codebook.codewords += 100  # far from every token but one word wins them all
    tokens = torch.randn(32, 4, CHANNELS)
    for _ in range(20):
        learn(codebook, tokens)
    assert float(use(codebook)["usage"]) > 0.5


def test_without_revival_far_codewords_stay_dead():
    codebook = make(decay=0.5)
    with torch.no_grad():
        codebook.codewords[1:] += 100
    for _ in range(20):
        learn(codebook, torch.randn(32, 4, CHANNELS))
    assert float(use(codebook)["usage"]) == pytest.approx(1 / CODES)
    assert float(use(codebook)["perplexity"]) == pytest.approx(1.0, abs=1e-3)


def test_unused_codewords_of_an_average_stay_where_they_are():
    codebook = make(update_rule="ema", decay=0.5)
    before = codebook.codewords.clone()
    token = before[:1] * 1.0
    for _ in range(60):
        learn(codebook, token[None])
    torch.testing.assert_close(codebook.codewords, before)


def test_perplexity_of_even_use():
    assert float(use(make())["perplexity"]) == pytest.approx(CODES)


def test_distances_to_the_words():
    codebook = make(unit_norm=True)
    words = torch.nn.functional.normalize(codebook.codewords.detach(), dim=-1)[None]
    near, far = codebook(words), codebook(torch.randn(1, 3, CHANNELS))
    measured = codebook.statistics(near, far)
    assert float(measured["global_distance"]) == pytest.approx(0, abs=1e-6)
    gap = far.continuous - words[0, far.codes]
    assert float(measured["local_distance"]) == pytest.approx(float(gap.square().sum(-1).mean()))


def test_unit_norm_ignores_the_length_of_tokens():
    codebook, tokens = make(unit_norm=True), torch.randn(2, 3, CHANNELS)
    first, second = codebook(tokens), codebook(tokens * 7)
    assert torch.equal(first.codes, second.codes)
    torch.testing.assert_close(first.loss, second.loss)
    norms = first.tokens.norm(dim=-1)
    torch.testing.assert_close(norms, torch.full_like(norms, math.sqrt(CHANNELS)))


def test_fade_in_runs_from_continuous_to_quantized():
    codebook, tokens = make(fade_in=4), torch.randn(2, 3, CHANNELS)
    words = codebook.codewords[codebook.eval()(tokens).codes].detach()
    codebook.train()
    for step in range(6):
        closing = min(step / 4, 1)
        torch.testing.assert_close(
            learn(codebook, tokens).tokens.detach(), (1 - closing) * tokens + closing * words
        )


@pytest.mark.parametrize("unit_norm", [False, True])
def test_at_inference_the_bottleneck_is_closed_from_the_start(unit_norm):
    codebook, tokens = make(fade_in=1000, unit_norm=unit_norm), torch.randn(2, 3, CHANNELS)
    result, closed = codebook.eval()(tokens), make(unit_norm=unit_norm)(tokens)
    torch.testing.assert_close(result.tokens, closed.tokens)


def test_a_new_schedule_keeps_the_words():
    codebook = make(fade_in=2, update_rule="ema")
    for _ in range(3):
        learn(codebook, torch.randn(2, 3, CHANNELS))
    words = codebook.codewords.clone()
    codebook.restart()
    assert float(codebook.closed) == 0 and torch.equal(codebook.codewords, words)
    assert codebook.vocabulary.all()


def test_the_gradient_is_rotated_from_the_word_back_to_the_token():
    """As the token lies to its gradient, the word lies to the one that arrives (2410.06424)."""
    tokens = torch.nn.functional.normalize(torch.randn(5, CHANNELS), dim=-1).requires_grad_()
    words = torch.nn.functional.normalize(torch.randn(5, CHANNELS), dim=-1)
    result, direction = rotate(tokens, words), torch.randn(5, CHANNELS)
    torch.testing.assert_close(result, words)
    (gradient,) = torch.autograd.grad((result * direction).sum(), tokens)
    torch.testing.assert_close((gradient * tokens).sum(-1), (direction * words).sum(-1))
    torch.testing.assert_close(gradient.norm(dim=-1), direction.norm(dim=-1))


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


# Any token in any precision


DTYPES = [torch.float32, torch.bfloat16, torch.float16]
TOKENS = {
    "zero": lambda dtype: torch.zeros(2, 3, CHANNELS),
    "tiny": lambda dtype: torch.full((2, 3, CHANNELS), torch.finfo(dtype).tiny),
    "huge": lambda dtype: torch.finfo(dtype).max * torch.randn(2, 3, CHANNELS).sign(),
    "equal": lambda dtype: torch.full((2, 3, CHANNELS), 0.5),
    "single": lambda dtype: torch.randn(1, 1, CHANNELS),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", TOKENS)
@pytest.mark.parametrize("rule", ["gradient", "ema"])
@pytest.mark.parametrize("unit_norm", [False, True])
@pytest.mark.parametrize("codes", [1, CODES])
def test_everything_stays_finite(dtype, case, rule, unit_norm, codes):
    torch.manual_seed(0)
    codebook = Codebook(
        num_codes=codes, channels=CHANNELS, commitment=0.5, update_rule=rule, decay=0.5,
        unit_norm=unit_norm, fade_in=2, revive_below=0.4,
    )  # fmt: skip
    for _ in range(4):  # past the end of the fade-in, and until codewords return
        tokens = TOKENS[case](dtype).to(dtype).requires_grad_()
        result = codebook(tokens)
        local = codebook(tokens, result.codes)
        assert result.tokens.dtype == dtype and result.tokens.isfinite().all()
        assert 0 <= result.codes.min() <= result.codes.max() < codes
        loss = result.loss.sum() + result.tokens.float().mean() + local.loss.sum()
        assert loss.isfinite()
        # A twentieth, as what is no more than the largest number would be beyond it in sum.
        (loss / 20).backward()
        assert tokens.grad.isfinite().all()
        assert all(p.grad.isfinite().all() for p in codebook.parameters())
        assert all(value.isfinite().all() for value in codebook.state_dict().values())
        codebook.step()
        assert all(v.isfinite() for v in codebook.statistics(result, local).values())
    assert float(codebook.closed) == 1


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e30])
def test_the_unit_sphere_ignores_lengths_that_are_not_next_to_nothing(scale):
    codebook, tokens = make(unit_norm=True), torch.randn(2, 3, CHANNELS)
    if scale > 1:
        tokens = tokens.sign()  # cut off at the same length in all directions
    result, expected = codebook(tokens * scale), codebook(tokens)
    norms = result.tokens.norm(dim=-1)
    torch.testing.assert_close(norms, torch.full_like(norms, math.sqrt(CHANNELS)))
    assert torch.equal(result.codes, expected.codes)


def test_gradients_of_tokens_near_zero_do_not_explode():
    codebook = make(unit_norm=True)
    tokens = torch.zeros(2, 3, CHANNELS, requires_grad=True)
    result = codebook(tokens)
    (result.tokens.sum() + result.loss.sum()).backward()
    assert tokens.grad.abs().max() < 1e4


@pytest.mark.parametrize("unit_norm", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e8])
def test_a_closed_bottleneck_lets_nothing_but_the_codeword_through(unit_norm, scale):
    codebook = make(unit_norm=unit_norm)
    result = codebook(scale * torch.randn(20, 3, CHANNELS))
    words = codebook.codewords
    if unit_norm:
        words = torch.nn.functional.normalize(words, dim=-1) * math.sqrt(CHANNELS)
    torch.testing.assert_close(result.tokens, words[result.codes])
    for code in result.codes.unique():
        same = result.tokens[result.codes == code]
        assert torch.equal(same, same[:1].expand_as(same))


@pytest.mark.parametrize("rule", ["gradient", "ema"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_shows_in_the_loss_and_never_enters_the_codebook(rule, value):
    codebook = make(update_rule=rule, decay=0.5, revive_below=0.9)
    codebook.usage[1:] = 0
    tokens = torch.randn(2, 3, CHANNELS)
    tokens[0, 1, 2] = value
    result = learn(codebook, tokens)
    assert not result.loss.sum().isfinite()
    assert 0 <= result.codes.min() <= result.codes.max() < CODES
    assert all(value.isfinite().all() for value in codebook.state_dict().values())
