"""How the next token of each row is drawn, when `prefill` decodes.

"inverse_cdf"   one uniform number a row and token, looked up in the row's cumulative probabilities. Row i reads the uniforms of
                its own stream (Philox, Salmon et al. 2011, with the row's seed as key), the t-th for its t-th token: so a row's
                tokens depend on its seed and its scores alone, not on the batch, on rows that have ended, or on the limit.
"stock"         one exponential number for each row and word of the vocabulary, as `torch.multinomial` draws them from torch's
                generator: what the tests compare with `generate`. Noise is drawn for ended rows as well.

Both are exact for the softmax of the processed scores, up to rounding. Top-p (Holtzman et al. 2020) as the last processor is
done here, without sorting the vocabulary: the smallest set of most probable tokens whose probabilities sum to p or more.

Shapes: N rows at the start, n rows still in the batch, V words. torch and numpy are imported when called.
"""

DRAWS = ("inverse_cdf", "stock")
BLOCK = 128  # words summed at once: a cumulative sum over the blocks, then one within a block
FIRST_LOOK = 16  # most probable words among which a nucleus is looked for; then 16 times as many, and so on


def check_draws(draws: str) -> str:
    """The name again; ValueError for one that is not of DRAWS."""
    if draws not in DRAWS:
        raise ValueError(f"draws is {draws!r}; expected one of {', '.join(DRAWS)}.")
    return draws


def uniforms(seeds, tokens: int, device=None):
    """(N, tokens) numbers in [0, 1), float64: row i is the begin of the stream of seeds[i], whatever `tokens` is.

    ValueError for a seed that is no whole number of 0 to 2**128 - 1.
    """
    import numpy as np
    import torch

    seeds = [int(seed) if isinstance(seed, np.integer) else seed for seed in seeds]
    wrong = [seed for seed in seeds if type(seed) is not int or not 0 <= seed < 2**128]
    if wrong:
        raise ValueError(f"a row's seed is {wrong[0]!r}; expected a whole number from 0 to 2**128 - 1.")
    rows = [np.random.Generator(np.random.Philox(key=seed)).random(tokens) for seed in seeds]
    return torch.from_numpy(np.stack(rows)).to(device)


def row_seeds(rows: int) -> list[int]:
    """Seeds of `rows` streams from one draw of torch's generator."""
    import torch

    return torch.randint(2**63 - 1, (rows,)).tolist()


# -------------------------------------------------------------------------------------------------- scores -> tokens


def multinomial(scores, live, rows: int):
    """One token for each of the live rows, as `torch.multinomial` draws it for all `rows`: scores (n, V), live (n,) → (n,).

    multinomial divides each probability by an exponential draw of its own and takes the largest.
    """
    probabilities = scores.softmax(dim=-1)
    noise = probabilities.new_empty(rows, probabilities.shape[1]).exponential_(1)
    if len(live) < rows:
        noise = noise[live]
    return (probabilities / noise).argmax(dim=-1)


def inverse_cdf(scores, uniform, top_p: float = 1.0):
    """The token in whose share of [0, 1) the row's uniform number falls: scores (n, V), uniform (n,) → (n,).

    Below top_p 1 the shares are those of the nucleus, the most probable first; else those of all words in their order.
    ValueError for a row without a probability: a score that is not a number, or none that is finite.
    """
    probabilities = scores.softmax(dim=-1)
    chosen = _in_nucleus(probabilities, uniform, top_p) if top_p < 1 else _look_up(probabilities, uniform)
    possible = probabilities.gather(1, chosen[:, None])[:, 0] > 0
    if not possible.all():
        chosen = _corrected(probabilities, chosen, possible)
    return chosen


