"""No judge of a test leaves this machine, reads a key of its user, or really waits before it asks again."""

import pytest

from clinical_r1.engines import transport
from clinical_r1.judges import models


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in (
        "OPENAI_API_KEY",
        *(name for key, name in vars(models).items() if key.endswith("_VARIABLE")),
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """Seconds that were waited before a request was repeated; nothing is really waited for."""
    waited = []
    monkeypatch.setattr(transport, "pause", waited.append)
    return waited
