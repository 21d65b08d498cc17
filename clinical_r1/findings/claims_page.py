"""The verdicts of `claims` as markdown: docs/claims.md, the first screen of README.md, what was found in five bullets. Pure."""

import pandas as pd

from clinical_r1.arms import ARMS
from clinical_r1.findings.claims import (
    AFTER,
    APART,
    BASES_NEEDED,
    CONTRADICTED,
    MARGINS,
    MOST,
    NOT_RUN,
    SUPPORTED,
    UNSETTLED,
    WITHOUT,
    verdicts,
)
from clinical_r1.findings.wording import (
    bullets,
    capital,
    counted,
    level,
    listed,
    measure,
    p_cell,
    places,
    plain,
    size,
    verb,
)
from clinical_r1.metrics import PRIMARY_BENCHMARKS
from clinical_r1.tables import markdown, number, whole


def claims_block(rows: pd.DataFrame) -> str:
    """Both tables of docs/claims.md: a verdict for each claim, then every comparison with its numbers."""
    asked = verdicts(rows)
    first = [
        [
            claim_sentence(row),
            row.where,
            f"**{row.verdict}**" if row.verdict != NOT_RUN else row.verdict,
            row.why,
        ]
        for row in asked.itertuples()
    ]
    second = [_numbers(row) for row in rows[rows["verdict"] != NOT_RUN].itertuples()]
    header = ["claim", "difference", "set", "value [95 %]", "p", "detectable", "n", "seeds", "verdict"]
    return (
        "\n\n".join(
            [
                "Verdicts hold for the synthetic clinic and its small model only.",
                markdown(["claim", "who says it", "verdict", "comparisons"], first),
                "Every comparison: per cent or its points for accuracy, swap and direct, otherwise per response; p is Holm's.",
                markdown(header, second),
            ]
        )
        + "\n"
    )


def claim_sentence(row) -> str:
    """The sentence of a claim, with its part where it is asked twice. row: of `verdicts`, as a tuple with names."""
    return f"{row.claim}, {row.when}" if row.when else row.claim


def shown_value(row, unit: str = "") -> str:
    """ "+0.17 [0.10, 0.24]": a row of `answer_rows` (as a tuple with names) in the digits of its measure."""
    sign = "" if row.direction == MOST else "+"
    return level(row.difference, row.ci_low, row.ci_high, places(row.metric, row.difference), unit, sign)


def _numbers(row):
    p = "–" if row.direction == MOST else p_cell(row.p)
    pair = ARMS[row.method].label + (f" − {ARMS[row.against].label}" if row.against in ARMS else "")
    where = f"`{row.benchmark}`" + (f", base {plain(row.base)}" if row.base else "")
    sizes = whole(row.n), whole(row.seeds)
    cells = [
        shown_value(row),
        p,
        number(row.mde, places(row.metric, row.mde)),
        *sizes,
        f"{row.verdict}: {row.why}",
    ]
    return [row.key.replace("_", " "), f"{pair}: {measure(row.metric)}", where, *cells]


NAMED = {  # what the paper claims of CRPO over GRPO, after "that it"
    "accurate": "is no less accurate",
    "truthful": "states more true claims",
    "complete": "rejects more options",
    "fewer_false": "makes fewer false claims",
    "behaviours": "shows more steps of thinking",
    "expert": "is no less accurate on the hardest set",
}
SAID = (SUPPORTED, CONTRADICTED, UNSETTLED)
FIRST = ("accurate", "truthful", "complete", "fewer_false")  # the primary claims of CRPO over GRPO


def in_short(rows: pd.DataFrame) -> str:
    """What was found, in five bullets, every number from `answer_rows`; a bullet whose comparisons were not run is left out."""
    asked = verdicts(rows).set_index(["key", "when"])["verdict"]
    causes = _used(rows, asked), _weight(rows), _needed(rows, asked)
    return bullets([_gain(rows, asked), _over_grpo(rows, asked), *causes]) + "\n"


