"""Stand-ins of UCF101 and HMDB51: folders, names and official lists as in the real sets, and a few tiny videos.

`make_video` is the fixture of that name. Videos of a class begin at pictures of similar colour, each at another one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

UCF101_CLASSES = {"ApplyEyeMakeup": 1, "Archery": 3, "HandstandPushups": 37}
UCF101_GROUPS = (1, 2, 8, 15, 16, 17, 22, 23)
"""In fold N, videos of the groups 7N - 6 to 7N are for tests, and all others for training."""
HMDB51_NAMES = {
    "brush_hair": "April_09_brush_hair_u_nm_np1_ba_goo_{}.avi",
    "cartwheel": "(Rad)Schlag_die_Bank!_cartwheel_f_cm_np1_le_med_{}.avi",
    "catch": "#20_Rhythm_clip_catch_u_cm_np1_fr_bad_{}.avi",
}
HMDB51_DIGITS = {1: "22111110", 2: "11121101", 3: "10112212"}
"""For each fold what the lists say of each video of a class: 0 is unused, 1 training, 2 test."""
FIRST_PICTURES = (0, 12, 24)
"""Where the first video of each class begins: its blue is dark, medium or bright."""


def write_ucf101(root: Path, make_video: Callable[..., Path], **settings: Any) -> None:
    """Writes a stand-in of UCF101: 8 videos of each of 3 classes, of which the folds test 2, 1 and 3.

    Args:
        root: The folder to make, with the class folders and `ucfTrainTestlist`.
        make_video: The fixture.
        settings: Other settings of the videos than `_SETTINGS`.
    """
    lines: dict[str, list[str]] = {}
    for (label, number), first in zip(UCF101_CLASSES.items(), FIRST_PICTURES, strict=True):
        for position, group in enumerate(UCF101_GROUPS):
            # Names of files spell this class otherwise than its folder.
            name = f"{label}/v_{label.replace('stand', 'Stand')}_g{group:02}_c01.avi"
            make_video(root / name, **_SETTINGS | {"first": first + position} | settings)
            for fold in (1, 2, 3):
                is_test = 7 * fold - 6 <= group <= 7 * fold
                file, line = (f"testlist0{fold}", name) if is_test else (f"trainlist0{fold}", f"{name} {number}")
                lines.setdefault(file, []).append(line)
    lines["classInd"] = [f"{number} {label}" for label, number in UCF101_CLASSES.items()]
    for file, content in lines.items():
        _write_lines(root / f"ucfTrainTestlist/{file}.txt", content, end="\r\n")


def write_hmdb51(root: Path, make_video: Callable[..., Path], **settings: Any) -> None:
    """Writes a stand-in of HMDB51: 8 videos of each of 3 classes, of which the folds test 2, 1 and 3.

    Args:
        root: The folder to make, with the class folders and `testTrainMulti_7030_splits`.
        make_video: The fixture.
        settings: Other settings of the videos than `_SETTINGS`.
    """
    for (label, pattern), first in zip(HMDB51_NAMES.items(), FIRST_PICTURES, strict=True):
        names = [pattern.format(number) for number in range(8)]
        for position, name in enumerate(names):
            make_video(root / label / name, **_SETTINGS | {"first": first + position} | settings)
        for fold, digits in HMDB51_DIGITS.items():
            lines = [f"{name} {digit} " for name, digit in zip(names, digits, strict=True)]
            _write_lines(root / f"testTrainMulti_7030_splits/{label}_test_split{fold}.txt", lines, end="\n")


_SETTINGS = {"frames": 8, "size": (32, 24), "gop": 4, "codec": "mpeg4"}


def _write_lines(file: Path, lines: list[str], *, end: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(line + end for line in lines), newline="")
