"""What a layout consists of: how it is recognised, and how labels and splits are read from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cacl.loaders.catalog.layouts.listing import LayoutResult
from cacl.loaders.catalog.layouts.search import FolderContents


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A form in which data sets lie on disk. `cacl.registry` names all of them."""

    recognise: Callable[[FolderContents], str]
    """Returns what shows that the contents have this layout, such as the path of a list; "" if nothing does. It may
    raise DataError where the contents leave a choice that is not to be made in silence."""
    read: Callable[[FolderContents, int], LayoutResult]
    """Reads labels and splits. The number is that of the official fold: data sets such as UCF101 publish several
    divisions into train and test. It raises DataError where lists are absent, damaged or contradictory."""
    is_published_set: bool = False
    """Whether lists of this layout come with one published data set: those of two sets in one folder are refused."""
    fold_lists: str | None = None
    """A regular expression, with a group `fold`, for the names of the lists that the layout reads line by line, of
    which there are some for each official fold. None for a layout without numbered folds."""
    root_may_be_list: bool = False
    """Whether data.root may be a list of this layout instead of a folder."""
