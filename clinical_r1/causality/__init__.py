"""Does the written reasoning move the answer? Probes of a policy that force reasoning on it, and a copy that learns to answer
without any.
"""

from clinical_r1.causality.probes import (
    agreement,
    denied_test,
    empty_test,
    named_test,
    own_answers,
    swap_test,
)

__all__ = ["agreement", "denied_test", "empty_test", "named_test", "own_answers", "swap_test"]
