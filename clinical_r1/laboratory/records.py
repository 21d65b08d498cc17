"""The laboratory's files: the four that `./reproduce.sh ablations` makes, found, read and checked."""

import zlib
from pathlib import Path
from typing import NamedTuple

from clinical_r1.arms import ARMS, REFERENCE
from clinical_r1.files import PACKAGE, read_json, write_text
from clinical_r1.rewards import REWARD_SETS

FILES = {
    "scores": "ablations_scores.csv.gz",
    "arms": "ablations_arms.csv",
    "training": "ablations_training.csv.gz",
    "trajectories": "ablations_trajectories.csv.gz",
}
RECORD = "ablations_record.json"  # beside them: the code and settings that a summary was made with; summaries before it lack it
SHIPPED = PACKAGE / "data" / "laboratory"  # the summary that came with the package
COLUMNS = {
    "scores": ("arm", "seed", "id", "correct", "parsed", "tokens"),
    "arms": ("arm", "family", "label", "setting", "seconds"),
    "training": ("arm", "seed", "step", "reward"),
    "trajectories": ("arm", "seed", "step", "id", "correct"),
}
FIX = "run ./reproduce.sh ablations (add --summary-only when its arms are trained)"
BENCHMARK = "clinic"  # the set that every arm answers
OBJECTIVES = ("accuracy", "faithfulness", "drc", "hallucination")

# Arms of other families that a family's table needs beside the reference
ALSO = {"prompt_x_reward": ("grpo",), "cold_start": ("cold_start_grpo", "cold_start_crpo")}
COUNTERPART = {"cold_start_grpo": "grpo"}  # compared with another arm than the family's reference

# What the reference has where a family varies it
REFERENCE_SETTING = {
    "k": "k = 10",
    "terms": "all terms",
    "citation": "r_CR with + 0.5",
    "consistency": "r_cons as it is",
    "prompt_x_reward": "CRPO prompt, CRPO reward",
    "group_size": "G = 8",
    "aggregator": "sum, then normalised",
    "kl": "beta = 0.001",
    "cold_start": "no cold start",
}
ACCURACY, REASONING, CONSISTENCY = "accuracy_reward", "clinical_reasoning_reward", "consistency_reward"
TERMS = (ACCURACY, REASONING, CONSISTENCY)


class Laboratory(NamedTuple):
    """The four frames of the laboratory, one row per answer, arm, training step and checkpoint answer; and its record.

    record: {"git": {"sha", "dirty"}, "questions", "trained": {setting: values over all arms}}; None where a summary has none.
    """

    scores: object
    arms: object
    training: object
    trajectories: object
    record: dict | None = None


def find_laboratory(out=".") -> Path:
    """The folder with the laboratory's four files: this checkout's own run if it is whole, otherwise the shipped summary."""
    own = Path(out) / "runs" / "ablations" / "summary"
    return own if all((own / name).is_file() for name in FILES.values()) else SHIPPED


def read_laboratory(folder) -> Laboratory:
    """The four files of a folder. FileNotFoundError or ValueError names the file and how to fix it."""
    frames = {kind: _read(Path(folder) / name, COLUMNS[kind]) for kind, name in FILES.items()}
    scores, path = frames["scores"], Path(folder) / FILES["scores"]
    if scores.duplicated(["arm", "seed", "id"]).any():
        first = scores[scores.duplicated(["arm", "seed", "id"])].iloc[0]
        raise ValueError(f"{path}: {first.arm} seed {first.seed} answers {first.id} twice; {FIX}.")
    if not scores[["correct", "parsed"]].isin([0, 1]).all(axis=None):
        raise ValueError(f"{path}: correct and parsed must be 0 or 1; {FIX}.")
    if unknown := set(scores["arm"]) - set(frames["arms"]["arm"]):
        raise ValueError(
            f"{path} has the arms {sorted(unknown)}, which {FILES['arms']} does not describe; {FIX}."
        )
    scores["accuracy"] = 100.0 * scores["correct"]
    frames["trajectories"]["accuracy"] = 100.0 * frames["trajectories"]["correct"]
    record = Path(folder) / RECORD
    return Laboratory(**frames, record=read_json(record) if record.exists() else None)


def _read(path, columns):
    import pandas as pd

    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; expected a file of the ablations: {FIX}.")
    try:
        frame = pd.read_csv(path)
    except (OSError, EOFError, ValueError, zlib.error) as error:  # gzip, encoding and parsing faults
        raise ValueError(f"{path} cannot be read ({error}); delete it and {FIX}.") from error
    missing = [column for column in columns if column not in frame]
    if missing or frame.empty:
        what = f"lacks the columns {missing}" if missing else "has no rows"
        raise ValueError(f"{path} {what}; expected at least {list(columns)}: {FIX}.")
    return frame


def standing(lab):
    """What stands behind the numbers: frame family, arms (how many have answers), names, seeds and most_seeds (fewest and most
    training seeds of an arm), questions, answers; code ("commit <sha>", "" if unknown), rl_steps and shared_prefix of the record.
    """
    import pandas as pd

    about = lab.arms.set_index("arm")["family"]
    seeds = lab.scores.groupby("arm")["seed"].nunique()
    git, trained = ((lab.record or {}).get(name, {}) for name in ("git", "trained"))
    made = {
        "code": f"commit {git['sha']}" if git.get("sha") else ""
    }  # words: digits alone would be read back as a number
    made |= {name: ", ".join(map(str, trained.get(name, []))) for name in ("rl_steps", "shared_prefix")}
    rows = []
    for family in dict.fromkeys(lab.arms["family"]):
        own = [arm for arm in answered(lab) if about[arm] == family]
        scores = lab.scores[lab.scores["arm"].isin(own)]
        if own:
            row = {"family": family, "arms": len(own), "names": " ".join(own)}
            row |= {"seeds": int(seeds[own].min()), "most_seeds": int(seeds[own].max())}
            rows.append(row | {"questions": scores["id"].nunique(), "answers": len(scores)} | made)
    return pd.DataFrame(rows)


def save_table(frame, name, folder):
    """Write a frame as <name>.csv beside the figures; the path."""
    return write_text(Path(folder) / f"{name}.csv", frame.to_csv(index=False))


def families(lab):
    """Names of the families that have an arm to compare, in the file's order; the paper's five first."""
    found = [*dict.fromkeys(lab.arms["family"]), *ALSO]
    return [name for name in dict.fromkeys(found) if len(members(lab, name)) > 1]


def members(lab, family, against=REFERENCE):
    """Arms of a family with answers, the reference first, then in the file's order; k in order of k."""
    own = list(lab.arms.loc[lab.arms["family"] == family, "arm"])
    own = [against, *own, *ALSO.get(family, ())]
    if family == "cold_start":
        own.insert(1, "grpo")
    answered = set(lab.scores["arm"])
    own = [arm for arm in dict.fromkeys(own) if arm in answered]
    return sorted(own, key=weight_of_accuracy) if family == "k" else own


def weight_of_accuracy(arm):
    """k of an arm (paper eq. 4)."""
    return float(reward_weights(arm)[0])


def reward_weights(arm):
    """An arm's own reward weights, or its reward set's."""
    return ARMS[arm].weights or REWARD_SETS[ARMS[arm].rewards].weights


def answered(lab):
    """Arms with answers, in the order of the arms' file."""
    there = set(lab.scores["arm"])
    return tuple(arm for arm in lab.arms["arm"] if arm in there)
