"""Everything that a configuration chooses by name: which names there are, and where each is defined.

A name stands for `module:attribute`, which is imported when it is used. So a configuration is checked, and its keys are
listed, without importing torch. Other packages add names of their own:

    @cacl.register_encoder("tiny")
    class Tiny(torch.nn.Module): ...

Such a module is found by `--import MODULE` on the command line, by an `import` in a script, or, once it is installed,
by an entry point of the group `cacl.plugins`. CONTRIBUTING.md shows it step by step.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, TypeVar

from cacl.errors import ConfigError, UsageError, reason_of

log = logging.getLogger(__name__)

T = TypeVar("T")

PLUGIN_GROUP = "cacl.plugins"
"""The group of the entry points by which installed packages name the modules that register something."""

_plugins_are_loaded = False


class Registry:
    """The names of one kind of thing.

    Args:
        kind: What the names stand for, for messages.
        own: The names that this package defines, each with its `module:attribute`.
    """

    def __init__(self, kind: str, own: Mapping[str, str]) -> None:
        self.kind = kind
        self._own = frozenset(own)
        self._targets: dict[str, Any] = dict(own)

    def register(self, name: str, target: Any) -> None:
        """Adds a name.

        Args:
            name: The name that configurations choose it by.
            target: What it stands for, or `module:attribute`, which is imported when it is used.

        Raises:
            ConfigError: The name stands for something else already.
        """
        old = self._targets.setdefault(name, target)
        if old is not target and _described(old) != _described(target):
            raise ConfigError(
                f"{name}: {_described(old)} and {_described(target)} have the same name ({self.kind}); rename one"
            )

    def names(self) -> list[str]:
        """Returns all names: those of this package in its own order, then those of others."""
        load_plugins()
        return list(self._targets)

    def is_own(self, name: str) -> bool:
        """Whether a name is one that this package defines."""
        return name in self._own

    def problem(self, name: str, words: Sequence[str] = ()) -> str:
        """Returns what is wrong with a name and what to do about it, or "" for a name that stands for something.

        Args:
            name: The name.
            words: What may stand in the place of a name.
        """
        known = [*words, *self.names()]
        if name in known:
            return ""
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'};"
        return f"no such {self.kind}; {hint} --import MODULE brings those that a module registers"

    def load(self, name: str) -> Any:
        """Returns what a name stands for.

        Raises:
            ConfigError: There is no such name.
        """
        if problem := self.problem(name):
            raise ConfigError(f"{name}: {problem}")
        target = self._targets[name]
        if not isinstance(target, str):
            return target
        module, _, attribute = target.partition(":")
        return getattr(importlib.import_module(module), attribute)


ENCODERS = Registry(
    "encoder",
    {
        "c3d": "cacl.models.cnn3d:c3d",
        "r3d10": "cacl.models.cnn3d:r3d10",
        "r3d18": "cacl.models.cnn3d:r3d18",
        "r3d34": "cacl.models.cnn3d:r3d34",
        "r2plus1d10": "cacl.models.cnn3d:r2plus1d10",
        "r2plus1d10_official": "cacl.models.cnn3d:r2plus1d10_official",
        "r2plus1d18": "cacl.models.cnn3d:r2plus1d18",
        "video_transformer": "cacl.models.video_transformer:video_transformer",
    },
)
"""Functions that make an encoder of a `Config`. `cacl.models.encoder` says what an encoder has."""

PAIRS = Registry(
    "choice of pairs",
    {name: f"cacl.method.pairs:{name.upper()}" for name in ("cross", "official", "within", "cnn", "transformer")},
)
"""The pairs of embeddings that attract each other: sequences of `cacl.method.pairs.Pair`."""

LOSSES = Registry("loss", {"contrast": "cacl.method.losses:ContrastLoss", "order": "cacl.method.losses:OrderLoss"})
"""Functions that make a `cacl.method.losses.Loss` of a `Config`."""

LAYOUTS = Registry(
    "layout",
    {
        "ucf101": "cacl.loaders.catalog.layouts.ucf101:LAYOUT",
        "hmdb51": "cacl.loaders.catalog.layouts.hmdb51:LAYOUT",
        "kinetics": "cacl.loaders.catalog.layouts.kinetics:LAYOUT",
        "csv": "cacl.loaders.catalog.layouts.csv_lists:LAYOUT",
        "classes": "cacl.loaders.catalog.layouts.classes:LAYOUT",
        "folder": "cacl.loaders.catalog.layouts.folder:LAYOUT",
    },
)
"""`cacl.loaders.catalog.layouts.layout.Layout`s: the forms that data sets have on disk, in the order in which `auto`
tries them."""

BATCH_TRANSFORMS = Registry("batch transform", {})
"""Functions (views [B, 3, T, H, W], one RandomStream for each clip) -> views of the same shape, on the device."""

BACKENDS = Registry("backend", {name: f"cacl.loaders.backends.{name}:build" for name in ("cpu", "dali", "reference")})
"""Functions (catalog, config, device, threads) that make what turns plans into batches."""

LOGGERS = Registry(
    "logger",
    {
        "wandb": "cacl.reporting.sinks.wandb_sink:WandbSink",
        "trackio": "cacl.reporting.sinks.trackio_sink:TrackioSink",
    },
)
"""`cacl.reporting.sinks.sink.ScalarSink`s, each by the name of the package that it needs."""


def register_encoder(name: str) -> Callable[[T], T]:
    """Registers an encoder, which `model.cnn` and `cacl.create_model` then know by its name.

    It decorates a class or a function that takes a `cacl.config.Config` and gives a module; `cacl.models.encoder` says
    what the module has.

    Args:
        name: The name that configurations choose it by.
    """
    return _decorator(ENCODERS, name)


def register_pairs(name: str, pairs: Any) -> None:
    """Registers a choice of pairs, which `contrast.pairs` then knows by its name.

    Args:
        name: The name that configurations choose it by.
        pairs: A sequence of `cacl.method.pairs.Pair`, or `module:attribute`.
    """
    PAIRS.register(name, pairs)


def register_loss(name: str) -> Callable[[T], T]:
    """Registers a loss, to which the section `losses` can then give a weight.

    It decorates a class or a function that takes a `cacl.config.Config` and gives a `cacl.method.losses.Loss`.

    Args:
        name: The name that configurations choose it by, under which its value is logged, too.
    """
    return _decorator(LOSSES, name)


def register_layout(name: str, layout: Any) -> None:
    """Registers a layout, which `data.layout` then knows by its name. `auto` tries it before those of this package.

    Args:
        name: The name that configurations choose it by.
        layout: A `cacl.loaders.catalog.layouts.layout.Layout`, or `module:attribute`.
    """
    LAYOUTS.register(name, layout)


def register_batch_transform(name: str) -> Callable[[T], T]:
    """Registers an augmentation of whole batches, which `augment.batch_transforms` then knows by its name.

    It decorates a function (views, streams) -> views. The views are float16 [B, 3, T, H, W], RGB in about [0, 1], on
    the device that trains; the streams are one `cacl.loaders.sampling.rng.RandomStream` for each of the B clips. What
    is drawn from them depends neither on the other clips of a batch nor on the number of ranks.

    Args:
        name: The name that configurations choose it by.
    """
    return _decorator(BATCH_TRANSFORMS, name)


def import_plugin(name: str) -> None:
    """Imports a module that registers something. It may lie in the working directory.

    Args:
        name: The dotted name of the module.

    Raises:
        UsageError: There is no such module.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        if not all(map(str.isidentifier, name.split("."))):
            raise ModuleNotFoundError(name=name)
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # The module is there, and lacks another one: its author needs to see where.
        raise UsageError(
            f"--import {name}: there is no such module here or among the installed packages; name it as Python's "
            "import does, without .py"
        ) from None


def load_plugins() -> None:
    """Imports the modules that installed packages name as entry points. Later calls do nothing."""
    global _plugins_are_loaded
    if _plugins_are_loaded:
        return
    _plugins_are_loaded = True  # A plugin may ask for names while it is imported.
    for entry in entry_points(group=PLUGIN_GROUP):
        try:
            entry.load()
        except Exception as error:
            package = entry.dist.name if entry.dist else entry.value
            log.warning(
                "the plugin %s of %s is left out, since importing %s failed: %s",
                entry.name, package, entry.value, reason_of(error),
            )  # fmt: skip


def _decorator(registry: Registry, name: str) -> Callable[[T], T]:
    def register(target: T) -> T:
        registry.register(name, target)
        return target

    return register


def _described(target: Any) -> str:
    """Returns where something is defined, which is what tells one from another after a module is reloaded."""
    if isinstance(target, str):
        return target
    return f"{getattr(target, '__module__', '?')}:{getattr(target, '__qualname__', repr(target))}"
