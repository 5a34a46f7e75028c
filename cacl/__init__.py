"""Cross-architecture contrastive learning of video encoders, straight from video files.

The encoders are ready for use in other code, trained or with random weights:

    encoder = cacl.load_encoder("runs/demo")
    model = cacl.create_model("r2plus1d18", width=0.5)

So is the loader, in any training loop:

    for batch in cacl.ClipLoader("path/to/videos", frames=16, size=112, batch_size=64):
        batch.views[0]  # float16 [B, 3, T, H, W]
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cacl.checkpoints.encoders import load_encoder
    from cacl.loaders.clip_loader import ClipLoader
    from cacl.models.registry import create_model

__version__ = "0.1.0"
__all__ = ["ClipLoader", "__version__", "create_model", "load_encoder"]


def __getattr__(name: str) -> Any:
    """Imports what needs torch only when it is asked for, since `cacl --help` must not wait for torch."""
    if name == "ClipLoader":
        from cacl.loaders.clip_loader import ClipLoader

        return ClipLoader
    if name == "create_model":
        from cacl.models.registry import create_model

        return create_model
    if name == "load_encoder":
        from cacl.checkpoints.encoders import load_encoder

        return load_encoder
    raise AttributeError(f"module 'cacl' has no attribute {name!r}")
