"""How many completions a second do the reward sets score on one core, and does the time grow linearly?

    python benchmarks/rewards.py [--count 1000] [--json] [--save]

A completion here holds 1,200 words, hence at least 1,200 tokens of any tokenizer; every fourth one carries
clinical symbols beyond ASCII, every eighth a word in another script. No text occurs twice and no cache is
warm. Beside the two sets stands our transcription of the official rule; the doubling ratio is the time for
twice as long a text over the time for the text itself (2 is linear), at 1 MB of each hostile input.
"""

import argparse
import json
import time

import numpy as np

from clinical_r1 import citation, rewards
from clinical_r1.audit import redteam
from clinical_r1.completions import parse_completion

WORDS = 1200
OPTIONS = {
    "A": "Gout",
    "B": "Septic arthritis",
    "C": "Reactive arthritis",
    "D": "Lyme arthritis",
    "E": "Osteoarthritis",
}
SENTENCES = (
    "The patient presents with fever, chills and a swollen right knee that has worsened over two days.",
    "There are no crystals in the joint fluid, which argues against Gout.",
    "A synovial leukocyte count of 85,000 per microliter (mostly neutrophils) supports Septic arthritis.",
    "Neither urethritis nor conjunctivitis is described, so Reactive arthritis is less likely.",
    "On second thought, recent travel would be needed to make Lyme arthritis the leading hypothesis.",
)
VIGNETTE = "A woman has fever, chills and a swollen right knee. Joint fluid holds 85,000 leukocytes and shows no crystals."
SYMBOLS = "Temperature 39.4 °C, CRP ≥ 120 mg/L, β-lactam allergy → vancomycin."
FOREIGN = "因此 также"
CONCLUSION = "Fever and no crystals in the joint fluid favor Septic arthritis. \\boxed{B}"
HOSTILE = {  # each repeated to 1 MB
    "one character": "a",
    "spaces": " ",
    "opening tags": "<dx>",
    "closing tags": "</conclusion>",
    "markers": "(System 1: Intuitive)",
    "boxes": "\\boxed{",
    "unclosed text": "\\text{",
    "foreign": "因",
}


def completion(index: int, rng: np.random.Generator, style: str = "crpo") -> str:
    """A well-formed completion of about 1,200 words, different for every index."""
    sentences = [f"Note {index}."]
    if index % 4 == 0:
        sentences.append(SYMBOLS)
    if index % 8 == 0:
        sentences.append(FOREIGN)
    count = sum(len(sentence.split()) for sentence in sentences)
    while count < WORDS:
        sentences.append(
            f"{SENTENCES[rng.integers(len(SENTENCES))][:-1]} ({len(sentences)})."
        )  # none is said twice
        count += len(sentences[-1].split())
    half = len(sentences) // 8
    first, second = " ".join(sentences[1:half]), " ".join([*sentences[half:], sentences[0]])
    if style == "grpo":
        return f"<think> {first} {second} </think>\n<answer> {CONCLUSION} </answer>"
    dx = f"(System 1: Intuitive) {first} (System 2: Analytical) {second}"
    return f"<dx> {dx} </dx>\n<conclusion> {CONCLUSION} </conclusion>"


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def score_set(name: str, completions: list[str]) -> float:
    """Seconds for all rewards of one set over a batch, nothing cached."""
    rewards.parse.cache_clear()
    citation._question.cache_clear()
    count = len(completions)
    columns = {"answer": ["B"] * count, "options": [OPTIONS] * count, "prompts": [VIGNETTE] * count}
    fresh = [text[:1] + text[1:] for text in completions]  # new strings: their hashes are not known yet
    return seconds(lambda: [reward(fresh, **columns) for reward in rewards.REWARD_SETS[name].functions])


def hostile_score(text: str) -> None:
    parsed = parse_completion(
        f"<dx>(System 1: Intuitive) a (System 2: Analytical) {text}</dx><conclusion>{text}</conclusion>"
    )
    citation.cross_references(parsed, OPTIONS, VIGNETTE)
    rewards.effective_share(text)
    parse_completion(text)


def measure(count: int, repeats: int = 5) -> dict:
    rng = np.random.default_rng(0)
    batches = {style: [completion(i, rng, style) for i in range(count)] for style in rewards.REWARD_SETS}
    rates = {
        f"{name} set": count / min(score_set(name, batches[name]) for _ in range(repeats)) for name in batches
    }
    official = min(
        seconds(lambda: [redteam.official_rule_score(t, "B") for t in batches["grpo"]])
        for _ in range(repeats)
    )
    rates["official rule"] = count / official
    doubling = {"ordinary completion": 0.0}
    doubling |= dict.fromkeys(HOSTILE, 0.0)
    for name in doubling:
        unit = HOSTILE.get(name, " ".join(SENTENCES) + " ")
        half, whole = (unit * (size // len(unit)) for size in (500_000, 1_000_000))
        times = [
            min(seconds(lambda text=text: hostile_score(text)) for _ in range(repeats))
            for text in (half, whole)
        ]
        doubling[name] = times[1] / times[0]
    return {
        "completions": count,
        "words per completion": WORDS,
        "characters per completion": round(sum(map(len, batches["crpo"])) / count),
        "completions per second": {name: round(rate) for name, rate in rates.items()},
        "crpo set over official rule": round(rates["crpo set"] / rates["official rule"], 2),
        "doubling ratio": {name: round(ratio, 2) for name, ratio in doubling.items()},
    }


def as_markdown(result: dict) -> str:
    lines = ["| | completions per second | over the official rule |", "|---|---|---|"]
    rates = result["completions per second"]
    lines += [f"| {name} | {rate:,} | {rate / rates['official rule']:.2f} |" for name, rate in rates.items()]
    lines += ["", "| text of 1 MB against 0.5 MB | time ratio |", "|---|---|"]
    lines += [f"| {name} | {ratio:.2f} |" for name, ratio in result["doubling ratio"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="completions in the batch")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--save", action="store_true", help="keep the result for benchmarks/table.py")
    arguments = parser.parse_args()
    result = measure(arguments.count)
    if arguments.save:
        from measuring import Results

        notes = {"completions per second": "best of 5 runs, nothing cached, one core"}
        Results("rewards", notes).add({"count": arguments.count}, 5, result)
    print(json.dumps(result, indent=2, ensure_ascii=False) if arguments.json else as_markdown(result))
