"""Joins the shards of a prepared set: checks that each is finished, merges their logs, and writes the index.

Nothing is merged before all of it is in order. From then on the set is one that `prepare` goes on with; a join that was
killed is gone on with by the same call.
"""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from cacl.config import DataConfig
from cacl.errors import DataError, UsageError
from cacl.loaders.catalog.layouts.discover import discover_videos
from cacl.loaders.catalog.layouts.listing import Listing
from cacl.loaders.catalog.prepared_files import CONVERSION_LOG_NAME
from cacl.loaders.prepared.conversion_log import ConversionLog, SourceOutcome, read_header, write_merged
from cacl.loaders.prepared.finish import finish_set, splits_of_folds
from cacl.loaders.prepared.shard import Shard, find_shards
from cacl.loaders.prepared.summary import PrepareSummary
from cacl.loaders.prepared.target import clean_up, fault_of, target_errors
from cacl.loaders.prepared.transcode import TranscodeSettings

_ADDED_KEYS = ("format", "source", "shard")
"""The keys in the first line of a log that `ConversionLog` adds itself."""


def join(target: Path) -> PrepareSummary:
    """Makes one prepared set of its shards, the same one that a single `prepare` makes.

    The sources must be within reach, because labels and splits are read from them, and because those that changed since
    their shard was made are refused.

    Args:
        target: The folder of the prepared set, with the logs and the videos of all shards.

    Returns:
        What became of the sources.

    Raises:
        UsageError: The folder has no shards that are not joined.
        DataError: A shard is missing, is not finished, is at work, is made otherwise than the others, or does not fit
            the sources as they are now; or the target cannot be written.
    """
    target = Path(os.path.abspath(target.expanduser()))
    shards = find_shards(target)
    is_merged = (target / CONVERSION_LOG_NAME).is_file()
    if not shards:
        way_out = (
            "`cacl data prepare` goes on with it" if is_merged else "`cacl data prepare --shard 1/N` makes the first"
        )
        raise UsageError(f"{target}: has no shards to join; {way_out}")
    with target_errors(target):
        begun_with = read_header(target / shards[0].log_name) if is_merged else _common_header(target, shards)
    made_with = {key: value for key, value in begun_with.items() if key not in _ADDED_KEYS}
    settings = TranscodeSettings(**{field.name: made_with[field.name] for field in fields(TranscodeSettings)})
    source = DataConfig(root=made_with["data_root"], layout=made_with["layout"], fold=made_with["fold"])
    listing = discover_videos(source)
    splits = splits_of_folds(source, listing)
    with target_errors(target):
        if not is_merged:
            _merge(target, listing, shards, made_with, settings)
        log = ConversionLog(target, listing.root, asdict(settings))
    with log:
        _check_outcomes(target, listing, log.outcomes, made_with, [])
        clean_up(target, keeps_index=False)
        return finish_set(listing, splits, target, settings, log.outcomes, kept=log.outcomes)


def _common_header(target: Path, shards: Sequence[Shard]) -> dict[str, Any]:
    """Returns the first line that the logs of all shards have in common, apart from the shard."""
    ((count, _),) = Counter(shard.count for shard in shards).most_common(1)
    for shard in shards:
        if shard.count != count:
            raise DataError(
                f"{target}: holds shard {shard} beside those of {count}; remove {shard.log_name}, or the others"
            )
    headers = {shard: read_header(target / shard.log_name) for shard in shards}
    shared = [{key: value for key, value in header.items() if key != "shard"} for header in headers.values()]
    common = json.loads(Counter(json.dumps(header, sort_keys=True) for header in shared).most_common(1)[0][0])
    for shard, header in headers.items():
        for key, wanted in {**common, "shard": str(shard)}.items():
            if header.get(key) != wanted:
                raise DataError(
                    f"{target}: shard {shard} was made with {key} = {header.get(key)}, not {wanted}; remove "
                    f"{shard.log_name} and run `{_command(target, common, shard)}`"
                )
    for shard in (Shard(number, count) for number in range(1, count + 1)):
        if shard not in headers:
            raise DataError(f"{target}: shard {shard} is missing; run `{_command(target, common, shard)}`")
    return common


def _merge(
    target: Path, listing: Listing, shards: Sequence[Shard], made_with: Mapping[str, Any], settings: TranscodeSettings
) -> None:
    """Writes the log of the whole set from those of its shards, of which none may be at work."""
    outcomes: dict[str, SourceOutcome] = {}
    with ExitStack() as opened:
        for shard in shards:
            log = opened.enter_context(ConversionLog(target, listing.root, made_with, shard))
            outcomes |= {path: outcome for path, outcome in log.outcomes.items() if shard.takes(path)}
        _check_outcomes(target, listing, outcomes, made_with, shards)
        write_merged(target, listing.root, asdict(settings), [outcomes[path] for path in sorted(outcomes)])


def _check_outcomes(
    target: Path,
    listing: Listing,
    outcomes: Mapping[str, SourceOutcome],
    made_with: Mapping[str, Any],
    shards: Sequence[Shard],
) -> None:
    """Refuses outcomes that are not those of the sources as they are now. There are no shards once they are merged.

    Sources that could not be read are accepted as rejected ones, as at the end of an unsharded run.
    """
    for entry in listing.entries:
        outcome = outcomes.get(entry.path)
        fault = fault_of(listing.root, target, outcome) if outcome else "is not done yet"
        if fault:
            shard = next((shard for shard in shards if shard.takes(entry.path)), None)
            who = f"shard {shard} is not finished: " if shard else ""
            raise DataError(f"{target}: {who}{entry.path} {fault}; run `{_command(target, made_with, shard)}`")


def _command(target: Path, made_with: Mapping[str, Any], shard: Shard | None) -> str:
    """Returns the command that makes a shard, or goes on with the whole set."""
    words = ["cacl", "data", "prepare", made_with["data_root"], str(target)]
    for setting in fields(TranscodeSettings):
        words += [f"--{setting.name.replace('_', '-')}", str(made_with[setting.name])]
    defaults = DataConfig()
    for key in ("layout", "fold"):
        if made_with[key] != getattr(defaults, key):
            words += ["--set", f"data.{key}={made_with[key]}"]
    return shlex.join([*words, *(["--shard", str(shard)] if shard else [])])
