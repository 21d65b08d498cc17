"""What notebook 01 finds, a heading and a sentence or two for each section: tables in, markdown out.

Every number is the table's, with real benchmark files or without.
"""

from clinical_r1.files import DATA_VARIABLE
from clinical_r1.findings.wording import benchmark as called
from clinical_r1.findings.wording import (
    bullets,
    counted,
    finding,
    per_cent,
    plain,
    sentences,
    verb,
)
from clinical_r1.findings.wording import written as number
from clinical_r1.labels import CLINIC_BENCHMARKS


def world(kb):
    """How large the clinic is. kb: `clinic.knowledge.knowledge_base`."""
    relations = sum(map(len, kb.relations.values()))
    return finding(
        f"{len(kb.conditions)} conditions in {len(kb.families)} families of look-alikes, {len(kb.findings)} findings, and "
        f"{relations:,} weighted relations between them"
    )


def case(table):
    """Why one question has one answer. table: `tables.case_table`."""
    sums = table.groupby("option", sort=False)["weight"].sum()
    key = table.loc[table["is_key"], "option"].iloc[0]
    next_best = sums.drop(key).max()
    wrong = table[~table["is_key"]].groupby("option", sort=False)["weight"]
    rejected = (wrong.min() < 0).sum()
    unsupported = ((wrong.min() >= 0) & (wrong.max() <= 0)).sum()
    none = f"; {unsupported} more {verb(unsupported, 'has', 'have')} nothing that speaks for {verb(unsupported, 'it', 'them')}"
    against = (table.loc[table["is_key"], "weight"] < 0).sum()
    findings = verb(against, "finding argues", "findings argue") if against else "finding argues"
    lead = sums[key] - next_best
    leads = f"leads by {lead}" if lead > 0 else "does not lead"
    own, other = (number(value, 0) for value in (sums[key], next_best))
    out = f"{rejected} of {len(sums) - 1} wrong options {verb(rejected, 'is', 'are')} rejected by a stated finding"
    return finding(
        f"{plain(key)} {leads}: its weights add up to {own}, those of the next option to {other}",
        f"{out}{none if unsupported else ''}; {against or 'no'} {findings} against the answer.",
    )


def written(rows):
    """What was written to disk. rows: frame of `splits.write_splits`."""
    total, aside, tests = rows["questions"].sum(), rows["quarantined"].sum(), rows["split"] == "test"
    kept, trained = rows.loc[tests, "questions"].sum(), rows.loc[~tests, "questions"].sum()
    files = f"{counted(len(rows), 'file')} {verb(len(rows), 'holds', 'hold')} {counted(total, 'question')}"
    testing = f"{kept:,} {verb(kept, 'is', 'are')} for testing, in {counted(tests.sum(), 'set')}"
    return finding(
        f"{files}; {aside or 'none'} more {verb(aside, 'was', 'were')} set aside",
        f"{testing}; {trained:,} for training.",
    )


def apart(table):
    """Whether splits are apart. table: `tables.shared_table`."""
    if table.empty:
        return finding("There are no two splits to compare")
    same = table["same_stem"].sum()
    tests = table["one"].str.endswith(" test") | table["other"].str.endswith(" test")
    similar, rest = table.loc[tests, "similar"].sum(), table.loc[~tests, "similar"].sum()
    heading = (
        f"{same:,} {verb(same, 'question is', 'questions are')} in two splits"
        if same
        else "No question is in two splits"
    )
    pairs = f"{similar or 'no'} {verb(similar or 1, 'pair', 'pairs')} of a training and a test question"
    trained = (
        f" {rest:,} {verb(rest, 'pair', 'pairs')} of two training splits {verb(rest, 'does', 'do')}."
        if (~tests).any()
        else ""
    )
    alike = f"{pairs} {verb(similar or 1, 'shares', 'share')} half of the five-word sequences"
    if not tests.any():
        alike = "no test set is among these splits"
    compared = f"{counted(len(table), 'pair')} of splits {verb(len(table), 'was', 'were')} compared."
    return finding(f"{heading}; {alike}", f"{compared}{trained}")


def guessers(table):
    """What guessers get without reading. table: frame of `splits.free_baselines`, a row a set."""
    known = table[table["n"] > 0]
    if known.empty:
        return finding("No set has a known answer, so no guesser can be scored")
    best = known[["majority", "longest_option"]].astype(float).max(axis=1)
    chance = known["chance"].astype(float)
    told = [f"`{name}` {per_cent(best[name])}, chance {per_cent(chance[name])}" for name in known.index]
    return finding(
        f"Whoever guesses without reading {_gains(100 * (best - chance).max())}",
        f"The better of the majority letter and the longest option: {'; '.join(told)}.",
    )


