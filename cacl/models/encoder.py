"""What an encoder has, whether it is of this package or of another."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn


class Encoder(nn.Module):
    """A network that turns clips into feature vectors. It need not be a subclass of this to be registered.

    It is made of a `cacl.config.Config`, from which it may take `model.width`, `model.init` and the size of a clip.
    What stands in `model.cnn` is called with clips alone, once for the clip and once for its shuffled copy. A
    method `layer_groups()` that returns its parameters as a dictionary by group of layers, from the input to the
    output, lets fine-tuning give each group a learning rate. Without it, the encoder is one group. Losses
    that compare feature maps (`model.order_head`) need two more methods: `forward_stages(clips)`, which returns the
    maps [B, C, T', H', W'] of all stages from the input on, and `pool(feature_map)`, which makes the feature vector of
    the last one. A method `set_grad_checkpointing(enable=True)`, as timm's models have it, lets
    `train.activation_checkpointing` save memory; `cacl.models.recompute` has what it can call.
    """

    num_features: int
    """F, the length of the feature vector."""

    @abstractmethod
    def forward_features(self, clips: Tensor) -> Tensor:
        """Computes what stands before the pooling.

        Args:
            clips: Floats [B, 3, T, H, W], RGB in about [0, 1].

        Returns:
            A feature map, floats [B, C, T', H', W'], or tokens, floats [B, N, C].
        """

    @abstractmethod
    def forward(self, clips: Tensor, order: Tensor | None = None) -> Tensor:
        """Computes the feature vector of each clip.

        Args:
            clips: Floats [B, 3, T, H, W], RGB in about [0, 1], with the frames in true order.
            order: Integers [B, T], or None for the true order. Frame i of the shuffled copy is frame order[i] of the
                clip. An encoder that looks at one clip at a time, as a 3D CNN does, ignores it.

        Returns:
            Floats [B, F].
        """
