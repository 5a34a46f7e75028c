"""What the tests of decoding share."""

from __future__ import annotations

import pytest

from cacl.loaders.decode import storage


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "FIRST_BACKOFF_SECONDS", 0.001)