def _gains(points):
    """What the best guesser has over chance."""
    return f"gains at most {number(points, 1)} points on chance" if points > 0 else "gains nothing on chance"


def official(read, expected, questions):
    """How many official files were read. read, expected: numbers of files; questions: how many they hold."""
    if not read:
        return finding(
            f"None of {expected} official files is here: what follows is of the clinic alone",
            f"`{DATA_VARIABLE}` names the folder that holds them.",
        )
    return finding(f"{read} of {expected} official files read: {counted(questions, 'question')}")


def checks(table):
    """What checks found. table: `tables.checks_table`."""
    if table.empty:
        return finding("No set was checked")
    n = table.drop_duplicates(["benchmark", "split"])["n"].sum()
    counts = table.groupby(["action", "check"], sort=False)["count"].sum()
    aside, hits = (
        counts[counts.index.get_level_values("action") == action].droplevel(0).sort_values(ascending=False)
        for action in ("set aside", "reported")
    )
    out, told = aside.sum(), (hits > 0).sum()
    reported = f"{told} of {counted(len(hits), 'reporting check')} {verb(told, 'finds', 'find')} something"
    gone = f"{counted(int(out), 'question')} {verb(out, 'is', 'are')} set aside"
    return finding(
        f"{gone}, {n - out:,.0f} {verb(n - out, 'stays', 'stay')}; {reported}",
        sentences(
            f"Set aside: {_named(aside)}." if out else "",
            f"Reported most: {_named(hits.head(3))}." if told else "",
        ),
    )


def _named(counts):
    """ "lost rt (319), exact duplicate (12)"."""
    return ", ".join(
        f"{name.replace('_', ' ')} ({count:,.0f})" for name, count in counts.items() if count > 0
    )


def contamination(pairs):
    """Which questions are alike in two benchmarks. pairs: (set, other set) -> how many pairs; empty where none was read."""
    if not pairs:
        return finding("Contamination across benchmarks cannot be looked for without the official files")
    count = sum(pairs.values())
    told = "; ".join(f"{one} and {other}: {found}" for (one, other), found in pairs.items())
    alike = f"{verb(count or 1, 'pair', 'pairs')} of questions from two benchmarks {verb(count or 1, 'is', 'are')} alike"
    return finding(f"{count or 'No'} {alike}", f"{told}.")


def letters(same_letter, joined, n):
    """Two releases of one test set of n questions: equal gold letters, and questions joined by option text. n = 0: not read."""
    if not n:
        return finding("The two releases of the MedQA test are not both here")
    return finding(
        f"The gold letters of two MedQA releases agree in {same_letter:,} of {n:,} questions; option texts join {joined:,}"
    )


def closing(decided, shared, checked, status):
    """Which questions can be trusted, an item a kind. decided, shared, checked: `tables.decided_table`, `shared_table` and
    `checks_table`. status: of the clinic's knowledge, in words.
    """
    lines = []
    if len(decided):
        n, same, sure = decided["n"].sum(), shared["same_stem"].sum(), decided["decided"].sum()
        lines.append(
            f"**The clinic**: in {sure:,} of {counted(n, 'question')} the stated findings decide for one answer, in "
            f"{decided['against'].sum() or 'none'} one argues against it; {same or 'none'} {verb(same or 1, 'is', 'are')} "
            f"in two splits. Trust them within the clinic only. {status}"
        )
    real = checked[~checked["benchmark"].isin(CLINIC_BENCHMARKS)]
    for (benchmark, split), own in real.groupby(["benchmark", "split"], sort=False):
        n, counts = own["n"].iloc[0], own.set_index("check")["count"]
        aside = counts[list(own["action"] == "set aside")].sum()
        most = counts[list(own["action"] == "reported")].sort_values(ascending=False).head(2)
        lines.append(
            f"**{called(benchmark)} {split}**: {n - aside:,.0f} of {counted(n, 'question')}"
            + (
                f", beside what is reported of them, above all {_named(most)}."
                if most.sum()
                else "; nothing is reported of them."
            )
        )
    if real.empty:
        lines.append("**Real benchmarks**: not looked at here, since no official file was found.")
    return bullets(lines)
