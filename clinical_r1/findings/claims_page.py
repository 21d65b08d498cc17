"""The verdicts of `claims` as markdown: docs/claims.md, the first screen of README.md, what was found in four bullets. Pure."""

import pandas as pd

from clinical_r1.arms import ARMS
from clinical_r1.findings.claims import (
    AFTER,
    APART,
    CONTRADICTED,
    MARGINS,
    MOST,
    NOT_RUN,
    SUPPORTED,
    UNSETTLED,
    WITHOUT,
    verdicts,
)
from clinical_r1.findings.wording import bullets, level, listed, measure, p_cell, places, plain, size
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


NAMED = {  # claims of CRPO over GRPO, in few words
    "accurate": "no less accurate",
    "truthful": "more true claims",
    "complete": "more rejected options",
    "fewer_false": "fewer false claims",
    "behaviours": "more visible thinking",
    "expert": "no less accurate on the hardest set",
}
SAID = (SUPPORTED, CONTRADICTED, UNSETTLED)


def in_short(rows: pd.DataFrame) -> str:
    """What was found, in four bullets, every number from `answer_rows`; a bullet whose comparisons were not run is left out."""
    asked = verdicts(rows).set_index(["key", "when"])["verdict"]
    return bullets([_gain(rows), _over_grpo(asked), _used(rows, asked), _needed(rows, asked)]) + "\n"


def _shown(rows, key, benchmark="clinic", unit=" points", **more) -> list[str]:
    """ "+33.9 points [31.0, 36.8]" of a comparison, one for each base: the run's own first, then others; [] where not run."""
    own = rows[(rows["key"] == key) & (rows["benchmark"] == benchmark) & rows["difference"].notna()]
    for name, value in more.items():
        own = own[own[name] == value]
    return [shown_value(row, unit) for row in own.itertuples()]


def _gain(rows):
    clinic, shift = (_shown(rows, "better_than_base", name) for name in PRIMARY_BENCHMARKS)
    if not clinic:
        return None
    also = f", {shift[0]} on `clinic-shift`" if shift else ""
    return f"**Training**: a cold start and CRPO change the base model's accuracy by {clinic[0]} on `clinic`{also}."


def _over_grpo(asked):
    """The paper's claims by verdict; once, where they are the same without and after a cold start."""
    said = {}
    for when in (WITHOUT, AFTER):
        of = {kind: [words for key, words in NAMED.items() if asked[(key, when)] == kind] for kind in SAID}
        if parts := [f"**{kind}**: {', '.join(names)}" for kind, names in of.items() if names]:
            said.setdefault("; ".join(parts), []).append(when)
    parts = [f"{' and '.join(whens)} {text}" for text, whens in said.items()]
    return f"**CRPO against GRPO**, as the paper claims it: {'. And '.join(parts)}." if parts else None


def _others(values):
    """ "; on 2 other bases 61.0 % [55.0, 67.0] and 72.0 % [66.0, 78.0]"."""
    others = values[1:]
    return f"; on {len(others)} other base{'s' * (len(others) > 1)} {listed(others)}" if others else ""


def _used(rows, asked):
    shares, changes = _shown(rows, "moves", unit=" %", method="crpo"), _shown(rows, "removed", method="crpo")
    if not shares:
        return None
    words = {SUPPORTED: "decides the answer", CONTRADICTED: "does not decide the answer"}
    head = words.get(asked[("moves", APART)], "may or may not decide the answer")
    against = f" Against the base model that is {changes[0]}{_others(changes)}." if changes else ""
    return (
        f"**The reasoning {head}**: where the names of two options are exchanged in it, {shares[0]} of CRPO's answers "
        f"follow{_others(shares)}.{against}"
    )


def _needed(rows, asked):
    more = _shown(rows, "direct", unit=" points of accuracy", method="crpo")
    if not more:
        return None
    words = {SUPPORTED: "It is not needed", CONTRADICTED: "It is needed"}
    head = words.get(asked[("direct", APART)], "Whether it is needed is open")
    return f"**{head}**: a copy trained to answer at once, compared with CRPO and its reasoning: {more[0]}{_others(more)}."


FIRST = ("accurate", "truthful", "complete", "fewer_false", "better_than_base", "moves", "removed", "truer")


def first_screen(rows: pd.DataFrame) -> str:
    """The README's block: what was found, and eight claims with their verdicts and numbers on `clinic`."""
    asked = verdicts(rows).set_index(["key", "when"])
    lines = []
    for key in FIRST:
        whens = (WITHOUT, AFTER) if (key, WITHOUT) in asked.index else (APART,)
        cells = [f"**{asked.loc[(key, when), 'verdict']}**{_on_clinic(rows, key, when)}" for when in whens]
        lines.append([asked.loc[(key, whens[0]), "claim"], *(cells if len(cells) == 2 else [cells[0], ""])])
    seeds, largest = rows["seeds"].max(), rows.loc[rows["metric"] == "accuracy", "n"].max()
    asked_of = size([largest], [seeds], "questions a set")
    return (
        f"Verdicts for this synthetic clinic only: {f'up to {asked_of}' if asked_of else 'nothing was run'}, rules "
        "written before the run ([claims](docs/claims.md)). In brackets: the difference on `clinic` with its 95 % interval, in "
        "points of accuracy, claims a response, or per cent of answers that follow exchanged names. *Contradicted* also where a "
        f"difference that matters is excluded: {MARGINS['accuracy']:g} points, {MARGINS['faithfulness']:g} claims, "
        f"{MARGINS['swap']:g} points of the swap.\n\n"
        + in_short(rows)
        + "\n"
        + markdown(["claim", WITHOUT, AFTER], lines)
        + "\n"
    )


def _on_clinic(rows, key, when):
    """ " (+0.17 [0.10, 0.24])": the comparisons on `clinic` behind one cell; "" where nothing was run."""
    own = rows[(rows["key"] == key) & (rows["when"] == when) & (rows["benchmark"] == "clinic")]
    own = own[own["difference"].notna()].drop_duplicates(["method", "against", "metric"])
    shown = [f"{ARMS[row.method].label} " * (len(own) > 1) + shown_value(row) for row in own.itertuples()]
    return f" ({'; '.join(shown)})" if shown else ""
