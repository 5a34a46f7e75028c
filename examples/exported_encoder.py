"""Computes the feature of a video with an encoder that `cacl export` wrote, without cacl.

    cacl export runs/mine --out exported
    python examples/exported_encoder.py exported/cnn.json video.mp4 feature.npy

It needs av, numpy, onnxruntime and pillow. What it does to the video is what `preprocessing` in the JSON file says.
"""

import json
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime
from av.video.reformatter import Interpolation
from PIL import Image

ACCURATE = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""How YUV becomes RGB. By default swscale takes paths that darken by 1 or 2 of 255."""


def upright_frames(video: str) -> list[Image.Image]:
    """Returns all frames of a video. Of a long one, rather decode what the clips need."""
    with av.open(video, metadata_errors="ignore") as container:
        stream = container.streams.best("video")
        frames = (frame for frame in container.decode(stream) if isinstance(frame, av.VideoFrame))
        return [frame.to_image(interpolation=ACCURATE).rotate(frame.rotation, expand=True) for frame in frames]


def clip_frames(preprocessing: dict[str, Any], frames: int) -> list[range]:
    """Returns the numbers of the frames of each clip of a video that has so many frames."""
    length, stride, count = (preprocessing[key] for key in ("frames", "stride", "clips_per_video"))
    if preprocessing["clip_starts"] == "official":
        stride = stride if frames > (length - 1) * stride else 1
        starts = np.linspace(0, max(0, frames - length * preprocessing["stride"]), count).astype(int).tolist()
    else:
        stride = min(stride, (frames - 1) // (length - 1))
        last = frames - 1 - (length - 1) * stride
        starts = [round(last * number / (count - 1)) for number in range(count)] if count > 1 else [last // 2]
    return [range(start, start + length * stride, stride) for start in starts]


def view(preprocessing: dict[str, Any], image: Image.Image) -> np.ndarray:
    """Returns the view of a frame, float32 [3, H, W], RGB in [0, 1]."""
    if preprocessing["resize"]:
        height, width = preprocessing["resize"]
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    side = int(preprocessing["crop"] * min(image.size)) // 2 * 2
    if preprocessing["resize"]:
        left, top = (round((edge - side) / 2) for edge in image.size)
    else:
        left, top = (int((edge - side) / 2) // 2 * 2 for edge in image.size)
    height, width = preprocessing["size"]
    bands = [band.convert("F") for band in image.crop((left, top, left + side, top + side)).split()]
    resized = [np.asarray(band.resize((width, height), Image.Resampling.BILINEAR)) for band in bands]
    return np.stack(resized) / np.float32(255)


def main(description_file: str, video: str, feature_file: str) -> None:
    """Writes the feature of a video, float32 [F]."""
    path = Path(description_file)
    description = json.loads(path.read_text(encoding="utf-8"))
    preprocessing = description["preprocessing"]
    images = upright_frames(video)
    session = onnxruntime.InferenceSession(path.with_suffix(".onnx"), providers=["CPUExecutionProvider"])
    features = []
    for numbers in clip_frames(preprocessing, len(images)):
        clip = np.stack([view(preprocessing, images[number]) for number in numbers], 1)  # [3, T, H, W]
        features.append(np.asarray(session.run(["features"], {"clips": clip[None]})[0])[0])  # [F]
    feature = np.mean(features, 0)
    np.save(feature_file, feature)
    print(f"{feature_file}: {len(feature)} numbers, the mean over {len(features)} clips of {len(images)} frames")


if __name__ == "__main__":
    main(*sys.argv[1:])
