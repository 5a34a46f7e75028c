"""Which scalars of a training share a figure, and what the figure says in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

import torch

from cacl.config import Config
from cacl.loaders.sampling.rng import RandomStream
from cacl.loaders.sampling.sampler import draw_frame_order
from cacl.method.losses import order_classes
from cacl.training.embedding_warnings import COLLAPSED_ENTROPY, LOST_KEYS_COSINE, uses_queue

LEARNT, INSIDE, SPEED, OTHERS = "What is learnt", "What goes on inside", "Schedule and speed", "Other scalars"
SECTIONS = (LEARNT, INSIDE, SPEED, OTHERS)
"""The headings that figures stand under, in the order of the page."""
ORDERS_DRAWN = 4000
"""The number of frame orders that the commonest class is found by."""


class Group(NamedTuple):
    """The scalars of one figure: those that have its name before the slash, such as `similarity/...`."""

    title: str
    """The heading of the figure, and the name of its vertical axis."""
    section: str
    """The heading that it stands under."""
    caption: str
    """What the scalars are, and what is good."""
    is_share: bool = False
    """Whether the values are shares, and the vertical axis has all from 0 to 1."""
    begins_at_zero: bool = False
    """Whether the vertical axis begins at 0, and not where the values do."""


GROUPS: Mapping[str, Group] = {
    "loss": Group(
        "losses",
        LEARNT,
        "The loss is what training lowers: the sum of the others by their weights, which stand in the configuration. "
        "It should fall. It can fall without anything being learnt, so look at the other figures, too.",
    ),
    "similarity": Group(
        "similarity of positives",
        LEARNT,
        "The mean cosine of the two sides of each pair that attracts: two looks at the same clip. It should rise. Near "
        "1 from the first steps on, it speaks of a collapse.",
    ),
    "top1": Group(
        "top-1 against the queue",
        LEARNT,
        "The share of clips whose positive is at least as similar as every key in the queue. 1 is best.",
        is_share=True,
    ),
    "batch_top1": Group(
        "top-1 within the batch",
        LEARNT,
        "The share of clips that are at least as similar to their own positive as to that of any other clip of the "
        "batch. 1 is best, and one divided by the size of the batch is chance.",
        is_share=True,
    ),
    "reversed_top1": Group(
        "top-1 against the clip played backwards",
        LEARNT,
        "The share of clips that are at least as similar to their positive as to themselves played backwards. 0.5 is "
        "chance, and what stands still cannot be told apart.",
        is_share=True,
    ),
    "order_accuracy": Group(
        "order accuracy",
        LEARNT,
        "The share of clips for which the CNN tells how far the frames of the shuffled copy are out of order. 1 is "
        "best.",
        is_share=True,
    ),
    "accuracy": Group(
        "accuracy on training clips",
        LEARNT,
        "The share of training clips that are classified rightly. Where it leaves the accuracy on validation videos "
        "far behind, the network learns its videos by heart.",
        is_share=True,
    ),
    "val_accuracy": Group(
        "accuracy on validation videos",
        LEARNT,
        "The share of validation videos that are classified rightly. best.pt is the state with the highest.",
        is_share=True,
    ),
    "val_loss": Group(
        "loss on validation videos",
        LEARNT,
        "The cross-entropy of the validation videos. It should fall; where it rises while the accuracy stays, the "
        "network is too sure of itself.",
    ),
    "knn_accuracy": Group(
        "k-NN accuracy",
        LEARNT,
        "The share of validation videos that their nearest training videos classify rightly. It should rise. The "
        "labels decide nothing of the training.",
        is_share=True,
    ),
    "embedding_std": Group(
        "spread of embeddings",
        INSIDE,
        "The standard deviation of the embeddings over the batch, as a share of that of directions at random: 1 means "
        "that they point everywhere, 0 that all videos get the same.",
        begins_at_zero=True,
    ),
    "effective_rank": Group(
        "effective rank",
        INSIDE,
        "In how many directions the embeddings of a batch differ. More is better; 1 means that all are the same.",
        begins_at_zero=True,
    ),
    "uniformity": Group(
        "uniformity",
        INSIDE,
        "How evenly embeddings lie on the sphere. Lower is better: near -4 for directions at random, 0 if all are the "
        "same.",
    ),
    "alignment": Group(
        "alignment",
        INSIDE,
        "The mean squared distance of a query to the key of the same clip. Lower is better: 0 if both are the same, 2 "
        "if they have nothing in common, which says that the momentum copy lags behind.",
        begins_at_zero=True,
    ),
    "drift": Group(
        "drift",
        INSIDE,
        "How much more similar queries are to new keys of other videos than to the oldest keys of the queue. Near 0, "
        "the old keys still fit.",
    ),
    "learning_rate": Group(
        "learning rate", SPEED, "The learning rate of the steps, as the schedule has it.", begins_at_zero=True
    ),
    "gradient_norm": Group(
        "gradient norm",
        SPEED,
        "The length of the gradient, before optim.max_grad_norm cuts it. Single peaks are harmless; a norm that keeps "
        "growing announces that the loss will not stay finite.",
        begins_at_zero=True,
    ),
    "clips_per_second": Group(
        "clips per second",
        SPEED,
        "The clips that are trained on in a second, by all processes together.",
        begins_at_zero=True,
    ),
    "data_wait_share": Group(
        "data wait",
        SPEED,
        "The share of the time in which training waits for clips. Below 0.05 is good; above, cacl data prepare or more "
        "loader.threads help.",
        is_share=True,
    ),
    "clips_skipped": Group(
        "clips not trained on",
        SPEED,
        "Clips so far that did not load, or whose step had too few. None is best.",
        begins_at_zero=True,
    ),
}
"""The groups by name. What belongs to none of them, such as the scalars of a loss of your own, gets figures as well."""


def group_scalars(names: Iterable[str], config: Config) -> dict[str, list[str]]:
    """Divides scalars among figures. Only `step` and `epoch` are in none.

    Args:
        names: The names of the scalars.
        config: The configuration of the run, which names the losses.

    Returns:
        The names of the scalars of each group: first the groups of `GROUPS` in their order, then all others.
    """
    losses = {"loss", *config.losses}
    found: dict[str, list[str]] = {name: [] for name in GROUPS}
    for name in names:
        first = name.partition("/")[0]
        if name not in ("step", "epoch"):
            found.setdefault("loss" if first in losses else first, []).append(name)
    found["loss"].sort(key=lambda name: name != "loss")  # the sum before its parts
    return {group: scalars for group, scalars in found.items() if scalars}


def describe_group(group: str) -> Group:
    """Returns what a figure says; of scalars that are not known here, only their name."""
    caption = "This is logged by a loss or an encoder of another package, which says what it means."
    return GROUPS.get(group) or Group(group.replace("_", " "), OTHERS, caption)


def reference_line(group: str, config: Config) -> tuple[float, str] | None:
    """Returns a value that the scalars of a group are to be compared with, and its name, if there is one.

    Args:
        group: The name of the group.
        config: The configuration of the run.
    """
    if group == "effective_rank":
        return largest_rank(config) ** COLLAPSED_ENTROPY, "collapsed below"
    if group == "alignment" and uses_queue(config.contrast):
        return 2 - 2 * LOST_KEYS_COSINE, "ahead of the keys above"
    if group == "order_accuracy":
        return commonest_class_share(config.clip.frames), "always the commonest class"
    return None


def largest_rank(config: Config) -> int:
    """Returns the largest effective rank that the embeddings of a batch can have."""
    return min(config.train.batch_size, config.model.embedding_dim)


@lru_cache
def commonest_class_share(frames: int) -> float:
    """Returns how often the commonest class of the order task is the right one, by orders that are drawn."""
    orders = torch.tensor([draw_frame_order(RandomStream(0, number), frames) for number in range(ORDERS_DRAWN)])
    return float(order_classes(orders).bincount().max()) / ORDERS_DRAWN
