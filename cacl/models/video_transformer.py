"""The video transformer: one token per frame of the clip and of its shuffled copy, read as one sequence."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from cacl.config import Init, TransformerConfig
from cacl.errors import ConfigError
from cacl.models.frame_embedders import LightEmbedder, TimmEmbedder


class VideoTransformer(nn.Module):
    """Pre-norm blocks (Dosovitskiy et al., ICLR 2021) over [CLS, T frames, the same T frames in shuffled order].

    Each of the 2T + 1 tokens has a learned position.

    Args:
        config: The embedder of frames and the size of the transformer. The embedder `light` is always trained;
            `config.frozen` is for image models that come with weights.
        frames: T, the number of frames of a clip.
        init: `normal` draws the linear layers of the blocks and of the embedder as Dosovitskiy et al. do (truncated
            normal, standard deviation 0.02); `torch` leaves them as torch draws them.

    Raises:
        ConfigError: timm does not know the embedder, or weights are given to the embedder `light`.
        CheckpointError: The weights of the embedder cannot be read, or do not fit it.
    """

    num_features: int
    """The length of the feature vector, which is that of a token."""

    def __init__(self, config: TransformerConfig, frames: int, init: Init = "normal") -> None:
        super().__init__()
        width = config.width
        self.num_features = width
        self.embedder = _create_embedder(config)
        self.cls = nn.Parameter(torch.empty(width))
        self.positions = nn.Parameter(torch.empty(1 + 2 * frames, width))
        self.blocks = nn.Sequential(
            # nn.LayerNorm has an epsilon of 1e-5, as the one at the end has; timm's own would have 1e-6.
            *(
                Block(width, config.heads, mlp_ratio=4, qkv_bias=False, norm_layer=nn.LayerNorm)
                for _ in range(config.depth)
            )
        )
        self.norm = nn.LayerNorm(width)

        nn.init.trunc_normal_(self.cls, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)
        for module in (self.embedder.project, *self.blocks.modules()):
            if isinstance(module, nn.Linear) and init == "normal":
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, clips: Tensor, order: Tensor) -> Tensor:
        """Computes the feature vector of each clip and its shuffled copy.

        An embedder sees one frame at a time. The tokens of the shuffled copy are therefore a gather of those of the
        clip, and each frame is embedded once.

        Args:
            clips: Floats [B, 3, T, H, W], RGB in about [0, 1], with the frames in true order.
            order: Integers [B, T]. Frame i of the shuffled copy is frame order[i] of the clip.

        Returns:
            The CLS features, floats [B, width].
        """
        original = self.embed(clips)
        shuffled = original.gather(1, order.long().unsqueeze(-1).expand_as(original))
        return self.attend(original, shuffled)

    def embed(self, clips: Tensor) -> Tensor:
        """Turns each frame into a token, which does not know its position yet.

        Args:
            clips: Floats [B, 3, T, H, W], RGB in about [0, 1].

        Returns:
            Floats [B, T, width].
        """
        tokens = self.embedder(clips.transpose(1, 2).flatten(0, 1))
        return tokens.unflatten(0, (clips.shape[0], clips.shape[2]))

    def attend(self, original: Tensor, shuffled: Tensor) -> Tensor:
        """Runs the transformer over the tokens of a clip and of its shuffled copy.

        Args:
            original: Floats [B, T, width], the tokens of the frames in true order.
            shuffled: Floats [B, T, width], the tokens of the frames in shuffled order.

        Returns:
            The CLS features, floats [B, width].
        """
        cls = self.cls.expand(len(original), 1, -1)
        tokens = torch.cat([cls, original, shuffled], 1) + self.positions
        return self.norm(self.blocks(tokens)[:, 0])


def _create_embedder(config: TransformerConfig) -> LightEmbedder | TimmEmbedder:
    if config.embedder != "light":
        return TimmEmbedder(config.embedder, config.weights, config.frozen, config.width, normalize=config.normalize)
    if config.weights:
        raise ConfigError(
            f'model.transformer.weights = {config.weights!r}: embedder = "light" has no weights to load; '
            "leave it empty or name a timm model"
        )
    return LightEmbedder(config.width)
