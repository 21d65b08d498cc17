"""What the other tables of notebook 04 found: seeds, protocols, rewards, judges, options, reasoning removed, the ledger.

Pure: frames in, markdown out, for any run, as in `pairs`.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from clinical_r1.arms import ARMS
from clinical_r1.findings.wording import (
    arm,
    benchmark,
    bullets,
    change,
    counted,
    finding,
    from_to,
    level,
    listed,
    measure,
    most,
    per_cent,
    plain,
    size,
    verb,
)
from clinical_r1.intervals import mean_interval
from clinical_r1.labels import objective_label
from clinical_r1.rewards import REWARD_SETS


def _few(cases: list[str]) -> str:
    """Cases that are equal in something, by name; many by their number."""
    return listed(cases) if len(cases) <= 3 else f"{len(cases)} cases"


def seeds_differ(per_seed: pd.DataFrame) -> str:
    """per_seed: accuracy in per cent, index (benchmark, method), a column a training seed; NaN where a model has none."""
    seeds = per_seed.shape[1]
    if seeds < 2:
        return finding("one training seed: how far another would lie is not known")
    trained = [name in ARMS and bool(ARMS[name].stage) for name in per_seed.index.get_level_values("method")]
    width = (per_seed.max(axis=1) - per_seed.min(axis=1)).where(per_seed.notna().sum(axis=1) > 1)
    wide = width[trained].dropna()
    if wide.empty:
        return finding("no trained arm has several training seeds that could differ")
    ends = _few([f"{arm(name)} on {benchmark(where)}" for where, name in most(wide)])
    below = f"Lowest to highest of {seeds} seeds: median {wide.median():.1f} points over the trained arms and the sets."
    own = width[width.index.get_level_values("method") == "baseline"].dropna()
    if len(own):
        below += " The baseline is not trained; with other random numbers alone its accuracies lie "
        below += f"{from_to(own, 1)} points apart."
    if wide.max() == 0:
        return finding(f"none of {seeds} training seeds moves the accuracy of a trained arm", below)
    heading = f"another training seed moves accuracy by up to {wide.max():.1f} points ({ends})"
    return finding(heading, below)


# ------------------------------------------------------------------------------------------------------------ protocols

ONE_SAMPLE, NAN = "one sample", float("nan")


def protocols_differ(both: pd.DataFrame, options: Mapping[str, float]) -> str:
    """Accuracy and coverage, one sample a question against each other protocol.

    both: rows of `metrics.summarise` for accuracy, in [0, 1], with a column protocol. options: benchmark -> options a question.
    """
    table = both.set_index(["protocol", "benchmark", "method"])
    others = [name for name in dict.fromkeys(both["protocol"]) if name != ONE_SAMPLE]
    if not others:
        return finding("one protocol: this run answers each question once, sampled", _coverage(both, options))
    parts, lines = [], []
    for name in others:
        one, other = table.loc[ONE_SAMPLE], table.loc[name]
        keys = [key for key in one.index if key in other.index]
        moved = 100 * (other.loc[keys, "value"] - one.loc[keys, "value"])
        if not moved.notna().any():
            continue
        apart = (other.loc[keys, "ci_low"] > one.loc[keys, "ci_high"]) | (
            other.loc[keys, "ci_high"] < one.loc[keys, "ci_low"]
        )
        by = from_to(moved, lambda value: change(value, NAN, NAN, 1))
        parts.append(f"{plain(name)} answers differ from one sample by {by} points of accuracy")
        lines += [_protocol_line(name, moved, apart), *_leaders(one, other, keys, name)]
    heading = "; ".join(parts) or "no arm answered a set by two protocols"
    return finding(heading, bullets([*lines, _coverage(both, options)]))


def _protocol_line(name, moved, apart):
    """In how many cases the intervals lie apart, and the case that moves most."""
    far = [
        f"{arm(method)} on {benchmark(where)}, {change(moved[where, method], NAN, NAN, 1, ' points')}"
        for where, method in most(moved.abs())
    ]
    case = f"; most {verb(len(far), 'moves', 'move')} {_few(far)}" if moved.abs().max() > 0 else ""
    return f"{plain(name)}: intervals apart in {apart.sum()} of {counted(len(moved), 'case')}{case}."


def _leaders(one, other, keys, name):
    """On which sets other arms come first, without a word on whether they do so by more than chance."""
    for where in dict.fromkeys(key[0] for key in keys):
        here = [key for key in keys if key[0] == where]
        first, second = ([arm(key[1]) for key in most(frame.loc[here, "value"])] for frame in (one, other))
        if first and second and first != second:
            has = f"{listed(first)} {verb(len(first), 'has', 'have')} the highest value with one sample"
            yield f"on {benchmark(where)} {has}, {listed(second)} with {plain(name)}."


def _coverage(both, options):
    """Where the fewest answers state a letter, on the set with the most options."""
    both = both[both["coverage"].notna()]
    known = {name: n for name, n in options.items() if pd.notna(n) and name in set(both["benchmark"])}
    if not known:
        return ""
    least = both.groupby("benchmark")["coverage"].min()
    where = min(known, key=lambda name: (-known[name], least.get(name, 1.0)))
    rows = both[both["benchmark"] == where]
    said = []
    for name, own in rows.groupby("protocol", sort=False):
        shares, last = (
            from_to(100 * own["coverage"], 1),
            most(own.set_index("method")["coverage"], lowest=True),
        )
        fewest = f"; fewest: {listed(map(arm, last))}" if len(last) < len(own) else ""
        said.append(f"{shares} % of the answers state a letter ({plain(name)}{fewest})")
    return f"with {known[where]:g} options, on {benchmark(where)}, {'; '.join(said)}; an answer without one counts as wrong."


# -------------------------------------------------------------------------------------------------------------- rewards

MOST = {
    "accuracy_reward": 1.0,
    "consistency_reward": 1.0,
    "thinking_format_reward": 1.5,
    "clinical_reasoning_reward": 1.5,
}
REWARD_COLUMNS = "benchmark method reward value ci_low ci_high n seeds".split()


def reward_rows(records: pd.DataFrame) -> pd.DataFrame:
    """The training rewards of scored records as REWARD_COLUMNS: means a response, 95 % intervals over questions (and seeds).

    A reward that could not be given has no part in its mean; n counts the questions that have one.
    """
    rows = []
    for (where, method), own in records.groupby(["benchmark", "method"], sort=False):
        given = pd.DataFrame(own["rewards"].tolist(), index=own.index).astype(float)
        several = own["seed"].nunique() > 1
        for name in given:
            there = given[name].notna()
            if there.any():
                ids, seeds = own["id"][there], own["seed"][there] if several else None
                low, high = mean_interval(given[name][there], clusters=ids, seeds=seeds)
                low, high = np.clip([low, high], 0.0 if name in MOST else -np.inf, MOST.get(name, np.inf))
                numbers = {
                    "value": given[name][there].mean(),
                    "ci_low": low,
                    "ci_high": high,
                    "n": ids.nunique(),
                }
                names = {"benchmark": where, "method": method, "reward": name}
                rows.append(names | numbers | {"seeds": own["seed"].nunique()})
    return pd.DataFrame(rows, columns=REWARD_COLUMNS)


def rewards_seen(rows: pd.DataFrame) -> str:
    """What each trained arm earns of what it is paid for, on the first set, beside the baseline. rows: `reward_rows`."""
    if rows.empty:
        return finding("no rewards were computed for these answers")
    where = rows["benchmark"].iloc[0]
    own = rows[rows["benchmark"] == where].set_index(["method", "reward"])
    paid = {
        name: [term for term in _terms(name) if (name, term) in own.index]
        for name in dict.fromkeys(rows["method"])
    }
    paid = {name: terms for name, terms in paid.items() if terms}
    if not paid:
        return finding("no trained arm: nothing was learned from these rewards")
    terms = list(dict.fromkeys(term for names in paid.values() for term in names))
    ranges = [
        f"{_term(term)} {from_to([own.loc[(name, term), 'value'] for name, has in paid.items() if term in has], 2)}"
        for term in terms
    ]
    lines = [f"{arm(name)}: {_earned(own, name, has)}." for name, has in paid.items()]
    if "baseline" in own.index.get_level_values("method"):
        has = [term for term in _terms("crpo") if ("baseline", term) in own.index]
        lines.append(
            f"{arm('baseline')}, which is asked with CRPO's prompt and paid nothing: {_earned(own, 'baseline', has)}."
        )
    most = [f"{_term(term)} {MOST[term]:g}" for term in terms if term in MOST]
    asked = size([own["n"].max()], [own["seeds"].max()])
    return finding(
        f"on {benchmark(where)} trained arms earn, of what they are paid for, {listed(ranges)}",
        bullets(lines),
        f"{asked}. The most there is to earn: {', '.join(most)}.",
    )


def _terms(name):
    """What an arm is paid for."""
    rewards = REWARD_SETS.get(ARMS[name].rewards) if name in ARMS and ARMS[name].stage == "rl" else None
    return [function.__name__ for function in rewards.functions] if rewards else []


def _term(name):
    return plain(objective_label(name).removesuffix(" reward").lower())


def _earned(own, name, terms):
    rows = [(term, own.loc[(name, term)]) for term in terms]
    return ", ".join(
        f"{_term(term)} {level(row['value'], row['ci_low'], row['ci_high'], 2)}" for term, row in rows
    )


# --------------------------------------------------------------------------------------------------------------- judges


def judges_agree(calibration: pd.DataFrame) -> str:
    """Where each judge agrees least with exact counts. calibration: rows of `judges.calibration.agreement_table`."""
    known = calibration[calibration["kappa"].notna()]
    if known.empty:
        return finding("no judge can be measured on these answers")
    heads, lines = [], []
    for name, own in known.groupby("judge", sort=False):
        worst = map(measure, most(own.set_index("measure")["kappa"], lowest=True))
        heads.append(f"{plain(name)} {level(own['kappa'].min(), NAN, NAN, 2)} ({listed(worst)})")
        said = [_agrees(row) for row in own.itertuples()]
        lines.append(f"**{plain(name)}**: kappa {'; '.join(said)}.")
    return finding(
        f"lowest kappa of each judge: {', '.join(heads)}",
        bullets(lines),
        f"{counted(int(known['n'].max()), 'answer')} of one training seed; bootstrap intervals over questions.",
    )


def _agrees(row):
    kappa, slope = row.kappa, row.slope
    shown = level(kappa, row.kappa_low, row.kappa_high, 2), level(slope, row.slope_low, row.slope_high, 2)
    return f"{measure(row.measure)} {shown[0]}, slope {shown[1]}"


def judges_order(orders: pd.DataFrame) -> str:
    """Which judges put two trained policies in the exact order. orders: rows of `judges.calibration.ordering`, all judges."""
    known = orders[~orders["order"].isin(["exact undecided", "no verdict"])]
    if known.empty:
        return finding("no order to find: the exact counts do not tell these two policies apart")
    pair = known.iloc[0]
    right, wrong, lines = [], [], []
    for name, own in known.groupby("judge", sort=False):
        bad = own[own["order"] != "same"]
        (wrong if len(bad) else right).append(plain(name))
        words = {
            "same": "the same order",
            "reversed": "the **reversed** order",
            "judge undecided": "no order",
        }
        said = [
            f"{measure(row.measure)}: {words[row.order]}, {change(row.judged, row.judged_low, row.judged_high, 2)} "
            f"against {change(row.exact, row.exact_low, row.exact_high, 2)}"
            for row in own.itertuples()
        ]
        lines.append(f"**{plain(name)}**: {'; '.join(said)}.")
    parts = [f"right wherever there is one: {listed(right)}"] if right else []
    parts += [f"not everywhere: {listed(wrong)}"] if wrong else []
    heading = f"the order of {arm(pair['method'])} and {arm(pair['against'])}, {'; '.join(parts)}"
    asked = f"Judged against exact difference of these two policies; {size([known['n'].max()], [])}, intervals over them."
    return finding(heading, bullets(lines), asked)


# --------------------------------------------------------------------------------------------------------------- probes


def options_exchanged(shuffled: pd.DataFrame | None) -> str:
    """How many answers stay when options are permuted. shuffled: `audit.perturbations.shuffle_table`; None: not asked."""
    if shuffled is None or shuffled.empty:
        return finding("not asked: this profile gives no greedy answers, so nothing can be asked again")
    shuffled = shuffled.set_index("method")
    least = most(shuffled["consistent"], lowest=True)
    told = listed(
        f"{arm(n)} {per_cent(*shuffled.loc[n, ['consistent', 'ci_low', 'ci_high']])}" for n in least
    )
    which = "Fewest: " if len(least) < len(shuffled) else ""
    return finding(
        f"{from_to(100 * shuffled['consistent'], 1)} % of the answers stay when the options change places",
        f"{which}{told}; {size(shuffled['n'], [])}, one training seed. A guesser of places would reach "
        f"{from_to(100 * shuffled['position_only'], 1)} %.",
    )


def reasoning_removed(effect: pd.DataFrame | None) -> str:
    """Accuracy with an arm's own reasoning minus without. effect: `audit.perturbations.reasoning_table`; None: not asked."""
    if effect is None or effect.empty:
        return finding("not asked: this profile gives no greedy answers")
    gain = effect[(effect["measure"] == "gain") & effect["value"].notna()]
    if gain.empty:
        return finding("no answer was given both with its reasoning and without")
    readings = verb(gain["reading"].nunique(), "in the one reading", "in both readings")
    better, worse = gain["ci_low"] > 0, gain["ci_high"] < 0
    lines = []
    for name, own in gain.groupby("method", sort=False):
        said = [
            f"{change(*(100 * row[key] for key in ('value', 'ci_low', 'ci_high')), 1, ' points')} ({row['reading']})"
            for row in own.to_dict("records")
        ]
        lines.append(f"{arm(name)}: {listed(said)}.")
    both = gain.assign(better=better).groupby("method", sort=False)["better"].all()
    names = [arm(name) for name in both[both].index]
    heading = f"no arm is found to be less accurate where its own reasoning is taken out, {readings}"
    if names:
        heading = f"with the reasoning taken out, {listed(names)} {verb(len(names), 'is', 'are')} less accurate, {readings}"
    if len(harmed := [arm(name) for name in dict.fromkeys(gain.loc[worse, "method"])]):
        heading += f"; {listed(harmed)} {verb(len(harmed), 'is', 'are')} more accurate in at least one"
    asked = f"{size([gain['n'].max()], [])}, one training seed; the sign is read off the 95 % intervals. An arm that was trained "
    asked += (
        "to reason first is asked here for what it never learned; the direct control below is trained for it."
    )
    return finding(heading, bullets(lines), asked)


def ledger_says(rows: pd.DataFrame) -> str:
    """How many of the paper's printed cells have which verdict, and why the others have none. rows: `ledger.write_ledger`."""
    asked = rows[rows["verdict"] != "not attempted"]
    missing = rows[rows["verdict"] == "not attempted"]
    counts = [f"{n} {name}" for name, n in asked["verdict"].value_counts(sort=False).items()]
    heading = (
        f"{len(asked)} of {len(rows)} printed cells {verb(len(asked), 'is', 'are')} answered by this run"
        + (f": {', '.join(counts)}" if counts else "")
    )
    lines = [f"{n} not attempted: {plain(reason)}." for reason, n in missing["reason"].value_counts().items()]
    return finding(heading, bullets(lines))
