"""What became of the sources of a prepared set."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.prepared.conversion_log import ConvertedSource
from cacl.loaders.prepared.transcode import TranscodeSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareSummary:
    """A finished prepared set, beside the sources that it was made from."""

    root: Path
    """The folder of the sources."""
    target: Path
    """The folder of the prepared set."""
    settings: TranscodeSettings
    catalog: Catalog
    """The prepared set, with the rejected sources."""
    converted: tuple[ConvertedSource, ...]
    """The source of each video of the catalog, in its order."""
    kept: int
    """How many of them an earlier run had finished."""

    @property
    def copied(self) -> int:
        """How many sources were copied; the others were encoded."""
        return sum(source.copied for source in self.converted)

    @property
    def source_bytes(self) -> int:
        """The size of all sources that were converted."""
        return sum(source.stamp.size for source in self.converted)

    @property
    def prepared_bytes(self) -> int:
        """The size of all prepared videos."""
        return sum(source.size_bytes for source in self.converted)

    def check(self, max_rejected: float) -> None:
        """Refuses a set of which too many sources were rejected.

        Args:
            max_rejected: The largest accepted share of rejected sources.

        Raises:
            DataError: The share is larger.
        """
        replace(self.catalog, root=self.root).check(max_rejected)

    def to_json(self) -> dict[str, Any]:
        """Returns the summary as an object for `json`."""
        return {
            "source": str(self.root),
            "target": str(self.target),
            "layout": self.catalog.layout,
            "settings": asdict(self.settings),
            "videos": len(self.converted),
            "copied": self.copied,
            "encoded": len(self.converted) - self.copied,
            "kept": self.kept,
            "source_bytes": self.source_bytes,
            "prepared_bytes": self.prepared_bytes,
            "rejected": [rejected._asdict() for rejected in self.catalog.rejected],
            "missing": list(self.catalog.missing),
            "notes": list(self.catalog.notes),
        }
