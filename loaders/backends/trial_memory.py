"""What a trial chose, kept on disk, so that the next start on this machine does not measure again.

There is one file for each driver, version of DALI, device, set of videos, and settings: JSON that says for what it
holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

import av
import torch

from cacl.config import Config
from cacl.files import atomic_write
from cacl.loaders.backends.select import Choice
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.scan_cache import cache_folder

DRIVER_VERSION_FILE = Path("/proc/driver/nvidia/version")
"""Where the driver of NVIDIA tells its version on Linux, also within containers."""
TRIAL_FORMAT = 1
"""Raise it when the trial judges otherwise."""

log = logging.getLogger(__name__)


class TrialMemory(NamedTuple):
    """The place of one outcome. It is lost where it cannot be written, or where it is damaged: that costs time only."""

    file: Path
    """The file that keeps the outcome."""
    holds_for: dict[str, str]
    """What the outcome depends on, by name. Empty: nothing is kept, since the driver does not tell its version."""

    def load(self) -> Choice | None:
        """Returns the outcome, or None where there is none. A damaged file is named in the log."""
        if not self.holds_for:
            return None
        try:
            kept = json.loads(self.file.read_bytes())
            if kept["holds_for"] == self.holds_for and kept["backend"] in ("cpu", "dali"):
                return Choice(kept["backend"], str(kept["reason"]))
        except OSError:
            return None
        except (ValueError, KeyError, TypeError):
            pass
        log.warning("%s: is damaged, so the backends of the loader are measured again", self.file)
        return None

    def save(self, choice: Choice) -> None:
        """Writes an outcome.

        Args:
            choice: The backend and why it was chosen.
        """
        if not self.holds_for:
            return
        kept = {"holds_for": self.holds_for, "backend": choice.name, "reason": choice.reason}
        with contextlib.suppress(OSError):  # Nothing is lost but time.
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.file, concurrent=True) as temporary:
                temporary.write_text(json.dumps(kept, indent=1), encoding="utf-8")


def open_memory(catalog: Catalog, config: Config, device: torch.device, batches: tuple[int, ...]) -> TrialMemory:
    """Finds the place of an outcome, in the folder of caches.

    Args:
        catalog: The videos.
        config: The settings. Those of `clip`, `augment` and `loader` count, and `data.cache` names the folder.
        device: The device that decodes.
        batches: The number of views, the size of a batch, and the number of processes on this machine.
    """
    driver = driver_version()
    settings = repr((config.clip, config.augment, config.loader, batches, os.cpu_count()))
    holds_for = {
        "trial": str(TRIAL_FORMAT),
        "driver": driver,
        "DALI": dali_version(),
        "PyAV": av.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "videos": catalog.fingerprint,
        "settings": hashlib.sha256(settings.encode()).hexdigest(),
    }
    name = hashlib.sha256(json.dumps(holds_for).encode()).hexdigest()[:16]
    return TrialMemory(cache_folder(config.data.cache) / f"{name}.trial", holds_for if driver else {})


def driver_version() -> str:
    """Returns the version of NVIDIA's driver, such as `570.86.15`, or "" where it is not told."""
    try:
        found = re.search(r"\s(\d+(\.\d+)+)\s", DRIVER_VERSION_FILE.read_text(encoding="utf-8"))
    except OSError:
        return ""
    return found[1] if found else ""


def dali_version() -> str:
    """Returns the version of DALI, or "" where there is none. It does not import DALI, which takes long."""
    names = r"nvidia[-_]dali([-_](nightly|weekly))?[-_]cuda\d+"
    return next((found.version for found in distributions() if re.fullmatch(names, found.name)), "")
