"""Cheap draws: exact shares, nothing impossible, and a row's tokens its own whatever the others do.

Run: pytest tests/speed/test_draws.py
"""

import math

import pytest

from clinical_r1.speed.draws import BLOCK, Draws, inverse_cdf, row_seeds, uniforms
from clinical_r1.speed.prefill import shared_prefill

torch = pytest.importorskip("torch")
scipy_stats = pytest.importorskip("scipy.stats")
pytest.importorskip("transformers")

MANY = 10_000
NEW, ENDS = 12, list(range(2, 8))


def grid(n: int):
    """n numbers in the middle of n equal parts of [0, 1)."""
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def by_hand(scores, top_p: float):
    """(V,) probabilities of the nucleus in float64, equal ones by their place: the definition, word by word."""
    p = scores.double().softmax(-1)
    order = sorted(range(len(p)), key=lambda word: (-p[word].item(), word))
    kept, total = [], 0.0
    for word in order:
        if total >= top_p:
            break
        kept.append(word)
        total += p[word].item()
    out = torch.zeros_like(p)
    out[kept] = p[kept] / p[kept].sum()
    return out


# ------------------------------------------------------------------------------------------------------ distribution


@pytest.mark.parametrize("words", [5, BLOCK, BLOCK + 1, 700])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_p", [1.0, 0.95, 0.5])
def test_shares_are_those_of_softmax(words, temperature, top_p):
    """Chi-square of independent draws, and shares of an even grid of numbers to the width of a cell."""
    scores = torch.randn(words, generator=torch.Generator().manual_seed(words)) * 2 / temperature
    expected = by_hand(scores, top_p)
    drawn = inverse_cdf(scores.expand(MANY, -1), uniforms([7], MANY)[0], top_p)
    counts = torch.bincount(drawn, minlength=words).double()
    assert counts[expected == 0].sum() == 0
    often = expected * MANY >= 5
    seen = [*counts[often].tolist(), counts[~often].sum().item()]
    due = [*(expected[often] * MANY).tolist(), (expected[~often] * MANY).sum().item()]
    pairs = [(got, want) for got, want in zip(seen, due, strict=True) if want]
    statistic = sum((got - want) ** 2 / want for got, want in pairs)
    assert scipy_stats.chi2.sf(statistic, len(pairs) - 1) > 1e-3 or len(pairs) == 1
    even = inverse_cdf(scores.expand(MANY, -1), grid(MANY), top_p)
    shares = torch.bincount(even, minlength=words).double() / MANY
    assert (shares - expected).abs().max() <= 1.5 / MANY


def test_without_top_p_words_lie_in_their_order():
    scores = torch.tensor([0.5, 0.125, 0.25, 0.125]).log().expand(8, -1)
    assert inverse_cdf(scores, grid(8)).tolist() == [0, 0, 0, 0, 1, 2, 2, 3]
    edges = torch.tensor([0.0, 0.4999, 0.5001, 0.6249, 0.6251, 0.8749, 0.8751, 1 - 2**-53]).double()
    assert inverse_cdf(scores, edges).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("equal", [4, 8, 64, 512])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_nucleus_that_ends_on_an_edge_of_equal_words(equal, share):
    """Powers of two add up without rounding: exactly share · equal words, and the same ones at every draw."""
    scores = torch.full((4000, equal), -1.5)
    drawn = inverse_cdf(scores, grid(4000), share)
    assert len(set(drawn.tolist())) == share * equal


@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.9, 0.999, 0.999999])
@pytest.mark.parametrize("words", [3, 16, 17, 256, 257, 1550])
@pytest.mark.parametrize("spread", [0.0, 0.1, 3.0])
def test_never_outside_the_nucleus(top_p, words, spread):
    scores = torch.randn(words, generator=torch.Generator().manual_seed(3)) * spread
    p = scores.double().softmax(-1)
    edge = torch.tensor([0.0, 2**-60, 1e-9, 0.5, 1 - 1e-9, 1 - 2**-53], dtype=torch.float64)
    for number in (edge, grid(997)):
        drawn = inverse_cdf(scores.expand(len(number), -1), number, top_p)
        above = torch.stack([p[p > p[word]].sum() for word in drawn])
        assert (above < top_p + 1e-6).all(), "more probable words already make up the nucleus"
    assert len(set(drawn.tolist())) <= (by_hand(scores, top_p) > 0).sum() + 1


def test_the_nucleus_is_that_of_transformers():
    from transformers import TopPLogitsWarper

    scores = torch.randn(20, 100, generator=torch.Generator().manual_seed(5)) * 2
    for top_p in (0.2, 0.7, 0.95):
        kept = TopPLogitsWarper(top_p)(None, scores).isfinite()
        for row in range(20):
            drawn = set(inverse_cdf(scores[row].expand(4000, -1), grid(4000), top_p).tolist())
            assert drawn <= set(kept[row].nonzero()[:, 0].tolist())
            assert drawn >= set((by_hand(scores[row], top_p) > 1 / 4000).nonzero()[:, 0].tolist())
        assert kept.all(dim=1).sum() == 0


