"""What docs/causality.md says by hand agrees with the code.   pytest tests/causality/test_page.py"""

import re

from pages import one_line, page

from clinical_r1.causality.direct import STEPS
from clinical_r1.causality.probes import FORCED_CLAIMS
from clinical_r1.settings import PROFILES

PAGE = page("docs/causality.md")
TEXT = one_line(PAGE)


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


def test_results_stand_in_the_generated_block_only():
    by_hand = re.sub(r"<!-- causality: generated -->.*<!-- /causality -->", "", PAGE, flags=re.DOTALL)
    assert not re.findall(r"\d\.\d", by_hand)