def _look_up(weights, uniform):
    """Inverse CDF over (n, V) weights of any sum, in two steps: which block, then which word of the block."""
    import torch

    rows, words = weights.shape
    blocks = -(-words // BLOCK)
    weights = torch.nn.functional.pad(weights, (0, blocks * BLOCK - words)).view(rows, blocks, BLOCK)
    ends = weights.sum(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    target = uniform * ends[:, -1]
    block = torch.searchsorted(ends, target[:, None], right=True).clamp_(max=blocks - 1)
    begin = ends.gather(1, (block - 1).clamp(min=0)).masked_fill(block == 0, 0.0)
    share = (target[:, None] - begin) / (ends.gather(1, block) - begin)
    within = weights[torch.arange(rows, device=weights.device), block[:, 0]].cumsum(
        dim=-1, dtype=torch.float64
    )
    word = torch.searchsorted(within, share * within[:, -1:], right=True)
    return (block * BLOCK + word)[:, 0].clamp(max=words - 1)


def _in_nucleus(probabilities, uniform, top_p: float):
    """Inverse CDF over the most probable words, of which the last is the one that brings their sum to top_p."""
    import torch

    words, look = probabilities.shape[1], FIRST_LOOK
    chosen = torch.zeros_like(uniform, dtype=torch.long)
    left = torch.arange(len(uniform), device=uniform.device)
    wanted = top_p * probabilities.sum(dim=-1, dtype=torch.float64)
    while len(left):
        top, word = probabilities[left].topk(min(look, words))
        ends = top.cumsum(dim=-1, dtype=torch.float64)
        last = torch.searchsorted(ends, wanted[left, None])  # the first end that is not below what is wanted
        if look >= words:
            last.clamp_(max=words - 1)
        found = last[:, 0] < top.shape[1]
        ends, last, rows = ends[found], last[found], left[found]
        target = uniform[rows, None] * ends.gather(1, last)
        rank = torch.minimum(torch.searchsorted(ends, target, right=True), last)
        chosen[rows] = word[found].gather(1, rank)[:, 0]
        left, look = left[~found], look * 16
    return chosen


def _corrected(probabilities, chosen, possible):
    """The likeliest word where rounding has led to one of probability 0; ValueError where a row has no probability."""
    import torch

    largest, likeliest = probabilities.max(dim=-1)
    if not (largest > 0).all():  # false for nan as well
        row = int((~(largest > 0)).nonzero()[0])
        raise ValueError(
            f"row {row} of the batch has no next token: its scores are not numbers, or every word is forbidden; look for "
            "weights that are not finite, or for processors of the scores that leave nothing."
        )
    return torch.where(possible, chosen, likeliest)


# ---------------------------------------------------------------------------------------------------------- the draws


class Draws:
    """The draws of one generation of N rows of up to `tokens` new tokens.

    seeds, of inverse_cdf: N ints; None takes `row_seeds`. ValueError for another number of them, and for seeds of stock draws.
    """

    def __init__(self, draws: str, rows: int, tokens: int, seeds=None, device=None):
        self.rows, self.uniforms = rows, None
        if check_draws(draws) == "stock":
            if seeds is not None:
                raise ValueError(
                    "stock draws come from torch's generator and take no seeds of rows; leave them out."
                )
            return
        seeds = row_seeds(rows) if seeds is None else list(seeds)
        if len(seeds) != rows:
            raise ValueError(f"{len(seeds)} seeds for {rows} rows; expected one a row.")
        self.uniforms = uniforms(seeds, tokens, device)

    def split(self, processors):
        """(processors to apply first, top-p left to `__call__`): top-p by sorting is what costs most of them."""
        from transformers import LogitsProcessorList

        last = processors[-1] if len(processors) else None
        if self.uniforms is None or type(last).__name__ != "TopPLogitsWarper" or last.min_tokens_to_keep > 1:
            return processors, 1.0
        return LogitsProcessorList(processors[:-1]), last.top_p

    def __call__(self, scores, live, step: int, top_p: float = 1.0):
        """Token number `step` (from 0) of the rows `live` (n,) from their processed scores (n, V): (n,)."""
        if self.uniforms is None:
            return multinomial(scores, live, self.rows)
        return inverse_cdf(scores, self.uniforms[live, step], top_p)

    def as_processor(self, prompt: int):
        """A last logits processor that leaves each row of a whole batch its drawn token alone, for loops that are not ours."""
        import torch

        def only_the_drawn(input_ids, scores):
            live = torch.arange(self.rows, device=scores.device)
            chosen = self(scores, live, input_ids.shape[1] - prompt)
            return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)

        return only_the_drawn
