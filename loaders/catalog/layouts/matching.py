"""Which video each line of a list names: exactly, or by a name that is not quite that of the file."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, TypeAlias

from cacl.errors import DataError
from cacl.loaders.catalog.layouts.listing import LayoutResult, VideoEntry, merge_entries
from cacl.loaders.catalog.layouts.suffixes import VIDEO_SUFFIXES


class ListedVideo(NamedTuple):
    """What one line of a list says of a video."""

    where: str
    """The list and the line, for messages."""
    entry: VideoEntry
    """The path of this entry is the name as it is listed."""


ListedVideos: TypeAlias = Mapping[str, Sequence[ListedVideo]]
"""What the lists say, by a key that tells videos apart."""


def match_listed_videos(
    videos: Sequence[str],
    listed: ListedVideos,
    key: Callable[[str], str],
    classes: Collection[str] = (),
    *,
    listed_only: bool = False,
) -> LayoutResult:
    """Gives every video what the lists say of it; one that no list names keeps the label of its class folder.

    Args:
        videos: The paths of the videos.
        listed: What the lists say, by key.
        key: A function that makes of a path the key to find it by in `listed`.
        classes: The names of folders that are labels.
        listed_only: Whether to leave out videos that no list names.

    Returns:
        The entries, the listed names for which there is no video, and notes.

    Raises:
        DataError: A video is named by lines that contradict each other.
    """
    by_name: dict[str, list[ListedVideo]] = defaultdict(list)
    for same in listed.values():
        for line in same:
            by_name[line.entry.path].append(line)
    lines_of: dict[str, Sequence[ListedVideo]] = {path: same for path in videos if (same := listed.get(key(path)))}
    missing = by_name.keys() - {line.entry.path for same in lines_of.values() for line in same}
    loosely = _match_loosely(missing, videos, lines_of.keys())
    lines_of |= {path: by_name[name] for path, name in loosely.items()}
    entries: list[VideoEntry] = []
    for path in videos:
        if lines := lines_of.get(path):
            entries.append(_merge_lines(path, lines))
        elif not listed_only:
            folder = os.path.basename(os.path.dirname(path))
            entries.append(VideoEntry(path, folder if folder in classes else None))
    notes = []
    if loosely:
        path, name = min(loosely.items())
        notes.append(
            f"listed names that are not quite those of their files: {len(loosely)}, such as {name} for {path}; matched "
            "without regard to case, suffix and folders in front"
        )
    return LayoutResult(entries, sorted(missing - set(loosely.values())), notes)


def _merge_lines(path: str, lines: Sequence[ListedVideo]) -> VideoEntry:
    """Returns all that the lines about one video say. It raises DataError where they contradict each other."""
    known = VideoEntry(path)
    for where, entry in lines:
        both = merge_entries(known, entry)
        if both is None:
            raise DataError(
                f"{where}: lists {path} with {entry.description}; {lines[0].where} with {known.description}; "
                "correct one"
            )
        known = both
    return known


def class_and_stem(path: str) -> str:
    """Returns the last folder of a path and the name of the file without its suffix: `class/video`.

    It is the key of videos in lists that name them so, whatever lies around the class folders and however the videos
    were transcoded.
    """
    folder, _, file = path.rpartition("/")
    return f"{folder.rpartition('/')[2]}/{os.path.splitext(file)[0]}"


class LooseNames:
    """Videos that are found by names which need not be quite theirs."""

    def __init__(self, videos: Sequence[str]) -> None:
        """Takes the paths of the videos."""
        self.videos = videos

    @cached_property
    def _by_stem(self) -> Mapping[str, Sequence[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for path in self.videos:
            found[_comparable_parts(path)[-1]].append(path)
        return found

    @cached_property
    def _is_flat(self) -> bool:
        return not any("/" in path for path in self.videos)

    def find(self, name: str) -> list[str]:
        """Finds videos whose path ends as the name does, or the other way round.

        Case, suffix and the form of accents do not count. A video in the root itself has one name only, so it is meant
        by a longer path only if all videos lie there.

        Args:
            name: The name of a video as a list has it.

        Returns:
            The paths of all videos that can be meant.
        """
        parts = _comparable_parts(name)
        return [
            path
            for path in (self._by_stem.get(parts[-1], ()) if parts else ())
            if _end_alike(parts, _comparable_parts(path)) and ("/" in path or len(parts) == 1 or self._is_flat)
        ]


def _comparable_parts(path: str) -> list[str]:
    """Returns the folders and the stem of a path in the form in which they are compared."""
    parts = unicodedata.normalize("NFC", path).casefold().replace("\\", "/").split("/")
    stem, suffix = os.path.splitext(parts[-1])
    parts[-1] = stem if suffix[1:] in VIDEO_SUFFIXES else parts[-1]
    return [part for part in parts if part not in ("", ".", "..")]


def _end_alike(one: Sequence[str], other: Sequence[str]) -> bool:
    shared = min(len(one), len(other))
    return one[-shared:] == other[-shared:]


def _match_loosely(names: Collection[str], videos: Sequence[str], taken: Collection[str]) -> dict[str, str]:
    """Returns by path the name that a video goes by, where no other video and no other name can be meant.

    Args:
        names: Listed names that are not exactly those of files.
        videos: The paths of all videos.
        taken: The videos that a list names exactly, which no other name can mean.
    """
    loose, claims = LooseNames(videos), defaultdict(list)
    for name in names:
        if len(alike := loose.find(name)) == 1:
            claims[alike[0]].append(name)
    return {path: same[0] for path, same in claims.items() if len(same) == 1 and path not in taken}
