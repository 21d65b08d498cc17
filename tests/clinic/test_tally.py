"""The tally of written claims.   pytest tests/clinic/test_tally.py"""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_r1.clinic.cases import Case, load_set
from clinical_r1.clinic.verdicts import AGAINST, SUPPORTS, Claim, favoured, read_vignette, tally
from clinical_r1.labels import CLINIC_BENCHMARKS

OPTIONS = ("a", "b", "c")
CLAIMS = st.builds(
    Claim,
    st.sampled_from("xyz"),
    st.booleans(),
    st.sampled_from((SUPPORTS, AGAINST)),
    st.sampled_from((*OPTIONS, "d")),
)


def test_a_tally_by_hand():
    claims = [
        Claim("x", True, SUPPORTS, "a"),
        Claim("x", True, SUPPORTS, "a"),  # said twice, counted once
        Claim("y", False, SUPPORTS, "b"),
        Claim("x", True, AGAINST, "b"),
        Claim("z", True, AGAINST, "c"),
        Claim("z", True, SUPPORTS, "d"),  # no option
    ]
    assert tally(claims, OPTIONS) == {"a": 1, "b": 0, "c": -1}
    assert favoured(tally(claims, OPTIONS)) == "a"
    assert favoured(tally(claims[2:], OPTIONS)) is None  # a and b share the top
    assert favoured(tally([], OPTIONS)) is None


@settings(max_examples=200, deadline=None)
@given(st.lists(CLAIMS, max_size=12))
def test_a_tally_is_the_sum_of_distinct_claims_in_any_order(claims):
    expected = Counter()
    for claim in set(claims):
        expected[claim.condition] += claim.direction
    totals = tally(claims, OPTIONS)
    assert totals == {option: expected[option] for option in OPTIONS} == tally(claims[::-1], OPTIONS)
    ranked = sorted(totals.values())
    top = [option for option in OPTIONS if totals[option] == ranked[-1]]
    assert favoured(totals) == (top[0] if ranked[-1] > ranked[-2] else None)


@pytest.mark.parametrize("name", CLINIC_BENCHMARKS)
def test_a_vignette_is_read_back(name):
    for question in load_set(name, "validation", 60):
        assert read_vignette(question.stem) == frozenset(Case.from_json(question.meta["case"]).stated)
    assert read_vignette(question.stem.replace("Patient: ", "Patient: a talking cat, ")) is None
    assert read_vignette("") is None
