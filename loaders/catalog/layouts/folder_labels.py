"""What the folders of videos tell: the splits, and the classes around or below them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from cacl.loaders.catalog.layouts.split_names import splits_among

NAMED_FOLDERS = 3
"""A doubt names this many folders; the others are counted."""


class FolderLabels(NamedTuple):
    """The labels and splits that the folders of videos tell."""

    labels: Mapping[str, str | None]
    """The label of each video, by its path; None where its folders tell none."""
    splits: Mapping[str, str | None]
    """The split of each video, by its path; None where its folders tell none."""
    notes: Sequence[str] = ()
    """What was guessed, one line each."""
    doubt: str = ""
    """Why the folders may be splits or classes; empty if that is clear."""

    @property
    def tell_classes(self) -> bool:
        """Whether the folders are classes: all videos lie in some, or in splits and some of them in classes."""
        told = set(self.labels.values())
        return told != {None} if any(self.splits.values()) else len(told) > 1 and None not in told


def read_class_folders(videos: Sequence[str]) -> FolderLabels:
    """Takes folders for classes, whatever their names.

    Args:
        videos: The paths of the videos relative to the root.

    Returns:
        The first folders that differ as labels, since those that all videos lie in say nothing; no splits.
    """
    folders = {path: path.split("/")[:-1] for path in videos}
    return FolderLabels(_first_that_differ(folders), dict.fromkeys(videos))


def read_folders(videos: Sequence[str]) -> FolderLabels:
    """Takes folders for splits where those of one level have names of splits, and for classes around or below them.

    Args:
        videos: The paths of the videos relative to the root.

    Returns:
        The labels and splits, with a doubt where it is not clear whether folders are splits or classes.
    """
    folders = {path: path.split("/")[:-1] for path in videos}
    level, names, doubt = _level_of_splits({tuple(above) for above in folders.values() if above})
    if level is None:
        return read_class_folders(videos)._replace(doubt=doubt)
    splits = {path: names.get(above[level]) if len(above) > level else None for path, above in folders.items()}
    within = [path for path in videos if splits[path]]
    around = len({tuple(folders[path][:level]) for path in within}) > 1
    notes = []
    if around:
        classes = {path: above[:level] for path, above in folders.items()}
        if any(len(folders[path]) > level + 1 for path in within):
            notes.append(
                f"folders differ above and below those of splits, as of {within[0]}: those above are the classes"
            )
    else:
        classes = {path: above[level + 1 :] if splits[path] else [] for path, above in folders.items()}
    if beside := [path for path in videos if not splits[path]]:
        notes.append(
            f"videos beside the folders of splits ({', '.join(sorted(names))}): {len(beside)}, such as {beside[0]}; "
            "they belong to no split, and are neither trained on nor evaluated"
        )
    return FolderLabels(_first_that_differ(classes), splits, notes)


def _level_of_splits(folders: Collection[Sequence[str]]) -> tuple[int | None, Mapping[str, str], str]:
    """Finds the level of the folders that are splits.

    A level counts if its folders name several splits, or if all videos lie in folders that name one. A single such
    folder beside others leaves a doubt, since it may be a class: `train` may hold videos of trains.

    Returns:
        The level, the split of each folder there that is one, and no doubt; or None, nothing, and perhaps a doubt.
    """
    doubt, top = "", _depth_in_common(folders)
    for level in range(max(map(len, folders), default=0)):
        here = {above[level] for above in folders if len(above) > level}
        names = splits_among(here)
        everywhere = all(len(above) > level and above[level] in names for above in folders)
        if len(set(names.values())) > 1 or (names and everywhere):
            return level, names, ""
        if names and level == top:
            others = sorted(here - names.keys())
            more = f" and {len(others) - NAMED_FOLDERS} more" if len(others) > NAMED_FOLDERS else ""
            named = ", ".join(others[:NAMED_FOLDERS])
            doubt = f"the folder {', '.join(sorted(names))} has the name of a split, and {named}{more} beside it not"
    return None, {}, doubt


def _first_that_differ(folders: Mapping[str, Sequence[str]]) -> dict[str, str | None]:
    """Returns by path the first of its folders after those that all videos have in common."""
    given = {tuple(above) for above in folders.values() if above}
    common = min([_depth_in_common(given), *(len(above) - 1 for above in given)])
    return {path: above[common] if above else None for path, above in folders.items()}


def _depth_in_common(folders: Collection[Sequence[str]]) -> int:
    """Returns how many folders, from the first on, are the same in all of these."""
    together = [len(set(same)) == 1 for same in zip(*folders, strict=False)]
    return [*together, False].index(False)
