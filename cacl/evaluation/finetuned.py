"""What a fine-tuned network makes of the videos of a split: the scores of the classes, averaged over clips and crops.

The protocol of Guo et al. (CVPR 2022) is ten evenly spaced clips of a video, cropped at the centre, and the mean of
their logits.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cacl import config as configuration
from cacl import distributed
from cacl.checkpoints import checkpoint
from cacl.checkpoints.checkpoint import BEST_NAME, Checkpoint
from cacl.checkpoints.encoders import EncoderWeights
from cacl.config import Config
from cacl.errors import DataError, UsageError
from cacl.evaluation.recognition import Classification
from cacl.evaluation.videos import scan_videos, videos_of_split
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.scan import scan
from cacl.loaders.catalog.validation_split import with_validation
from cacl.loaders.clip_loader import ClipLoader
from cacl.models.video_classifier import VideoClassifier
from cacl.registry import LAYOUTS
from cacl.reporting.console import Console

FIXED_BY_WEIGHTS = ("model.", "finetune.")
"""The beginnings of the keys that the weights decide and an evaluation cannot set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetunedTable:
    """How well a fine-tuned network classifies the videos of a split, beside what takes no look at them."""

    label: str
    """What was learnt: `label`, or another column of the data set's lists."""
    encoder: str
    """`cnn` or `transformer`."""
    step: int
    """The number of steps that the network was trained for."""
    split: Literal["test", "val"]
    """The split whose videos are classified."""
    clips_per_video: int
    """The number of evenly spaced clips of a video."""
    crops: Literal[1, 3]
    """The number of crops of a clip."""
    average: Literal["logits", "probabilities"]
    """What is averaged over the clips and crops of a video."""
    num_videos: int
    """The number of videos that are classified."""
    classes: tuple[str, ...]
    """The names of the C classes, in the order of the rows and columns of confusion matrices."""
    results: dict[str, Classification]
    """The accuracies by name: `majority`, which guesses the most frequent classes of training, and `fine-tuned`."""
    catalog: Catalog = field(compare=False)
    """The videos that are classified, in the order of `Classification.guesses`."""

    def to_json(self) -> dict[str, Any]:
        """Returns the table as values that JSON can hold."""
        num_classes = len(self.classes)
        return {
            "label": self.label,
            "encoder": self.encoder,
            "step": self.step,
            "split": self.split,
            "clips_per_video": self.clips_per_video,
            "crops": self.crops,
            "average": self.average,
            "videos": self.num_videos,
            "classes": list(self.classes),
            "chance": {"top1": 1 / num_classes, "top5": min(5, num_classes) / num_classes},
            "results": {name: result.to_json() for name, result in self.results.items()},
        }


class FinetunedScores(NamedTuple):
    """What a fine-tuned network makes of the V videos of a split."""

    scores: np.ndarray
    """float64 [V, C]: the mean logits, or the mean probabilities, of each video."""
    true_classes: np.ndarray
    """int64 [V]: the positions of the true classes among the C names."""
    classes: tuple[str, ...]
    """The names of the classes."""
    train_counts: np.ndarray
    """int64 [C]: the number of training videos of each class."""
    catalog: Catalog
    """The videos of the split."""


def load_finetuned(path: Path) -> Checkpoint | None:
    """Reads the checkpoint of a run of `cacl finetune`.

    Args:
        path: A checkpoint, or a run folder, which stands for the state that did best on the validation videos.

    Returns:
        The checkpoint; None if the path leads to weights of another kind.

    Raises:
        CheckpointError: There is no such file, or it is damaged.
    """
    if path.suffix == ".safetensors":
        return None
    best = path / BEST_NAME
    saved = checkpoint.load(best if best.is_file() else path)
    return saved if saved.finetune is not None else None


def evaluate_finetuned(
    saved: Checkpoint,
    config: Config,
    *,
    split: Literal["test", "val"] = "test",
    crops: Literal[1, 3] = 1,
    average: Literal["logits", "probabilities"] = "logits",
) -> FinetunedTable:
    """Judges a fine-tuned network by the videos of a split. All ranks call it.

    Args:
        saved: The checkpoint of a run of `cacl finetune`.
        config: As for `finetuned_scores`, like everything that follows.
        split: The split.
        crops: The number of crops.
        average: What is averaged.

    Returns:
        The table, on every rank.

    Raises:
        UsageError: As for `finetuned_scores`.
        DataError: As for `finetuned_scores`.
    """
    scores, true_classes, classes, train_counts, catalog = finetuned_scores(
        saved, config, split=split, crops=crops, average=average
    )
    probabilities = scores if average == "probabilities" else None
    return FinetunedTable(
        label=config.finetune.label,
        encoder=config.finetune.encoder,
        step=saved.step,
        split=split,
        clips_per_video=config.retrieval.clips_per_video,
        crops=crops,
        average=average,
        num_videos=len(scores),
        classes=classes,
        results={
            "majority": Classification.of_majority(train_counts, true_classes, classes),
            "fine-tuned": Classification.of_scores(scores, true_classes, classes, probabilities),
        },
        catalog=catalog,
    )


