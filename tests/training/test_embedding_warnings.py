"""Embeddings that are made to be bad are warned of, once for each encoder and cause, and good ones never."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cacl.config import ContrastConfig
from cacl.training.embedding_measures import measure_embeddings
from cacl.training.embedding_warnings import EmbeddingWarnings


def near(center: Tensor, spread: float, seed: int) -> Tensor:
    """Returns 32 unit vectors about a center, float64 [32, D]."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(32, len(center), generator=generator, dtype=torch.float64) / len(center) ** 0.5
    return F.normalize(center + spread * noise, dim=1)


AXES = torch.eye(128, dtype=torch.float64)
NOWHERE = torch.zeros(128, dtype=torch.float64)
ISOTROPIC = near(NOWHERE, 1.0, 0)


def measures_of(cnn: tuple[Tensor, Tensor], transformer: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Measures queries and keys of the two encoders."""
    parts = {"cnn": cnn, "transformer": transformer}
    return measure_embeddings({n: x for n, (x, _) in parts.items()}, {n: y for n, (_, y) in parts.items()}, None)


GOOD = (ISOTROPIC, F.normalize(ISOTROPIC + 0.5 * near(NOWHERE, 1.0, 1), dim=1))
UNTRAINED = (near(AXES[0], 0.25, 0), near(AXES[0], 0.25, 1))
"""What a new transformer gives: videos are alike, and so are queries and keys."""
COLLAPSED = (near(AXES[0], 0.01, 0), near(AXES[0], 0.01, 1))
AHEAD = (near(AXES[0], 0.5, 0), near(AXES[1], 0.5, 1))
"""The keys are where the queries are no more."""


def warned(caplog: pytest.LogCaptureFixture, *logged: dict[str, float], **contrast: Any) -> list[str]:
    """Returns the warnings for the measures of steps 20, 40, and so on."""
    caplog.clear()
    warnings = EmbeddingWarnings(ContrastConfig(**contrast))
    with caplog.at_level(logging.INFO, logger="cacl"):
        for number, measures in enumerate(logged, start=1):
            warnings.check(20 * number, measures, 32)
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    return [record.getMessage() for record in caplog.records]


def test_good_embeddings_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert warned(caplog, measures_of(GOOD, GOOD), measures_of(GOOD, UNTRAINED)) == []


@pytest.mark.parametrize("encoder", ["CNN", "transformer"])
def test_a_collapse_is_warned_of_once(caplog: pytest.LogCaptureFixture, encoder: str) -> None:
    bad = measures_of(COLLAPSED, GOOD) if encoder == "CNN" else measures_of(GOOD, COLLAPSED)
    (line,) = warned(caplog, measures_of(GOOD, GOOD), bad, bad, measures_of(GOOD, GOOD), bad)
    assert line.startswith(f"warning: step 40: the {encoder} has collapsed: ")
    assert re.search(rf"\(effective_rank/{encoder.lower()}_query = 1\.\d\d, of 32 at most\)", line)
    assert 'contrast.negatives = "batch"' in line
    assert "\n" not in line


def test_an_encoder_ahead_of_its_keys_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    bad = measures_of(AHEAD, GOOD)
    (line,) = warned(caplog, bad, bad)
    assert line.startswith("warning: step 20: the CNN has moved ahead of its keys: ")
    assert 'contrast.negatives = "batch"' in line
    assert len(warned(caplog, bad, negatives="both")) == 1
    assert warned(caplog, bad, negatives="batch") == []  # where no key is older than another


def test_each_encoder_and_each_cause_has_a_line_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    both = (COLLAPSED[0], near(AXES[1], 0.01, 1))
    lines = warned(caplog, measures_of(both, COLLAPSED), measures_of(both, both))
    steps = [(line.split(":")[1].strip(), line.split(":")[2].strip()) for line in lines]
    assert steps == [
        ("step 20", "the CNN has collapsed"),
        ("step 20", "the CNN has moved ahead of its keys"),
        ("step 20", "the transformer has collapsed"),
        ("step 40", "the transformer has moved ahead of its keys"),
    ]


def test_what_is_done_already_is_not_advised(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = warned(caplog, measures_of(GOOD, COLLAPSED), negatives="batch")
    assert "contrast.negatives" not in line
    assert "optim.lr" in line
