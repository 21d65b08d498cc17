"""What notebook 01 finds, a heading and a sentence or two for each section: tables in, markdown out.

Every number is the table's, with real benchmark files or without.
"""

from clinical_r1.files import DATA_VARIABLE
from clinical_r1.findings.wording import bullets, finding, per_cent, sentences
from clinical_r1.labels import BENCHMARK_LABELS, CLINIC_BENCHMARKS


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
    none = f"; {unsupported} more {_verb(unsupported, 'has', 'have')} nothing that speaks for {_verb(unsupported, 'it', 'them')}"
    against = (table.loc[table["is_key"], "weight"] < 0).sum()
    findings = _verb(against, "finding argues", "findings argue") if against else "finding argues"
    return finding(
        f"{key} leads by {sums[key] - next_best}: its weights add up to {sums[key]}, those of the next option to {next_best}",
        f"{rejected} of {len(sums) - 1} wrong options are rejected by a stated finding{none if unsupported else ''}; "
        f"{against or 'no'} {findings} against the answer.",
    )


def _verb(n, one, many):
    return one if n == 1 else many


def written(rows):
    """What was written to disk. rows: frame of `splits.write_splits`."""
    total, aside, tests = rows["questions"].sum(), rows["quarantined"].sum(), rows["split"] == "test"
    kept, trained = rows.loc[tests, "questions"].sum(), rows.loc[~tests, "questions"].sum()
    return finding(
        f"{len(rows)} files hold {total:,} questions; {aside or 'none'} more {_verb(aside, 'was', 'were')} set aside",
        f"{kept:,} are for testing, in {tests.sum()} {_verb(tests.sum(), 'set', 'sets')}; {trained:,} for training.",
    )


def apart(table):
    """Whether splits are apart. table: `tables.shared_table`."""
    same = table["same_stem"].sum()
    tests = table["one"].str.endswith(" test") | table["other"].str.endswith(" test")
    similar, rest = table.loc[tests, "similar"].sum(), table.loc[~tests, "similar"].sum()
    heading = (
        f"{same:,} {_verb(same, 'question is', 'questions are')} in two splits"
        if same
        else "No question is in two splits"
    )
    pairs = f"{similar or 'no'} {_verb(similar or 1, 'pair', 'pairs')} of a training and a test question"
    trained = f" {rest:,} {_verb(rest, 'pair', 'pairs')} of two training splits do." if (~tests).any() else ""
    return finding(
        f"{heading}; {pairs} {_verb(similar or 1, 'shares', 'share')} half of the five-word sequences",
        f"{len(table)} pairs of splits were compared.{trained}",
    )


def guessers(table):
    """What guessers get without reading. table: frame of `splits.free_baselines`, a row a set."""
    known = table[table["n"] > 0]
    if known.empty:
        return finding("No set has a known answer, so no guesser can be scored")
    best = known[["majority", "longest_option"]].astype(float).max(axis=1)
    chance = known["chance"].astype(float)
    told = [f"`{name}` {per_cent(best[name])}, chance {per_cent(chance[name])}" for name in known.index]
    return finding(
        f"Whoever guesses without reading gains at most {100 * (best - chance).max():.1f} points on chance",
        f"The better of the majority letter and the longest option: {'; '.join(told)}.",
    )


def official(read, expected, questions):
    """How many official files were read. read, expected: numbers of files; questions: how many they hold."""
    if not read:
        return finding(
            f"None of {expected} official files is here: what follows is of the clinic alone",
            f"`{DATA_VARIABLE}` names the folder that holds them.",
        )
    return finding(f"{read} of {expected} official files read: {questions:,} questions")


def checks(table):
    """What checks found. table: `tables.checks_table`."""
    n = table.drop_duplicates(["benchmark", "split"])["n"].sum()
    counts = table.groupby(["action", "check"], sort=False)["count"].sum()
    aside, hits = (
        counts.loc[[action]].droplevel(0).sort_values(ascending=False) for action in ("set aside", "reported")
    )
    out, told = aside.sum(), (hits > 0).sum()
    reported = f"{told} of {len(hits)} reporting checks find something"
    return finding(
        f"{out:,.0f} questions are set aside, {n - out:,.0f} stay; {reported}",
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
    """Which questions come back in another benchmark. pairs: (set, other set) -> how many; empty where neither was read."""
    if not pairs:
        return finding("Contamination across benchmarks cannot be looked for without the official files")
    count = sum(pairs.values())
    told = "; ".join(f"{found} of {one} in {other}" for (one, other), found in pairs.items())
    return finding(
        f"{count or 'No'} {_verb(count or 1, 'question comes', 'questions come')} back in another benchmark",
        f"{told}.",
    )


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
            f"**The clinic**: in {sure:,} of {n:,} questions the stated findings decide for one answer, in "
            f"{decided['against'].sum() or 'none'} one argues against it; {same or 'none'} {_verb(same or 1, 'is', 'are')} "
            f"in two splits. Trust them within the clinic only. {status}"
        )
    real = checked[~checked["benchmark"].isin(CLINIC_BENCHMARKS)]
    for (benchmark, split), own in real.groupby(["benchmark", "split"], sort=False):
        n, counts = own["n"].iloc[0], own.set_index("check")["count"]
        aside = counts[list(own["action"] == "set aside")].sum()
        most = counts[list(own["action"] == "reported")].sort_values(ascending=False).head(2)
        lines.append(
            f"**{BENCHMARK_LABELS.get(benchmark, benchmark)} {split}**: {n - aside:,.0f} of {n:,} questions, beside what is "
            f"reported of them, above all {_named(most) or 'nothing'}."
        )
    if real.empty:
        lines.append("**Real benchmarks**: not looked at here, since no official file was found.")
    return bullets(lines)
