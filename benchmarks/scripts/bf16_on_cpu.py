"""Do weight gradients of 3D convolutions reproduce on this CPU?

    python benchmarks/scripts/bf16_on_cpu.py > benchmarks/results/bf16_on_cpu.json

In bfloat16 they do not, which is the reason why training in bf16 is refused on CPUs.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path

import torch
from torch import nn

REPEATS = 8
LAYERS = {
    "stem": ((3, 16, (3, 7, 7), (1, 2, 2)), (32, 3, 8, 56, 56)),
    "stage 1": ((16, 16, 3, 1), (32, 16, 8, 28, 28)),
    "stage 2": ((32, 32, 3, 1), (32, 32, 4, 14, 14)),
    "stage 3": ((64, 64, 3, 1), (32, 64, 2, 7, 7)),
    "stage 4": ((128, 128, 3, 1), (32, 128, 1, 4, 4)),
}
"""The layers of R3D-10 at width 0.25 on 8 frames of 56 pixels: (channels in, channels out, kernel, stride), and the
shape [B, C, T, H, W] of the input."""


def different_gradients(layer: str, bf16: bool) -> int:
    """Counts the different weight gradients that REPEATS identical backward passes give."""
    (channels, out, kernel, stride), shape = LAYERS[layer]
    torch.manual_seed(0)
    padding = tuple(k // 2 for k in kernel) if isinstance(kernel, tuple) else kernel // 2
    convolution = nn.Conv3d(channels, out, kernel, stride, padding, bias=False)
    x = torch.rand(shape)
    gradients = set()
    for _ in range(REPEATS):
        convolution.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = convolution(x)
        y.float().square().sum().backward()
        assert convolution.weight.grad is not None
        gradients.add(convolution.weight.grad.numpy().tobytes())
    return len(gradients)


def cpu_name() -> str:
    """The model of the processor."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip()


if __name__ == "__main__":
    result = {
        "what": f"different weight gradients in {REPEATS} identical backward passes",
        "bf16": {layer: different_gradients(layer, bf16=True) for layer in LAYERS},
        "fp32": {layer: different_gradients(layer, bf16=False) for layer in LAYERS},
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
    print(json.dumps(result, indent=2))
