"""What the release of Guo et al. (CVPR 2022) computes, written by hand from a description of it, as plainly as can be.

Nothing of cacl is imported. Whatever is random is an argument: which frames, which crop, which factors in which order.
The 3D CNNs take the number of channels of their first stage, 64 as published.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor, nn
from torch.nn import functional as F

# --- Which frames


def starts(length: int, frames: int = 16, interval: int = 2) -> list[int]:
    """Returns all starts that a training clip may have, and none for a video that is left out."""
    return list(range(length - (frames + interval * (frames - 1)) + 1))


def evaluation_frames(length: int, clips: int = 10, frames: int = 16, interval: int = 2) -> list[list[int]]:
    """Returns the frame numbers of each clip of an evaluation."""
    found = []
    for start in np.linspace(0, length - frames * interval, clips):
        first = max(int(start), 0)
        numbers = [n for n in range(first, first + frames * interval - 1, interval) if n < length]
        found.append(numbers if len(numbers) == frames else list(range(first, first + frames)))
    return found


# --- What a view looks like


def view(
    frames: np.ndarray,
    *,
    resize: tuple[int, int] = (128, 171),
    size: int = 112,
    top: int,
    left: int,
    jitter: Sequence[tuple[str, float]] = (),
    grey: bool = False,
    flip: bool = False,
) -> Tensor:
    """Turns frames, uint8 [T, H, W, 3], into a view, float32 [3, T, size, size] in [0, 1]."""
    seen = []
    for frame in frames:
        image = Image.fromarray(frame)
        image = image.resize((resize[1], resize[0]), Image.Resampling.BILINEAR)
        image = image.crop((left, top, left + size, top + size))
        for step, factor in jitter:
            image = adjusted(image, step, factor)
        if grey:
            image = image.convert("L").convert("RGB")
        if flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        seen.append(np.array(image))
    return torch.from_numpy(np.stack(seen)).permute(3, 0, 1, 2).float() / 255


def adjusted(image: Image.Image, step: str, factor: float) -> Image.Image:
    if step == "brightness":
        return ImageEnhance.Brightness(image).enhance(factor)
    if step == "contrast":
        return ImageEnhance.Contrast(image).enhance(factor)
    if step == "saturation":
        return ImageEnhance.Color(image).enhance(factor)
    assert step == "hue"
    hue, saturation, value = (np.array(channel) for channel in image.convert("HSV").split())
    hue = ((hue.astype(int) + int(factor * 255)) % 256).astype(np.uint8)
    return Image.merge("HSV", [Image.fromarray(channel) for channel in (hue, saturation, value)]).convert("RGB")


def shuffled(clip: Tensor, order: Sequence[int]) -> Tensor:
    """Returns a clip [3, T, H, W] with its frames in this order."""
    return torch.stack([clip[:, frame] for frame in order], 1)


# --- The 3D CNNs

Three = tuple[int, int, int]  # frames, height, width


class C3D(nn.Module):
    def __init__(self, base: int = 64) -> None:
        super().__init__()
        a, b, c, d = base, 2 * base, 4 * base, 8 * base
        self.layers = nn.ModuleList()
        for inputs, outputs in ((3, a), (a, b), (b, c), (c, c), (c, d), (d, d), (d, d), (d, d)):
            convolution = nn.Conv3d(inputs, outputs, kernel_size=3, padding=1)
            self.layers.append(nn.Sequential(convolution, nn.BatchNorm3d(outputs), nn.ReLU()))

    def forward(self, x: Tensor) -> Tensor:
        pools = {0: (1, 2, 2), 1: (2, 2, 2), 3: (2, 2, 2), 5: (2, 2, 2)}
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number in pools:
                x = F.max_pool3d(x, pools[number])
        return x.mean((2, 3, 4))


class Convolution(nn.Module):
    """A convolution over time and space at once."""

    def __init__(self, inputs: int, outputs: int, kernel: Three, stride: Three) -> None:
        super().__init__()
        t, h, w = kernel
        self.whole = nn.Conv3d(inputs, outputs, (t, h, w), stride, (t // 2, h // 2, w // 2), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.whole(x)


class FactorisedConvolution(nn.Module):
    """A convolution over space, followed by one over time."""

    def __init__(self, inputs: int, outputs: int, kernel: Three, stride: Three) -> None:
        super().__init__()
        t, h, w = kernel
        middle = math.floor(t * h * w * inputs * outputs / (h * w * inputs + t * outputs))
        self.space = nn.Conv3d(inputs, middle, (1, h, w), (1, stride[1], stride[2]), (0, h // 2, w // 2), bias=False)
        self.norm = nn.BatchNorm3d(middle)
        self.time = nn.Conv3d(middle, outputs, (t, 1, 1), (stride[0], 1, 1), (t // 2, 0, 0), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.time(F.relu(self.norm(self.space(x))))


class Block(nn.Module):
    def __init__(self, convolution: type[nn.Module], inputs: int, outputs: int, halves: bool) -> None:
        super().__init__()
        stride: Three = (2, 2, 2) if halves else (1, 1, 1)
        self.first = convolution(inputs, outputs, (3, 3, 3), stride)
        self.first_norm = nn.BatchNorm3d(outputs)
        self.second = convolution(outputs, outputs, (3, 3, 3), (1, 1, 1))
        self.second_norm = nn.BatchNorm3d(outputs)
        self.halves = halves
        if halves:
            self.shortcut = convolution(inputs, outputs, (1, 1, 1), stride)
            self.shortcut_norm = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.first_norm(self.first(x)))
        residual = self.second_norm(self.second(residual))
        if self.halves:
            x = self.shortcut_norm(self.shortcut(x))
        return F.relu(x + residual)


class ResNet(nn.Module):
    """R3D with whole convolutions, and R(2+1)D with factorised ones."""

    def __init__(self, convolution: type[nn.Module], depths: Sequence[int], base: int = 64) -> None:
        super().__init__()
        self.stem = convolution(3, base, (3, 7, 7), (1, 2, 2))
        self.stem_norm = nn.BatchNorm3d(base)
        self.blocks = nn.ModuleList()
        inputs = base
        for stage, depth in enumerate(depths):
            outputs = base * 2**stage
            for number in range(depth):
                self.blocks.append(Block(convolution, inputs, outputs, halves=stage > 0 and number == 0))
                inputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return x.mean((2, 3, 4))


def cnn(name: str, base: int = 64) -> nn.Module:
    if name == "c3d":
        return C3D(base)
    if name == "r3d34":
        return ResNet(Convolution, (3, 4, 6, 3), base)
    if name == "r3d10":
        return ResNet(Convolution, (1, 1, 1, 1), base)
    assert name == "r2plus1d10_official"
    return ResNet(FactorisedConvolution, (1, 1, 1, 1), base)


# --- The video transformer


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.qkv(x).chunk(3, dim=-1)
        each = x.shape[-1] // self.heads
        seen = []
        for head in range(self.heads):
            part = slice(head * each, (head + 1) * each)
            weights = queries[..., part] @ keys[..., part].transpose(1, 2) / math.sqrt(each)
            seen.append(weights.softmax(-1) @ values[..., part])
        return self.out(torch.cat(seen, -1))


class TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-5)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-5)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """The video transformer. `backbone` is a frozen image model from frames [N, 3, H, W] to [N, features]."""

    def __init__(
        self, backbone: nn.Module, features: int, frames: int = 16, width: int = 768, depth: int = 6, heads: int = 6
    ) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(width))
        self.positions = nn.Parameter(torch.zeros(1 + 2 * frames, width))
        self.backbone = [backbone]  # in a list: neither trained nor copied
        self.project = nn.Linear(features, width)
        self.blocks = nn.ModuleList([TransformerBlock(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-5)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Embeds two clips [B, 3, T, H, W] as [B, width]. Their pixels are not normalised by mean and deviation."""
        (backbone,) = self.backbone
        backbone.eval()
        outputs = []
        for one, other in zip(first, second, strict=True):
            frames = torch.cat([one.transpose(0, 1), other.transpose(0, 1)])  # [2T, 3, H, W]
            with torch.no_grad():
                features = backbone(frames)
            tokens = torch.cat([self.cls[None], self.project(features)]) + self.positions
            x = tokens[None]
            for block in self.blocks:
                x = block(x)
            outputs.append(self.norm(x)[0, 0])
        return torch.stack(outputs)


