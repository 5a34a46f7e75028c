"""The JSON file beside exported weights: what goes in, what comes out, and how a clip is made of a video."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import cacl
from cacl import config as configuration
from cacl.config import Config
from cacl.export.formats import INPUT_NAME, Outputs
from cacl.export.network import Network

FORMAT = 1
"""The version of the file. Keys may be added without another one."""


def describe(network: Network, outputs: Outputs, files: Mapping[str, Any]) -> dict[str, Any]:
    """Describes a network and its files.

    Args:
        network: The network.
        outputs: What it computes of a batch of clips.
        files: What is said of each file, by its name.

    Returns:
        Values that JSON can hold.
    """
    named = zip(network.output_names, outputs, strict=True)
    return {
        "format": FORMAT,
        "encoder": network.name,
        "architecture": network.architecture,
        "step": network.weights.step,
        "input": {"name": INPUT_NAME, "dtype": "float32", "shape": ["batch", *network.clip_shape]},
        "outputs": [
            {"name": name, "dtype": "float32", "shape": ["batch", *output.shape[1:]]} for name, output in named
        ],
        "classes": list(network.classes),
        "preprocessing": preprocessing(network.weights.config),
        "model": _model_keys(network),
        "weights_sha256": network.weights.digest,
        "files": dict(files),
        "versions": {"cacl": cacl.__version__, "torch": version("torch"), "timm": version("timm")},
    }


def _model_keys(network: Network) -> dict[str, Any]:
    """Returns the keys of the configuration that decide the network."""
    model = configuration.to_dict(network.weights.config)["model"]
    own = ("cnn", "width") if network.name == "cnn" else ("transformer",)
    return {key: model[key] for key in (*own, "init")}


def preprocessing(config: Config) -> dict[str, Any]:
    """Tells how the evaluation makes clips of a video, as numbers and in words.

    Args:
        config: The configuration.

    Returns:
        Values that JSON can hold. `steps` says what the numbers mean.
    """
    clip, augment, count = config.clip, config.augment, config.retrieval.clips_per_video
    return {
        "frames": clip.frames,
        "stride": clip.stride,
        "clips_per_video": count,
        "clip_starts": config.retrieval.clip_starts,
        "resize": list(augment.resize) if any(augment.resize) else None,
        "crop": augment.crop[1],
        "size": [clip.size, clip.size],
        "color": "RGB",
        "range": [0.0, 1.0],
        "average": "mean over the clips of a video",
        "steps": [
            "Decode the video stream that players show to RGB of 8 bits, with the frames upright as the metadata says. "
            f"There must be at least {clip.frames} of them.",
            *_clip_steps(config),
            *_view_steps(config),
            "Divide by 255, and put the axes into the order channels (red, green, blue), frames, height, width. "
            "Nothing else is normalised: where an image model wants that, the network does it by itself.",
            f"The features of a video are the mean of those of its {count} clips, and so are its logits.",
        ],
    }


def _clip_steps(config: Config) -> list[str]:
    frames, stride, span = config.clip.frames, config.clip.stride, config.clip.span
    count = config.retrieval.clips_per_video
    if config.retrieval.clip_starts == "official":
        return [
            f"Take {count} clips of {frames} frames, each frame {stride} after the one before. A video of fewer than "
            f"{span} frames is seen with 1 in place of {stride}.",
            f"Let last be the number of frames of the video minus {frames * stride}, at least 0. The clips begin at "
            f"numpy.linspace(0, last, {count}), rounded down.",
        ]
    starts = f"at frame round(last * i / {count - 1}), halves to even, for i from 0 to {count - 1}"
    return [
        f"Take {count} clips of {frames} frames, each frame {stride} after the one before. In a video of fewer than "
        f"{span} frames it is (number of frames - 1) // {frames - 1} instead.",
        "Let last be the number of frames of the video minus those from the first to the last of a clip. The clips "
        f"begin {starts if count > 1 else 'at frame last // 2'}. The first frame of the video is frame 0.",
    ]


def _view_steps(config: Config) -> list[str]:
    size, share = config.clip.size, config.augment.crop[1]
    steps = []
    if any(config.augment.resize):
        height, width = config.augment.resize
        steps.append(
            f"Resize the frames to a height of {height} and a width of {width}, whatever their aspect ratio, as Pillow "
            "does it with BILINEAR, rounded to 8 bits."
        )
        edges = "the difference to the side, rounded, halves to even"
    else:
        edges = "the difference to the side, rounded down to an even number"
    return [
        *steps,
        f"Crop a square whose side is {share:g} times the shorter side of the frame, rounded down to an even number. "
        f"It stands in the centre: its top and its left edge are half of {edges}.",
        f"Resize it to {size} x {size}, bilinear with antialiasing, as torch.nn.functional.interpolate with "
        "antialias=True does it, or Pillow with BILINEAR.",
    ]
