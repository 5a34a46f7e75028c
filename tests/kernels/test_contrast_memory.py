"""The memory that the contrast with a queue takes on a CPU, as a process of its own sees it."""

from __future__ import annotations

import os
import subprocess
import sys

NEEDED = """
import sys
import torch
import torch.nn.functional as F
from cacl.kernels.contrast import queue_contrast

def resident(what):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024

def ours(anchors, positives, queue):
    return queue_contrast(anchors, positives, queue, 0.07).loss

def plain(anchors, positives, queue):
    logits = anchors @ queue.T / 0.07
    return F.softplus(torch.logsumexp(logits, 1, keepdim=True) - (anchors[:, None] * positives).sum(2) / 0.07)

contrast = {"ours": ours, "plain": plain}[sys.argv[1]]

def drawn(anchors, keys):
    shapes = (anchors, 128), (anchors, 1, 128), (keys, 128)
    tensors = [F.normalize(torch.randn(shape), dim=-1) for shape in shapes]
    return tensors[0].requires_grad_(), tensors[1].requires_grad_(), tensors[2]

contrast(*drawn(8, 64)).mean().backward()  # loads what it needs of torch
inputs = drawn(512, 65536)
before = resident("VmRSS")
contrast(*inputs).mean().backward()
print(resident("VmHWM") - before)
"""
"""A script that prints the peak of its resident memory in MiB, less that with the inputs alone."""


ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "1000000"}
"""Gives each tensor above 1 MB back to the system when it is freed. Otherwise glibc keeps some of them in its heap, as
many as the addresses of the process happen to allow: between 37 and 104 MiB were seen where 35 are needed."""


def needed(contrast_of: str) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", NEEDED, contrast_of]
    done = subprocess.run(command, env=environment | ENVIRONMENT, check=True, capture_output=True, text=True)
    return float(done.stdout)


def test_memory_does_not_grow_with_anchors_times_keys() -> None:
    ours, plain = needed("ours"), needed("plain")
    print(f"512 anchors, 65536 keys of 128 dimensions: {ours:.0f} MiB, and {plain:.0f} the plain way")
    assert ours < 48, "two chunks of logits are 32, and all logits are 128"
    assert plain > 256