def _own(rows, key, benchmark="clinic", **more):
    """The comparisons of one claim that were run."""
    own = rows[(rows["key"] == key) & (rows["benchmark"] == benchmark) & rows["difference"].notna()]
    for name, value in more.items():
        own = own[own[name] == value]
    return own


def _shown(rows, key, benchmark="clinic", unit=" points", **more) -> list[str]:
    """ "+33.9 points [31.0, 36.8]" of a comparison, one for each base: the run's own first, then others; [] where not run."""
    return [shown_value(row, unit) for row in _own(rows, key, benchmark, **more).itertuples()]


def _gain(rows, asked):
    clinic, shift = (_shown(rows, "better_than_base", name) for name in PRIMARY_BENCHMARKS)
    if not clinic:
        return None
    heads = {
        SUPPORTED: "A cold start and CRPO make the base model more accurate",
        CONTRADICTED: "A cold start and CRPO do not make the base model more accurate",
    }
    head = heads.get(
        asked[("better_than_base", APART)], "Whether training makes the base model more accurate is open"
    )
    also = f", {shift[0]} on `clinic-shift`" if shift else ""
    return f"**{head}**: {clinic[0]} on `clinic`{also}."


def _over_grpo(rows, asked):
    """The paper's claims by verdict; once, where they are the same without and after a cold start."""
    said = {}
    for when in (WITHOUT, AFTER):
        of = {kind: [words for key, words in NAMED.items() if asked[(key, when)] == kind] for kind in SAID}
        if parts := [f"**{kind}** that CRPO {listed(names)}" for kind, names in of.items() if names]:
            said.setdefault("; ".join(parts), []).append(when)
    if not said:
        return None
    given = [
        asked[(key, when)] for key in NAMED for when in (WITHOUT, AFTER) if asked[(key, when)] != NOT_RUN
    ]
    head = f"{given.count(SUPPORTED)} of {counted(len(given), 'verdict')} on CRPO against GRPO"
    head += f" {verb(len(given), 'supports', 'support')} the paper"
    parts = ". ".join(f"{capital(' or '.join(whens))}: {text}" for text, whens in said.items())
    return f"**{head}.** {parts}.{_meant(rows)}"


def _meant(rows):
    """What "contradicted" means of CRPO against GRPO, where it never means that the opposite was found."""
    own = rows[rows["key"].isin(NAMED) & (rows["verdict"] == CONTRADICTED)]
    if own.empty or not own["why"].str.endswith("is excluded").all():
        return ""
    sizes = listed(dict.fromkeys(f"{margin:g}" for margin in own["margin"]), "or")
    return f" Contradicted means here: an advantage of {sizes} an answer is ruled out. The opposite was not found."


def _others(values):
    """ "; on 2 other bases 61.0 % [55.0, 67.0] and 72.0 % [66.0, 78.0]"."""
    others = values[1:]
    return f"; on {len(others)} other base{'s' * (len(others) > 1)} {listed(others)}" if others else ""


def _about_causes(rows, asked, key, supported, contradicted):
    """The first words, bold; and on how many bases it was asked, where those are too few for the verdict "supported"."""
    said, own = asked[(key, APART)], rows[(rows["key"] == key) & (rows["verdict"] != NOT_RUN)]
    if said in (SUPPORTED, CONTRADICTED):
        return f"**{supported if said == SUPPORTED else contradicted}**"
    if (own["verdict"] == SUPPORTED).all() and (bases := own["base"].nunique()) < BASES_NEEDED:
        return f"**{supported}** (unsettled: {bases} of {BASES_NEEDED} required base models tested)"
    return f"**Open: {supported[0].lower()}{supported[1:]}**"


def _sizes(own):
    return size(own["n"].iloc[:1], own["seeds"].iloc[:1])


