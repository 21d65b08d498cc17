"""The client that judges and the engine share: which model has answered."""

import pytest

from clinical_r1.engines.chat import is_model

SAME = [
    ("gpt-4o", "gpt-4o"),
    ("gpt-4o", "gpt-4o-2024-08-06"),
    ("gpt-4", "gpt-4-0613"),
    ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022"),
    ("gemini-1.5-pro", "gemini-1.5-pro-002"),
    ("mistral-large", "Mistral-Large-2411"),
    ("openai/gpt-4o", "gpt-4o-2024-08-06"),
    ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b-instruct"),
    ("org/tiny", "org/tiny@main"),
    ("tiny", "/models/tiny.gguf"),
]
OTHERS = [
    ("gpt-4o", "gpt-4o-mini"),
    ("gpt-4o", "gpt-4o-mini-2024-07-18"),
    ("gpt-4", "gpt-4-32k"),
    ("gpt-4o-2024-05-13", "gpt-4o-2024-08-06"),
    ("gpt-4o-2024-05-13", "gpt-4o"),
    ("gpt-4-0314", "gpt-4-0613"),
    ("Qwen2.5-7B-Instruct", "Qwen2.5-7B"),
    ("tiny", ""),
]


@pytest.mark.parametrize(
    ("asked", "served", "same"), [(*p, True) for p in SAME] + [(*p, False) for p in OTHERS]
)
def test_a_dated_snapshot_is_the_model_that_was_asked_and_a_sibling_is_not(asked, served, same):
    assert is_model(asked, served) is same
