"""The configuration of a run: read from TOML, checked at once, and written back in full.

    config = load("demo", overrides=["optim.lr=0.1"])

`schema` and `data_schema` have the keys, each with its meaning beside it; `section` makes a section of a class;
`bounds` has the numbers that keys take; `names` checks values that are names in a registry; `rules` has what
contradicts what; `loading` reads and writes; `recipes` finds what is installed by name; `reference` tells all of the
keys to people.
An unknown key is an error that names the nearest known one.
"""

from cacl.config.data_schema import AugmentConfig, ClipConfig, DataConfig, LoaderConfig, RootConfig
from cacl.config.loading import differences, from_dict, load, load_given, override, replace, to_dict, to_toml
from cacl.config.schema import (
    Config,
    ContrastConfig,
    FinetuneConfig,
    Init,
    ModelConfig,
    OptimConfig,
    RetrievalConfig,
    TrainConfig,
    TransformerConfig,
)

__all__ = [
    "AugmentConfig",
    "ClipConfig",
    "Config",
    "ContrastConfig",
    "DataConfig",
    "FinetuneConfig",
    "Init",
    "LoaderConfig",
    "ModelConfig",
    "OptimConfig",
    "RetrievalConfig",
    "RootConfig",
    "TrainConfig",
    "TransformerConfig",
    "differences",
    "from_dict",
    "load",
    "load_given",
    "override",
    "replace",
    "to_dict",
    "to_toml",
]