# ----------------------------------------------------------------------------------------------------- what is impossible

EDGES = torch.tensor([0.0, 2**-1074, 2**-60, 0.5, 1 - 2**-30, 1 - 2**-53], dtype=torch.float64)


@pytest.mark.parametrize("top_p", [1.0, 0.9])
@pytest.mark.parametrize("place", [0, 1, BLOCK - 1, BLOCK, 700, 999])
def test_a_probability_of_one(place, top_p):
    for other in (-1e4, -math.inf):
        scores = torch.full((len(EDGES), 1000), other)
        scores[:, place] = 3.0
        assert inverse_cdf(scores, EDGES, top_p).tolist() == [place] * len(EDGES)


@pytest.mark.parametrize("top_p", [1.0, 0.9])
@pytest.mark.parametrize("kept", [[1], [5, 6], [0, 999], [BLOCK, 2 * BLOCK - 1], [130, 131, 800]])
def test_a_forbidden_word_is_never_drawn(kept, top_p):
    """Forbidden words lie before, between and after those that are allowed, whole blocks of them."""
    scores = torch.full((1000,), -math.inf)
    scores[kept] = torch.arange(len(kept)) / 3
    for number in (EDGES, grid(2000)):
        assert set(inverse_cdf(scores.expand(len(number), -1), number, top_p).tolist()) <= set(kept)


def test_rounding_that_leads_to_an_impossible_word_is_corrected(monkeypatch):
    """On a device that adds in another order, a cumulative sum may rise where nothing is added."""
    from clinical_r1.speed import draws

    monkeypatch.setattr(draws, "_look_up", lambda weights, uniform: torch.tensor([2, 1]))
    scores = torch.tensor([[0.0, 1.0, -math.inf]]).repeat(2, 1)
    assert inverse_cdf(scores, torch.tensor([0.5, 0.5]).double()).tolist() == [1, 1]


@pytest.mark.parametrize("top_p", [1.0, 0.9])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_without_a_probability(value, top_p):
    scores = torch.zeros(2, 300)
    scores[1] = value
    with pytest.raises(ValueError, match="row 1 of the batch has no next token"):
        inverse_cdf(scores, torch.tensor([0.5, 0.5]).double(), top_p)


# ------------------------------------------------------------------------------------------------------------ streams


def test_a_stream_is_its_seed_s_and_its_begin_does_not_depend_on_the_length():
    long, short = uniforms([3, 4, 2**100], 90), uniforms([4, 3], 7)
    assert torch.equal(short, long[[1, 0], :7])
    assert len(set(long.flatten().tolist())) == 270
    assert 0 <= long.min() and long.max() < 1
    assert scipy_stats.kstest(uniforms(range(200), 50).flatten().numpy(), "uniform").pvalue > 1e-3
    first = uniforms(range(5000), 1)[:, 0]  # neighbouring seeds are no neighbours
    assert scipy_stats.kstest(first.numpy(), "uniform").pvalue > 1e-3
    assert abs(torch.corrcoef(torch.stack([first[:-1], first[1:]]))[0, 1]) < 0.05


@pytest.mark.parametrize("seed", [-1, 2**128, 1.0, "3", True, None])
def test_a_seed_that_is_none(seed):
    with pytest.raises(ValueError, match="expected a whole number from 0"):
        uniforms([0, seed], 3)


def test_seeds_of_the_rows_come_from_one_draw_of_torch_s_generator():
    torch.manual_seed(5)
    first, after = row_seeds(6), torch.rand(1)
    torch.manual_seed(5)
    assert row_seeds(6) == first and torch.rand(1) == after and len(set(first)) == 6
    torch.manual_seed(5)
    assert torch.randint(2**63 - 1, (6,)).tolist() == first and torch.rand(1) == after


def test_seeds_that_do_not_fit():
    with pytest.raises(ValueError, match="2 seeds for 3 rows"):
        Draws("inverse_cdf", 3, 5, [1, 2])
    with pytest.raises(ValueError, match="take no seeds"):
        Draws("stock", 2, 5, [1, 2])
    with pytest.raises(ValueError, match="draws is 'fast'; expected one of inverse_cdf, stock"):
        Draws("fast", 2, 5)


# --------------------------------------------------------------------------------------------------- whole generations


def model_of(**changes):
    """A small random model of distinct enough scores that rounding changes no token."""
    from transformers import Qwen2Config, Qwen2ForCausalLM, set_seed

    set_seed(0)
    size = dict(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        initializer_range=0.3,
    )  # fmt: skip
    return Qwen2ForCausalLM(Qwen2Config(**(size | changes))).eval()


