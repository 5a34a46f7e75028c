"""How tests scan a folder."""

from pathlib import Path

import pytest

from cacl.config import DataConfig
from cacl.loaders.catalog import scan as scanning
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.scan import scan

UNUSABLE = ["run/cut.mp4", "run/cut_behind_its_index.mp4", "walk/empty.mp4", "walk/text.mp4"]
"""The files among the original ones that cannot be used, sorted."""


def scan_folder(root: Path) -> Catalog:
    """Scans with a cache beside the root."""
    return scan(DataConfig(root=str(root), cache=str(root.parent / "cache")))


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "probe", lambda file: pytest.fail(f"{file} was decoded"))