def _used(rows, asked):
    own = _own(rows, "moves", method="crpo")
    if own.empty:
        return None
    shares = _shown(rows, "moves", unit=" %", method="crpo")
    says = (
        "The answer follows the written reasoning",
        "The answer does not always follow the written reasoning",
    )
    head = _about_causes(rows, asked, "moves", *says)
    return (
        f"{head}: when we exchange the names of two options in CRPO's reasoning, its answer changes with them in "
        f"{shares[0]} ({_sizes(own)}){_others(shares)}."
    )


def _weight(rows):
    """What reward for the outcome does to the share of answers that follow a swap, on every base, and to true claims."""
    own = _own(rows, "removed")
    if own.empty:
        return None
    bases, less = own["base"].nunique(), own.loc[own["verdict"] == SUPPORTED, "base"].nunique()
    where = "every base model tested" if less == bases else f"{less} of {counted(bases, 'base model')}"
    head = f"On {where if less else 'no base model tested'} reward for the outcome "
    head += (
        "makes the reasoning matter less to the answer"
        if less
        else "is found to make the reasoning matter less"
    )
    parts = []
    for method in dict.fromkeys(own["method"]):
        changes, truer = (
            _shown(rows, key, unit=unit, method=method)
            for key, unit in (("removed", " points"), ("truer", ""))
        )
        first = f"true claims an answer {truer[0]}, " if truer else ""
        parts.append(
            f"{ARMS[method].label} minus its base model: {first}answers that change with the names {changes[0]}{_others(changes)}"
        )
    return f"**{head}**. {'. '.join(parts)}."


def _needed(rows, asked):
    own = _own(rows, "direct", method="crpo")
    if own.empty:
        return None
    more = _shown(rows, "direct", method="crpo")
    says = (f"A copy trained to answer without reasoning is {how} accurate" for how in ("as", "less"))
    head = _about_causes(rows, asked, "direct", *says)
    return (
        f"{head}: the copy minus CRPO with reasoning, {more[0]} of accuracy ({_sizes(own)}){_others(more)}."
    )


def first_screen(rows: pd.DataFrame) -> str:
    """The README's block: what was found, and the paper's primary claims of CRPO over GRPO with verdicts and numbers."""
    asked = verdicts(rows).set_index(["key", "when"])
    lines = []
    for key in FIRST:
        cells = [
            f"**{asked.loc[(key, when), 'verdict']}**{_on_both(rows, key, when)}" for when in (WITHOUT, AFTER)
        ]
        lines.append([asked.loc[(key, WITHOUT), "claim"], *cells])
    seeds, largest = rows["seeds"].max(), rows.loc[rows["metric"] == "accuracy", "n"].max()
    asked_of = size([largest], [seeds], "questions a set")
    both = " · ".join(f"`{name}`" for name in PRIMARY_BENCHMARKS)
    return (
        f"For the synthetic clinic only: {f'up to {asked_of}' if asked_of else 'nothing was run'}, rules written before "
        "the run ([claims](docs/claims.md)). Brackets hold 95 % intervals; + means that the first named has more. Tests are "
        "corrected for their number, intervals are not.\n\n"
        + in_short(rows)
        + f"\nEach cell: the verdict, then CRPO minus GRPO on {both}, in points of accuracy, claims or options an answer. "
        f"**Supported**: found on both sets; for accuracy, a loss of {MARGINS['accuracy']:g} points is ruled out. "
        "**Contradicted**: on one set or both, the opposite was found, or an advantage of "
        f"{MARGINS['faithfulness']:g} is ruled out. **Unsettled**: anything else.\n\n"
        + markdown(["the paper's claim", WITHOUT, AFTER], lines)
        + "\n"
    )


def _on_both(rows, key, when):
    """ ": +0.17 [0.10, 0.24] · +0.09 [0.01, 0.17]": what one cell rests on, a dash for a set that was not run; "" for neither."""
    own = rows[rows["when"] == when]
    shown = [_shown(own, key, name, unit="") or ["–"] for name in PRIMARY_BENCHMARKS]
    return "" if shown == [["–"]] * len(shown) else f": {' · '.join(one for one, *_ in shown)}"