def rows_of(lengths=(9, 5, 7), copies=4):
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (len(lengths), 9), generator=draw)
    mask = torch.stack([(torch.arange(9) >= 9 - n).long() for n in lengths])
    return (ids * mask).repeat_interleave(copies, 0), mask.repeat_interleave(copies, 0)


def drawn(model, ids, mask, seeds, **more):
    """Tokens of each row as lists, cut after their end: padding depends on the others by its nature."""
    decoding = {"do_sample": True, "top_k": 0, "max_new_tokens": NEW, "eos_token_id": ENDS} | more
    with shared_prefill(model, seeds=seeds):
        out = model.generate(input_ids=ids, attention_mask=mask, **decoding)
    rows = []
    for row in out[:, ids.shape[1] :].tolist():
        end = next((i for i, token in enumerate(row) if token in decoding["eos_token_id"]), len(row) - 1)
        rows.append(row[: end + 1])
    return rows


WARPERS = [
    {},
    {"top_p": 0.9, "temperature": 0.8},
    {"top_k": 5},
    {"min_p": 0.05, "top_p": 0.9},
    {"no_repeat_ngram_size": 2},  # decoded by the model's own loop
]


@pytest.mark.parametrize("more", WARPERS, ids=str)
def test_a_row_is_the_same_in_any_batch(more):
    model, (ids, mask) = model_of(), rows_of()
    seeds = [100 + i for i in range(12)]
    together = drawn(model, ids, mask, seeds, **more)
    assert len({len(row) for row in together}) > 2, "rows end at different steps"
    assert len(set(map(tuple, together))) > 8
    for size in (1, 3):
        for start in range(0, 12, size):
            part = slice(start, start + size)
            assert drawn(model, ids[part], mask[part], seeds[part], **more) == together[part]
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2)).tolist()
    mixed = drawn(model, ids[order], mask[order], [seeds[i] for i in order], **more)
    assert mixed == [together[i] for i in order]


def test_rows_that_never_leave_draw_the_same(monkeypatch):
    from clinical_r1.speed import prefill

    model, (ids, mask) = model_of(), rows_of()
    leaving = drawn(model, ids, mask, list(range(12)))
    monkeypatch.setattr(prefill, "LEAVE_AT", 2.0)
    assert drawn(model, ids, mask, list(range(12))) == leaving
    monkeypatch.setattr(prefill, "LEAVE_AT", 1e-9)
    assert drawn(model, ids, mask, list(range(12))) == leaving
    # a longer limit does not change what was drawn before it
    assert [row[:NEW] for row in drawn(model, ids, mask, list(range(12)), max_new_tokens=2 * NEW)] == leaving


def test_equal_seeds_draw_equal_rows_and_others_do_not():
    model, (ids, mask) = model_of(), rows_of(lengths=(9,), copies=6)
    rows = drawn(model, ids, mask, [1, 2, 1, 3, 2, 1])
    assert rows[0] == rows[2] == rows[5] and rows[1] == rows[4]
    assert len(set(map(tuple, rows))) == 3


def test_without_seeds_rows_follow_torch_s_generator():
    model, (ids, mask) = model_of(), rows_of()
    torch.manual_seed(7)
    first = drawn(model, ids, mask, None)
    torch.manual_seed(7)
    assert drawn(model, ids, mask, row_seeds(12)) == first
    assert drawn(model, ids, mask, None) != first


@pytest.mark.parametrize("more", WARPERS, ids=str)
def test_first_tokens_have_the_model_s_probabilities(more):
    """Chi-square of a whole generation's first token against the softmax of what `generate` itself hands to its draw."""
    model, (ids, mask) = model_of(), rows_of(lengths=(9,), copies=4000)
    tokens = [row[0] for row in drawn(model, ids, mask, list(range(4000)), max_new_tokens=1, **more)]
    asked = {"do_sample": True, "top_k": 0, "max_new_tokens": 1, "eos_token_id": ENDS} | more
    asked |= {"output_scores": True, "return_dict_in_generate": True}
    scores = model.generate(input_ids=ids[:1], attention_mask=mask[:1], **asked).scores[0][0]
    due = scores.softmax(-1) * 4000
    seen = torch.bincount(torch.tensor(tokens), minlength=60).double()
    assert seen[due == 0].sum() == 0
    often = due >= 5
    statistic = ((seen[often] - due[often]) ** 2 / due[often]).sum().item()
    assert scipy_stats.chi2.sf(statistic, max(int(often.sum()) - 1, 1)) > 1e-3


@pytest.mark.parametrize("more", [{"num_beams": 2, "do_sample": False}, {"use_cache": False}], ids=str)
def test_seeds_that_cannot_be_kept_to(more):
    model, (ids, mask) = model_of(), rows_of()
    with pytest.raises(ValueError, match=f"cannot be generated with {next(iter(more))}"):
        drawn(model, ids, mask, list(range(12)), **more)
    with pytest.raises(ValueError, match="3 seeds for 12 rows"):
        drawn(model, ids, mask, [1, 2, 3])
