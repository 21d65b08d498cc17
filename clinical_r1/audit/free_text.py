"""How often the reader of free texts (`engines.free_text`) reads what a model then answered, on real chains."""

from clinical_r1.audit.public_answers import read_chains
from clinical_r1.engines.free_text import read_free_text
from clinical_r1.intervals import wilson_interval

AGREEMENT_COLUMNS = "benchmark model n read read_share agree agreement ci_low ci_high".split()


def free_text_agreement(source=None):
    """What the reader finds in the reasoning of real chains, against the answer that the model then gave; in per cent.

    One row per benchmark and model, and one over all. n: chains whose answer can be read (MIRAGE's JSON). read: of them, those
    whose reasoning gives a letter; agree: of these, those with the same letter, with a 95 % Wilson interval. A chain is not
    asked to state its answer, so many do not. source, errors: as `public_answers.read_answers`.
    """
    import pandas as pd

    counts: dict[tuple, list[int]] = {}
    for benchmark, model, question, _, parsed in read_chains(source):
        if parsed.letter and parsed.analytical:
            letter = read_free_text(parsed.analytical, options=question.options).letter
            for key in ((benchmark, model), ("all", "all")):
                row = counts.setdefault(key, [0, 0, 0])
                for place, said in enumerate((True, letter is not None, letter == parsed.letter)):
                    row[place] += said
    rows = [
        (*key, *_shares(*row)) for key, row in sorted(counts.items(), key=lambda item: item[0][0] == "all")
    ]
    return pd.DataFrame(rows, columns=AGREEMENT_COLUMNS).round(2)


def _shares(n: int, read: int, agree: int) -> tuple:
    low, high = wilson_interval(agree, read) if read else (0.0, 1.0)
    return n, read, 100 * read / n, agree, 100 * agree / read if read else None, 100 * low, 100 * high
