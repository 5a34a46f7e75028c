"""Shards: the parts of a prepared set that several machines make, each with a conversion log of its own."""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from cacl.errors import UsageError
from cacl.loaders.catalog.prepared_files import SHARD_LOGS


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """One of the parts that the sources of a set are divided into."""

    number: int
    """The number of the part, from 1 to `count`."""
    count: int
    """The number of parts."""

    @staticmethod
    def parse(text: str) -> Shard:
        """Returns the shard that a text such as `2/4` names.

        Raises:
            UsageError: The text names none.
        """
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"--shard {text}: give I/N with I from 1 to N, such as 1/4 for the first of four shards")
        return Shard(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def log_name(self) -> str:
        """The name of its conversion log in the folder of the set."""
        return SHARD_LOGS.replace("*", "{}").format(self.number, self.count)

    def takes(self, source_path: str) -> bool:
        """Returns whether a source belongs to this shard, which only its path decides.

        Sources that come or go leave all others in their shards.

        Args:
            source_path: The path of the source, relative to its root or absolute.
        """
        return zlib.crc32(os.fsencode(source_path)) % self.count == self.number - 1


def find_shards(target: Path) -> list[Shard]:
    """Returns the shards that have a log in a folder, in order.

    Args:
        target: The folder of the prepared set; it need not exist.
    """
    names = [re.findall(r"[0-9]+", log.name) for log in target.glob(SHARD_LOGS)]
    shards = [Shard(int(number[0]), int(number[1])) for number in names if len(number) == 2]
    return sorted(shard for shard in shards if (target / shard.log_name).is_file())
