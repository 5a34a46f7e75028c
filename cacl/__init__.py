"""Cross-architecture contrastive learning of video encoders, straight from video files.

The encoders are ready for use in other code, trained or with random weights:

    encoder = cacl.load_encoder("runs/demo")
    model = cacl.create_model("r2plus1d18", width=0.5)

So is the loader, in any training loop:

    for batch in cacl.ClipLoader("path/to/videos", frames=16, size=112, batch_size=64):
        batch.views[0]  # float16 [B, 3, T, H, W]

The `register_...` functions add encoders, pairs, losses, layouts and augmentations of your own; see `cacl.registry`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cacl.checkpoints.encoders import load_encoder
    from cacl.loaders.clip_loader import ClipLoader
    from cacl.models.create import create_model, list_models
    from cacl.registry import (
        register_batch_transform,
        register_encoder,
        register_layout,
        register_loss,
        register_pairs,
    )

__version__ = "0.1.0"
__all__ = [
    "ClipLoader",
    "__version__",
    "create_model",
    "list_models",
    "load_encoder",
    "register_batch_transform",
    "register_encoder",
    "register_layout",
    "register_loss",
    "register_pairs",
]

_MODULES = {
    "ClipLoader": "cacl.loaders.clip_loader",
    "create_model": "cacl.models.create",
    "list_models": "cacl.models.create",
    "load_encoder": "cacl.checkpoints.encoders",
}
"""Where the public names lie; all others are in `cacl.registry`."""


def __getattr__(name: str) -> Any:
    """Imports what needs torch only when it is asked for, since `cacl --help` must not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module 'cacl' has no attribute {name!r}")
    return getattr(import_module(_MODULES.get(name, "cacl.registry")), name)