def finetuned_scores(
    saved: Checkpoint,
    config: Config,
    *,
    split: Literal["test", "val"] = "test",
    crops: Literal[1, 3] = 1,
    average: Literal["logits", "probabilities"] = "logits",
) -> FinetunedScores:
    """Classifies each video of a split once, with its evenly spaced clips. All ranks call it.

    Args:
        saved: The checkpoint of a run of `cacl finetune`.
        config: The configuration that came with it, with the data to evaluate on.
        split: The split whose videos are classified. Validation videos are those that the run had, or would have had.
        crops: The number of crops of each clip: the centre, or three along the longer side of the frame.
        average: What is averaged over the clips and crops of a video.

    Returns:
        The scores, on every rank.

    Raises:
        UsageError: The configuration differs from that of the run in a key that the weights decide.
        DataError: A video cannot be loaded, there is none, or one has no label of a class that was learnt.
    """
    assert saved.finetune is not None
    changed = [line for line in configuration.differences(saved.config, config) if line.startswith(FIXED_BY_WEIGHTS)]
    if changed:
        raise UsageError(f"the weights decide {'; '.join(changed)}: leave that as it is")
    classes, label = saved.finetune.classes, config.finetune.label
    with distributed.process_group(config.train.device) as device, Console(enabled=distributed.rank() == 0) as console:
        catalog = scan_videos(config, console)
        if split == "val":
            catalog = with_validation(catalog, label, config.finetune.val_share)
        videos_of_split(catalog, split)  # tells what to do where there are none
        counts = Counter(video.label_in(label) for video in catalog.videos if video.split == "train")
        rank, world_size = distributed.rank(), distributed.world_size()
        loader = ClipLoader.from_config(
            config,
            catalog=catalog,
            batch_size=config.retrieval.batch_size * world_size,
            split=split,
            rank=rank,
            world_size=world_size,
            device=device,
        )
        videos = loader.catalog.videos
        _check_labels(loader.catalog, label, classes)
        own = _scores(_build(saved).to(device), loader, crops, average, console)
        scores = {video: value for part in distributed.all_gather_objects(own) for video, value in part.items()}
    return FinetunedScores(
        np.stack([scores[number] for number in range(len(videos))]),
        np.array([classes.index(video.label_in(label) or "") for video in videos]),
        classes,
        np.array([counts[name] for name in classes]),
        loader.catalog,
    )


def check_fold(config: Config) -> None:
    """Checks, before a network is trained on a fold, that the fold has test videos to judge it by. All ranks call it.

    Args:
        config: The configuration of the training.

    Raises:
        DataError: The videos cannot be read, or have no such fold, the fold has no training or no test videos, or a
            test video has no label of a class that training videos have.
    """
    with Console(enabled=distributed.rank() == 0) as console, distributed.main_first():
        progress = partial(console.progress, "scanning")
        catalog = scan(config.data, min_frames=config.clip.min_frames, progress=progress)
    if LAYOUTS.load(catalog.layout).fold_lists is None:
        raise DataError(
            f"{catalog.root}: layout {catalog.layout} has no folds, as ucf101 and hmdb51 have: omit --folds"
        )
    for split in ("train", "test"):
        videos_of_split(catalog, split)
    label = config.finetune.label
    _check_labels(catalog.of_split("test"), label, catalog.of_split("train").classes(label))


def _check_labels(catalog: Catalog, label: str, classes: Sequence[str]) -> None:
    for video in catalog.videos:
        if video.label_in(label) not in classes:
            raise DataError(
                f"{catalog.root}: {video.path} has the {label} {video.label_in(label)!r}, which is none of the "
                f"{len(classes)} classes that were learnt: leave it out, or fine-tune with it"
            )


def _build(saved: Checkpoint) -> VideoClassifier:
    """Builds the network with its weights, in evaluation mode."""
    assert saved.finetune is not None
    encoder = EncoderWeights.of_checkpoint(saved, saved.config.run).build(saved.config.finetune.encoder)
    model = VideoClassifier(encoder, len(saved.finetune.classes), saved.config.finetune.dropout)
    model.load_state_dict(saved.model)
    return model.eval()


@torch.no_grad()
def _scores(
    model: VideoClassifier,
    loader: ClipLoader,
    crops: Literal[1, 3],
    average: Literal["logits", "probabilities"],
    console: Console,
) -> dict[int, np.ndarray]:
    """Returns the mean scores [C] of each video of this rank, by its position."""
    clips_per_video, found = loader.config.retrieval.clips_per_video, defaultdict[int, list[Tensor]](list)
    done, clips = 0, clips_per_video * len(range(loader.rank, len(loader.catalog.videos), loader.world_size))
    for batch in loader.evaluation(clips_per_video, crops=crops):
        if batch.failures:  # A mean over fewer clips would not compare with others.
            raise DataError(batch.failures[0].reason)
        logits = torch.stack([model(view.to(loader.device).float()).double() for view in batch.views])
        values = (logits.softmax(-1) if average == "probabilities" else logits).mean(0).cpu()
        for video, value in zip(batch.video.tolist(), values, strict=True):
            found[video].append(value)
        done += len(batch)
        console.progress("classifying", done, clips)
    return {video: torch.stack(values).mean(0).numpy() for video, values in found.items()}
