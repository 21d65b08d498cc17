"""Preference pairs as records, and on disk: JSON Lines with a stamp beside them, written whole, every field checked when read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import fmean

from clinical_r1.files import numbered_rows, read_stamp, write_stamped
from clinical_r1.preferences.verdicts import Verdicts

DROPS = {  # why a question gives no pair -> what may be done about it
    "duplicate question": "it stands twice; ask each question once",
    "unknown condition": "an option is no condition of the graph; add it to the graph, or ask other questions",
    "held out": "an option or all but one answer names what is held out; this is meant, ask more questions",
    "cut": "fewer than two answers have ended by themselves; allow more tokens, or sample more answers",
    "same text": "all answers are the same; sample at a higher temperature",
    "no claim": "fewer than two answers make a claim that can be judged; see what the policy writes",
    "tie": "all answers score alike, or have one length; sample more answers, or at a higher temperature",
    "margin": "the best is not that much better; lower the margin, or sample more answers",
    "all false": "no better answer has a true claim; sample more answers",
    "claims": "the better answers make more or fewer claims; raise claims_within, or sample more answers",
    "fewer true": "the better answers make fewer true claims; sample more answers",
    "length": "the better answers are longer or shorter; raise token_ratio, or sample more answers",
}
SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class Pair:
    """One pair. prompt: chat messages, without what a graph said. flipped: whether the sides were exchanged on purpose."""

    id: str
    prompt: tuple[dict, ...]
    chosen: str
    rejected: str
    chosen_verdicts: Verdicts
    rejected_verdicts: Verdicts
    chosen_tokens: int
    rejected_tokens: int
    flipped: bool = False

    def __post_init__(self):
        texts = {"id": self.id, "chosen": self.chosen, "rejected": self.rejected}
        for name, text in texts.items():
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"{name} is {text!r}; expected a text that is not empty.")
        if self.chosen == self.rejected:
            raise ValueError("chosen and rejected are the same text; expected two, or nothing is learned.")
        turns = self.prompt if isinstance(self.prompt, tuple) else ()
        if not turns or not all(_is_turn(turn) for turn in turns) or turns[-1]["role"] != "user":
            raise ValueError(
                f"prompt is {self.prompt!r}; expected chat messages of role and content, the user's last."
            )
        for side in SIDES:
            tokens, verdicts = getattr(self, f"{side}_tokens"), getattr(self, f"{side}_verdicts")
            if type(tokens) is not int or tokens < 1:
                raise ValueError(f"{side}_tokens is {tokens!r}; expected a whole number of at least 1.")
            if not isinstance(verdicts, Verdicts):
                raise ValueError(f"{side}_verdicts is {verdicts!r}; expected Verdicts.")
        if not isinstance(self.flipped, bool):
            raise ValueError(f"flipped is {self.flipped!r}; expected true or false.")

    def exchanged(self) -> "Pair":
        """The other side chosen, and marked so."""
        return replace(
            self, chosen=self.rejected, rejected=self.chosen, chosen_verdicts=self.rejected_verdicts,
            rejected_verdicts=self.chosen_verdicts, chosen_tokens=self.rejected_tokens,
            rejected_tokens=self.chosen_tokens, flipped=not self.flipped,
        )  # fmt: skip

    def to_json(self) -> dict:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["prompt"] = list(self.prompt)
        return values | {f"{side}_verdicts": values[f"{side}_verdicts"].to_json() for side in SIDES}

    @classmethod
    def from_json(cls, row: Mapping) -> "Pair":
        """ValueError for a field that is missing, unknown, or not what it should be."""
        names = [field.name for field in fields(cls)]
        if set(row) != set(names):
            raise ValueError(f"a pair has the fields {sorted(row)}; expected {sorted(names)}.")
        prompt = tuple(row["prompt"]) if isinstance(row["prompt"], list) else row["prompt"]
        verdicts = {f"{side}_verdicts": Verdicts.from_json(row[f"{side}_verdicts"]) for side in SIDES}
        return cls(**{**row, "prompt": prompt, **verdicts})


def _is_turn(turn) -> bool:
    return (
        isinstance(turn, dict)
        and set(turn) == {"role", "content"}
        and all(isinstance(text, str) and text.strip() for text in turn.values())
    )


@dataclass(frozen=True)
class Pairs:
    """Pairs, how many questions gave none and why (keys of DROPS), and how they were made (JSON, for a stamp)."""

    rows: tuple[Pair, ...]
    dropped: dict[str, int]
    made_with: dict

    @property
    def questions(self) -> int:
        """How many were looked at: the pairs and the dropped."""
        return len(self.rows) + sum(self.dropped.values())

    def drop_table(self) -> str:
        """ "cut 3, tie 2": why questions gave no pair, the most frequent first."""
        counts = sorted(self.dropped.items(), key=lambda item: (-item[1], list(DROPS).index(item[0])))
        return ", ".join(f"{name} {count}" for name, count in counts) or "nothing"

    def sides(self) -> dict[str, dict[str, float]]:
        """{"chosen" and "rejected": {"tokens", "claims", "true", "false": mean}}: what the pairs differ in. {} without pairs."""
        return {side: dict(_means(self.rows, side)) for side in SIDES} if self.rows else {}


def _means(rows, side: str) -> Iterator[tuple[str, float]]:
    yield "tokens", fmean(getattr(row, f"{side}_tokens") for row in rows)
    for name in ("claims", "true", "false"):
        yield name, fmean(getattr(getattr(row, f"{side}_verdicts"), name) for row in rows)


def check_enough(pairs: Pairs, batch: int = 1) -> None:
    """ValueError, with the table of drops and what to do, where there is no usable pair or less than one batch of them."""
    if len(pairs.rows) >= max(batch, 1):
        return
    advice = "Ask more questions, or take a smaller batch."
    if pairs.dropped:
        most = max(pairs.dropped, key=pairs.dropped.get)
        advice = f"Most often ({most}): {DROPS[most]}."
    raise ValueError(
        f"{pairs.questions} questions give {len(pairs.rows) or 'no'} usable pair{'s' * (len(pairs.rows) > 1)}, expected at least "
        f"one batch of {max(batch, 1)}; dropped: {pairs.drop_table()}. {advice}"
    )


def write_pairs(path: str | Path, pairs: Pairs, made_from: Mapping) -> Path:
    """The pairs, whole or not at all, and their stamp: `made_from` (such as the policy that was sampled), how they were made,
    what was dropped. ValueError where there is no pair.
    """
    check_enough(pairs)
    own = {"made_with": pairs.made_with, "dropped": pairs.dropped, "pairs": len(pairs.rows)}
    if taken := sorted(set(own) & set(made_from)):
        raise ValueError(f"made_from holds {taken}, which the stamp of pairs says itself; leave them out.")
    return write_stamped(path, [pair.to_json() for pair in pairs.rows], {**made_from, **own})


def read_pairs(path: str | Path) -> Pairs:
    """What `write_pairs` wrote. ValueError, naming file and line, for a file that was changed, has no stamp, or holds a row that
    is no pair or is there twice.
    """
    stamp = read_stamp(path, "build the pairs")
    rows, lines = [], {}
    for line, row in numbered_rows(path):
        try:
            pair = Pair.from_json(row)
            if pair.id in lines:
                raise ValueError(f"question {pair.id!r} stands on line {lines[pair.id]} already.")
        except ValueError as error:
            raise ValueError(
                f"{path}, line {line} is no pair: {str(error).rstrip('.')}. Delete the file and build the pairs again."
            ) from error
        lines[pair.id] = line
        rows.append(pair)
    dropped, made_with = stamp.get("dropped"), stamp.get("made_with")
    if not isinstance(dropped, dict) or not isinstance(made_with, dict) or len(rows) != stamp.get("pairs"):
        raise ValueError(
            f"the stamp of {path} does not say how its {len(rows)} pairs were made; delete both files and build the pairs again."
        )
    return Pairs(tuple(rows), dropped, made_with)
