"""Data sets that tests lay out on disk: empty files with the right names, and lists."""

from pathlib import Path
from typing import Any

from cacl.config import DataConfig
from cacl.loaders.catalog.layouts.discover import discover_videos
from cacl.loaders.catalog.layouts.listing import Listing

THREE = ("a/x.mp4", "a/y.mp4", "b/z.mp4")


def put(root: Path, *names: str) -> None:
    """Makes empty files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write(file: Path, *lines: str, end: str = "\n") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes("".join(line + end for line in lines).encode())


def find(root: Path, **data: Any) -> Listing:
    return discover_videos(DataConfig(root=str(root), **data))


def facts(listing: Listing) -> dict[str, tuple[str | None, str | None]]:
    return {entry.path: (entry.label, entry.split) for entry in listing.entries}
