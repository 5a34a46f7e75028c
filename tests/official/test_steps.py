"""Whole steps of the recipe against those of the release: SGD, momentum copies, queue, batch norm and rates."""

from __future__ import annotations

import pytest
import torch

from cacl.method.cacl import CACL
from cacl.training.optim import cosine_by_epoch
from cacl.training.train_state import TrainState
from tests.official import release
from tests.official.second_implementation import (
    CLIP,
    CNNS,
    assert_same,
    gradients,
    random_batch,
    recipe,
    running_statistics,
    second_implementation_of,
    small,
)


@pytest.mark.parametrize("name", CNNS)
def test_steps_are_those_of_the_release(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs of six videos are three steps, the last of which has the rate 0 of the last epoch. Keys go around the
    queue of 16 once and a half.

    All is computed in float64, in which the step otherwise never runs: in float32 activations next to the kink of a
    ReLU fall on either side, and after a few steps two runs have little in common.
    """
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    config = small(f"model.cnn={name}")
    train_state = TrainState(config, 6, torch.device("cpu"))
    model = train_state.model.double()
    query, key = model.query, model.key
    theirs = release.Training(second_implementation_of(query, config).double(), model.queue.keys)
    assert train_state.num_steps == 3
    for step, epoch in enumerate((1, 1, 2)):
        batch = random_batch(step)
        before = [p.clone() for p in query.parameters()]
        metrics = train_state.train_step(batch, sync=True)
        rate = release.learning_rate(epoch, epochs=2)
        loss = theirs.loss(batch.query.double(), batch.key.double(), batch.order.tolist())
        theirs.step(loss, rate)

        assert metrics["learning_rate"].item() == pytest.approx(rate)
        assert metrics["loss"].item() == pytest.approx(loss.item(), rel=1e-9)
        trained = [p for p in query.parameters() if p.requires_grad]
        assert_same(gradients(trained), gradients(theirs.query.parameters()), "gradients")
        assert_same(trained, theirs.query.parameters(), "weights")
        assert_same(running_statistics(query), running_statistics(theirs.query), "statistics of queries")
        assert_same(running_statistics(key), running_statistics(theirs.key), "statistics of keys")
        assert_same([model.queue.keys], [theirs.queue], "queue")
        assert model.queue.pointer.item() == theirs.pointer == (step + 1) * 2 * CLIP % 16
        still = all(torch.equal(*pair) for pair in zip(before, query.parameters(), strict=True))
        assert still == (epoch == 2)
    theirs.ema_update()  # at the beginning of the next step, where we do it at the end of this one
    updated = [p for name, p in key.named_parameters() if ".backbone." not in name]
    assert_same(updated, theirs.key.parameters(), "momentum copies")


def test_the_order_of_keys_in_the_queue() -> None:
    """All keys of the CNN come first, then all of the transformer, each in the order of the clips."""
    model = CACL(small())
    batch = random_batch()
    _, keys = model(batch, step=0)
    theirs = release.Training(second_implementation_of(model.query, model.config), model.queue.keys)
    copies = torch.stack([release.shuffled(c, o) for c, o in zip(batch.key, batch.order.tolist(), strict=True)])
    f, t = theirs.key(copies, batch.key)
    torch.testing.assert_close(keys, torch.cat([f, t]), rtol=0, atol=1e-5)


def test_batch_norm_is_shuffled_in_groups() -> None:
    """The keys are those of a batch that was permuted and normalised in two parts, and they are back in their order."""
    model = CACL(small("contrast.shuffle_bn_groups=2"))
    batch, step = random_batch(), 5
    _, keys = model(batch, step=step)
    theirs = release.Training(second_implementation_of(model.query, model.config), model.queue.keys)
    copies = torch.stack([release.shuffled(c, o) for c, o in zip(batch.key, batch.order.tolist(), strict=True)])
    drawn = torch.randperm(CLIP, generator=torch.Generator().manual_seed(step)).tolist()
    assert drawn != sorted(drawn)
    f, t = torch.empty(CLIP, 16), torch.empty(CLIP, 16)
    for group in (drawn[:2], drawn[2:]):
        f[group], t[group] = theirs.key(copies[group], batch.key[group])
    torch.testing.assert_close(keys, torch.cat([f, t]), rtol=0, atol=1e-5)
    assert (theirs.key(copies, batch.key)[0] - f).abs().max() > 1e-3, "in one part it is another key"


def test_rates_of_all_epochs() -> None:
    config = recipe()
    rates = [cosine_by_epoch(e, config.train.epochs, config.optim.lr) for e in range(1, 301)]
    assert rates == pytest.approx([release.learning_rate(e) for e in range(1, 301)], abs=1e-15)
    assert rates[0] < 0.01
    assert abs(rates[-1]) < 1e-15
