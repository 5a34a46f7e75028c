"""Attentive probes against torch's own attention, one at a time, and on a task that needs attention."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cacl.evaluation import attentive_probe
from cacl.evaluation.attentive_probe import BATCH_SIZE, INIT_DEVIATION, NUM_QUERIES, SEED, attentive_scores
from cacl.evaluation.recognition import CLASSIFIERS, Division, _result

CPU = torch.device("cpu")


def problem(videos: int, tokens: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens that lie anywhere and differ in scale, and tell a little of three classes."""
    rng = np.random.default_rng(0)
    classes = np.arange(videos) % 3
    values = rng.standard_normal((videos, tokens, channels)) + rng.standard_normal((3, 1, channels))[classes]
    return (values * rng.uniform(0.1, 10, channels) + rng.uniform(-10, 10, channels)).astype(np.float32), classes


def trained_alone(
    tokens: np.ndarray, train: int, classes: np.ndarray, epochs: int, lr: float, decay: float
) -> np.ndarray:
    """The logits of the videos behind the first `train` ones, by a probe that is made of torch's attention.

    Its heads are as wide as a token, and what would project keys, values and the outcome is the identity.
    """
    count, width = int(classes.max()) + 1, tokens.shape[2]
    of_train = tokens[:train].astype(np.float64)
    x = torch.from_numpy(((tokens - of_train.mean((0, 1))) / of_train.std((0, 1))).astype(np.float32))
    generator = torch.Generator().manual_seed(SEED)
    attention = nn.MultiheadAttention(
        NUM_QUERIES * width, NUM_QUERIES, bias=False, kdim=width, vdim=width, batch_first=True
    ).requires_grad_(False)
    linear = nn.Linear(NUM_QUERIES * width, count)
    query = nn.Parameter(torch.empty(1, 1, NUM_QUERIES * width).normal_(std=INIT_DEVIATION, generator=generator))
    with torch.no_grad():
        attention.q_proj_weight.copy_(torch.eye(NUM_QUERIES * width))
        attention.k_proj_weight.copy_(torch.eye(width).repeat(NUM_QUERIES, 1))
        attention.v_proj_weight.copy_(torch.eye(width).repeat(NUM_QUERIES, 1))
        attention.out_proj.weight.copy_(torch.eye(NUM_QUERIES * width))
        linear.weight.normal_(std=INIT_DEVIATION, generator=generator)
        linear.bias.zero_()

    def logits(batch: torch.Tensor) -> torch.Tensor:
        return linear(attention(query.expand(len(batch), -1, -1), batch, batch, need_weights=False)[0][:, 0])

    optimizer = torch.optim.AdamW(
        [
            {"params": [query, linear.weight], "weight_decay": decay},
            {"params": [linear.bias], "weight_decay": 0.0},
        ]
    )
    step, steps = 0, epochs * math.ceil(train / attentive_probe.BATCH_SIZE)
    for _ in range(epochs):
        for chosen in torch.randperm(train, generator=generator).split(attentive_probe.BATCH_SIZE):
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
            loss = nn.functional.cross_entropy(logits(x[chosen]), torch.from_numpy(classes)[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    with torch.no_grad():
        return logits(x[train:]).double().numpy()


def test_probes_that_are_trained_together_are_those_that_are_trained_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attentive_probe, "EPOCHS", 6)
    monkeypatch.setattr(attentive_probe, "BATCH_SIZE", 8)  # the last batch of an epoch has four of the 20 videos
    tokens, classes = problem(30, 5, 6)
    settings = attentive_probe.attentive_settings(20)
    together = list(attentive_scores(tokens, range(20), classes[:20], range(20, 30), settings, CPU))
    assert len(together) == len(settings) == 12
    for setting, found in zip(settings, together, strict=True):
        alone = trained_alone(tokens, 20, classes[:20], 6, setting["lr"], setting["decay"])
        np.testing.assert_allclose(found, alone, rtol=1e-3, atol=1e-4, err_msg=str(setting))
    first, last = together[0], together[-1]
    assert np.abs(first - last).max() > 0.1  # what settings change is more than that


def one_of_many(videos: int) -> tuple[np.ndarray, np.ndarray]:
    """Sixteen tokens, of which one is marked in channel 0, and has its class in channel 1. The others have any."""
    rng = np.random.default_rng(1)
    tokens = rng.standard_normal((videos, 16, 8)).astype(np.float32)
    tokens[:, :, 1] = rng.choice([-1, 1], (videos, 16))
    marked, classes = rng.integers(0, 16, videos), np.arange(videos) % 2
    tokens[np.arange(videos), marked, 0] += 6
    tokens[np.arange(videos), marked, 1] = 2 * classes - 1
    return tokens, classes


def test_a_class_that_stands_in_one_of_many_tokens_is_found_by_attention_alone() -> None:
    """The mean of the tokens hardly tells it."""
    tokens, classes = one_of_many(500)
    division = Division(train=[*range(200)], validation=[*range(200, 300)], test=[*range(300, 500)])
    attentive = _result(CLASSIFIERS["attentive"], tokens, classes, ["a", "b"], division, CPU)
    linear = _result(CLASSIFIERS["linear"], tokens.mean(1), classes, ["a", "b"], division, CPU)
    assert attentive.classification.top1 > 0.95
    assert linear.classification.top1 < 0.7


def test_a_vector_is_one_token() -> None:
    tokens, classes = problem(2 * BATCH_SIZE, 1, 6)
    setting = [{"lr": 0.01, "decay": 0.1}]
    (of_tokens,) = attentive_scores(tokens, range(70), classes[:70], range(60, 2 * BATCH_SIZE), setting)
    (of_vectors,) = attentive_scores(tokens[:, 0], range(70), classes[:70], range(60, 2 * BATCH_SIZE), setting)
    assert np.array_equal(of_vectors, of_tokens)
    assert of_tokens.shape == (2 * BATCH_SIZE - 60, 3)


def test_tokens_are_read_from_a_file(tmp_path: Path) -> None:
    tokens, classes = problem(80, 3, 6)
    np.save(tmp_path / "tokens.npy", tokens)
    setting = [{"lr": 0.01, "decay": 0.1}]
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    (found,) = attentive_scores(mapped, range(70), classes[:70], range(70, 80), setting)
    (expected,) = attentive_scores(tokens, range(70), classes[:70], range(70, 80), setting)
    assert np.array_equal(found, expected)


def test_a_channel_that_is_constant_but_for_rounding_tells_nothing() -> None:
    """Neither where videos are learnt from, nor where they are classified."""
    tokens, classes = problem(80, 3, 6)
    tokens[..., 0] = 1000 * (1 + np.random.default_rng(2).choice([0, 1e-7], (80, 3)))
    quiet = tokens.copy()
    quiet[..., 0] = 1000
    setting = [{"lr": 0.03, "decay": 0.1}]
    (found,) = attentive_scores(tokens, range(70), classes[:70], range(70, 80), setting)
    (expected,) = attentive_scores(quiet, range(70), classes[:70], range(70, 80), setting)
    np.testing.assert_allclose(found, expected, atol=0.05)
