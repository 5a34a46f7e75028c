"""Validation videos that are taken from the training videos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cacl.clips import VideoRecord
from cacl.config import DataConfig
from cacl.errors import DataError
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.scan import scan
from cacl.loaders.catalog.validation_split import with_validation
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.transcode import TranscodeSettings


def catalog_of(splits: Sequence[str | None], *, classes: int = 2) -> Catalog:
    videos = tuple(
        VideoRecord(
            path=f"{n:03}.mp4",
            frames=9,
            declared_frames=9,
            rate=25.0,
            width=32,
            height=24,
            codec="h264",
            label=f"c{n % classes}",
            split=split,
            attributes={"person": f"p{n % 5}"},
        )
        for n, split in enumerate(splits)
    )
    return Catalog(root=Path("videos"), layout="csv", videos=videos, rejected=(), missing=())


def splits_of(catalog: Catalog) -> dict[str, str | None]:
    return {video.path: video.split for video in catalog.videos}


@pytest.mark.parametrize("training", ["train", None])
def test_only_training_videos_are_held_out(training: str | None) -> None:
    others: list[str | None] = ["test"] * 50 if training else []
    before = catalog_of([training] * 100 + others)
    after = splits_of(with_validation(before, "label", 0.2))
    assert all(after[video.path] == "test" for video in before.videos[100:])
    counts = Counter(after[video.path] for video in before.videos[:100])
    assert counts.keys() == {"train", "val"}
    assert 10 <= counts["val"] <= 30
    for column in ("label", "person"):
        held_out = with_validation(before, column, 0.01)
        classes = {video.label_in(column) for video in before.videos}
        assert {video.label_in(column) for video in held_out.of_split("val").videos} == classes


def test_validation_videos_of_the_data_set_are_taken_as_they_are() -> None:
    before = catalog_of(["train"] * 10 + ["val", "test"])
    assert with_validation(before, "label", 0.5) == before


def test_a_set_without_two_training_videos_of_a_class_has_none_to_hold_out() -> None:
    with pytest.raises(DataError, match="no class of 'label' has two training videos"):
        with_validation(catalog_of(["train", "train", "test", "test"]), "label", 0.5)
    with pytest.raises(DataError, match="no class of 'colour'"):
        with_validation(catalog_of(["train"] * 10), "colour", 0.5)


def test_a_prepared_set_has_the_validation_videos_of_its_source(
    make_video: Callable[..., Path], tmp_path: Path
) -> None:
    for label in ("run", "walk"):
        for number in range(6):
            make_video(tmp_path / f"videos/{label}/{number}.mp4", frames=6, size=(32, 24), gop=3)
    data = DataConfig(root=str(tmp_path / "videos"), cache=str(tmp_path / "cache"))
    prepare(data, tmp_path / "set", TranscodeSettings(short_side=24, gop=3), workers=1, progress=lambda *_: None)
    for share in (0.0, 0.3):
        found = [
            with_validation(scan(replace(data, root=str(tmp_path / name), test_share=share)), "label", 0.4)
            for name in ("videos", "set")
        ]
        drawn = [
            {
                split: sorted(Path(v.path).name[0] + (v.label or "") for v in one.of_split(split).videos)
                for split in ("train", "val", "test")
            }
            for one in found
        ]
        assert drawn[0] == drawn[1]
        assert drawn[0]["train"]
        assert drawn[0]["val"]
        assert bool(drawn[0]["test"]) == (share > 0)
        assert found[1].fingerprint != scan(replace(data, root=str(tmp_path / "set"), test_share=share)).fingerprint
