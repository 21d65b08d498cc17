"""What reinforcement learning begins with: how many answers of a cold-started policy are well formed and right, counted first.

A group whose answers all earn the same teaches nothing. A cold start that is too short leaves such groups only, and hours of
training then move no weight in a useful direction; so its answers are counted before anything is built on it.
"""

from clinical_r1.arms import STYLES
from clinical_r1.completions import parse_completion
from clinical_r1.engines.local import Transformers
from clinical_r1.prompts import build_messages
from clinical_r1.questions import read_questions

ASKED = 32  # questions of the RL half, in each style; never test questions


def measure_start(model, tokenizer, settings) -> dict[str, dict]:
    """{style: {"answers", "read", "well_formed", "right"}}, counts, of answers sampled as the first step's rollouts will be.

    The first ASKED questions of the RL half are asked. "read": the parser finds one letter; "right": it is the answer's.
    """
    from dataclasses import replace

    as_rollouts = replace(settings, eval_temperature=settings.rl_temperature, eval_top_p=1.0)
    questions = read_questions(settings.questions_path(settings.train_benchmark, "rl"))[:ASKED]
    engine, found = Transformers(model.eval(), tokenizer), {}
    for style in STYLES:
        prompts = [engine.prompt(build_messages(q, style, settings.prompt_layout)) for q in questions]
        answers = []
        for first in range(0, len(prompts), settings.eval_batch):
            part = prompts[first : first + settings.eval_batch]
            answers += engine.answer(part, as_rollouts, "sampled", range(first, first + len(part)))
        read = [
            parse_completion(answer["text"], style, question.options)
            for answer, question in zip(answers, questions, strict=True)
        ]
        right = sum(one.letter == question.answer for one, question in zip(read, questions, strict=True))
        counts = {"answers": len(read), "read": sum(one.letter is not None for one in read)}
        found[style] = counts | {"well_formed": sum(one.well_formed for one in read), "right": right}
    return found


def on_the_device(merged, trained):
    """The merged model to be asked, or, where it went through a file and lies on the CPU, the trained one: Unsloth's patches
    of Transformers' layers do not fit a model that it has not loaded, and a card's model answers on a CPU for hours.
    """
    return merged if merged.device.type == trained.device.type else trained


def said_of(start: dict[str, dict]) -> list[str]:
    """A sentence for each style, with a warning where nothing is left to learn from. start: as `measure_start` returns it."""
    sentences = []
    for style, found in start.items():
        lacking = [name for name in ("well_formed", "right") if not found[name]]
        warning = "; groups of equal answers teach nothing: raise n_sft or sft_epochs" if lacking else ""
        sentences.append(
            f"before RL, of {found['answers']} sampled answers to training questions in style {style}, {found['read']} can be "
            f"read, {found['well_formed']} are well formed and {found['right']} right{warning}"
        )
    return sentences
