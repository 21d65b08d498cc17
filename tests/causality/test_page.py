"""docs/causality.md agrees with the results beside it, docs/causality.csv.   pytest tests/causality/test_page.py"""

import pandas as pd
import pytest
from pages import one_line, page

from clinical_r1.arms import ARMS
from clinical_r1.causality.direct import STEPS
from clinical_r1.causality.probes import FORCED_CLAIMS
from clinical_r1.causality.summary import as_markdown
from clinical_r1.files import ROOT
from clinical_r1.intervals import wilson_interval
from clinical_r1.settings import PROFILES

PAGE = page("docs/causality.md")
TEXT = one_line(PAGE)
TABLE = pd.read_csv(ROOT / "docs" / "causality.csv")
SHARES = TABLE.set_index(["method", "seed", "probe"])["share"]


def test_the_table_of_the_page_is_that_of_the_file():
    """Fix: put `causality.summary.as_markdown` of the file in its place."""
    assert as_markdown(TABLE) in PAGE


def test_the_file_is_whole():
    assert set(TABLE["method"]) <= ARMS.keys() and not TABLE.duplicated(["method", "seed", "probe"]).any()
    assert (
        set(TABLE["split"]) == {"validation"} and (TABLE["seed"] >= 100).all()
    )  # nothing of the test questions
    counts = TABLE[["hits", "stay", "gold", "other", "unread"]].fillna(0).sum(axis=1)
    assert (counts == TABLE["n"]).all()
    for row in TABLE.itertuples():
        assert row.share == pytest.approx(row.hits / row.n)
        assert (row.ci_low, row.ci_high) == pytest.approx(wilson_interval(row.hits, row.n), abs=1e-12)


def test_sizes_are_those_of_the_code():
    cpu, laptop, published = (PROFILES[name] for name in ("cpu", "laptop", "published"))
    sizes = f"{cpu.probe_questions} with profile `cpu`, {laptop.probe_questions} with `laptop`, without the direct control"
    assert f"on its test questions: {sizes}" in TEXT
    assert (cpu.direct_seeds, laptop.direct_seeds, published.direct_seeds) == (0, 0, 3)
    assert (
        f"{published.probe_questions} with `published`, where the first three seeds have that control" in TEXT
    )
    assert f"for {STEPS} steps, with the loss on the answer alone" in TEXT
    assert FORCED_CLAIMS == 2 and "the only claims are two that" in TEXT


def per_cent(method, probe):
    """The shares of all seeds, lowest first, as the page writes them."""
    return [f"{100 * share:.1f}" for share in sorted(SHARES[method, :, probe])]


RL = ("crpo", "grpo", "cold_start_crpo", "cold_start_grpo", "exact_tally")
TRAINED = ("cold_start", *RL)


def between(methods, probe):
    shares = TABLE[TABLE["method"].isin(methods) & (TABLE["probe"] == probe)]["share"]
    return f"{100 * shares.min():.1f}", f"{100 * shares.max():.1f}"


def test_what_is_said_of_the_base():
    swap, named, denied = (per_cent("baseline", probe)[0] for probe in ("swap", "named", "denied"))
    assert f"swap {swap}, named {named}, denied {denied}" in TEXT
    assert float(swap) >= 90 and float(denied) <= 25  # the gate


def test_what_is_said_of_the_arms():
    low, high = between(TRAINED, "swap")
    assert f"the swap lies between {low} and {high}" in TEXT
    assert f"answered in at least {between(TRAINED, 'named')[0]}," in TEXT
    assert f"gives the gold in at most {between(TRAINED, 'empty')[1]}, where guessing gives 25" in TEXT
    low, high = between(RL, "denied")
    (base,) = set(per_cent("baseline", "denied"))
    assert f"answered in {base} by the base and in {low} to {high} by the arms with RL" in TEXT
    assert float(low) > float(base)


def test_what_is_said_of_agreement_and_of_the_direct_copy():
    def both(method, probe):
        return " and ".join(dict.fromkeys(per_cent(method, probe)))

    grpo, base, tally = (both(method, "agreement") for method in ("grpo", "baseline", "exact_tally"))
    swaps = f"the swap is {both('grpo', 'swap')} in the one, {both('baseline', 'swap')} in the other"
    assert f"GRPO agrees with its own claims in {grpo}, the base in {base}; {swaps}" in TEXT
    assert f"agrees in {tally}, and its swap is {both('exact_tally', 'swap')}" in TEXT
    direct, accuracy = both("baseline", "direct"), both("baseline", "accuracy")
    assert f"is right in {direct}, the base itself with its reasoning in {accuracy}" in TEXT
    low, high = between(TRAINED, "direct")
    assert f"Copies of the trained arms are right in {low} to {high}." in TEXT