# --- The method


class Encoders(nn.Module):
    def __init__(self, cnn: nn.Module, features: int, transformer: Transformer, width: int, embedding: int) -> None:
        super().__init__()
        self.cnn = cnn
        self.cnn_head = nn.Linear(2 * features, embedding)
        self.transformer = transformer
        self.transformer_head = nn.Linear(width, embedding)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the unit embeddings of two clips by the CNN and by the transformer."""
        features = torch.cat([self.cnn(first), self.cnn(second)], 1)
        f = self.cnn_head(features)
        t = self.transformer_head(self.transformer(first, second))
        return f / f.norm(dim=1, keepdim=True), t / t.norm(dim=1, keepdim=True)


def contrast(f_q: Tensor, t_q: Tensor, f_k: Tensor, t_k: Tensor, queue: Tensor, temperature: float = 0.07) -> Tensor:
    """Returns the mean loss of four pairs. All have the negatives of the CNN's query, and no positive is in the
    denominator of another."""
    losses = []
    for i in range(len(f_q)):
        negatives = sum(torch.exp(f_q[i] @ key / temperature) for key in queue)
        for one, other in ((f_q, f_k), (f_q, t_q), (f_q, t_k), (t_q, t_k)):
            positive = torch.exp(one[i] @ other[i] / temperature)
            losses.append(-torch.log(positive / (positive + negatives)))
    return sum(losses) / len(losses)  # type: ignore[return-value]  # a sum of tensors


def learning_rate(epoch: int, epochs: int = 300, lr: float = 0.01) -> float:
    """Returns the rate of an epoch. Epochs count from 1."""
    return lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


class Training:
    """The query encoders, their momentum copies, the queue, and SGD written by hand."""

    def __init__(self, encoders: Encoders, queue: Tensor, momentum: float = 0.999) -> None:
        self.query, self.key = encoders, copy.deepcopy(encoders)
        self.queue, self.pointer, self.momentum = queue.clone(), 0, momentum
        self.velocity: dict[str, Tensor] = {}

    def ema_update(self) -> None:
        """Moves the momentum copies. It runs at the beginning of each step, and changes nothing in the first one."""
        with torch.no_grad():
            for mine, theirs in zip(self.key.parameters(), self.query.parameters(), strict=True):
                mine.copy_(self.momentum * mine + (1 - self.momentum) * theirs)

    def loss(self, query: Tensor, key: Tensor, orders: Sequence[Sequence[int]]) -> Tensor:
        """Returns the loss of two views [B, 3, T, H, W] of the same clips. The keys enter the queue."""
        query_copy = torch.stack([shuffled(clip, order) for clip, order in zip(query, orders, strict=True)])
        key_copy = torch.stack([shuffled(clip, order) for clip, order in zip(key, orders, strict=True)])
        self.ema_update()
        f_q, t_q = self.query(query, query_copy)
        with torch.no_grad():
            f_k, t_k = self.key(key_copy, key)  # the other way round
        loss = contrast(f_q, t_q, f_k, t_k, self.queue)
        self.queue = self.queue.clone()
        for new in (*f_k, *t_k):
            self.queue[self.pointer] = new
            self.pointer = (self.pointer + 1) % len(self.queue)
        return loss

    def step(self, loss: Tensor, lr: float, momentum: float = 0.9, weight_decay: float = 1e-4) -> None:
        for p in self.query.parameters():
            p.grad = None
        loss.backward()
        with torch.no_grad():
            for name, p in self.query.named_parameters():
                assert p.grad is not None
                gradient = p.grad + weight_decay * p
                self.velocity[name] = momentum * self.velocity[name] + gradient if name in self.velocity else gradient
                p -= lr * self.velocity[name]
