"""All problems of `cacl bench-kernels`.

What is said here of GPUs has not run on one yet.
"""

from __future__ import annotations

import torch

from cacl.benchmarks.kernels.augment_problem import augment_problem
from cacl.benchmarks.kernels.contrast_problems import contrast_problem, symmetric_problem
from cacl.benchmarks.kernels.edit_distance_problem import edit_distance_problem
from cacl.benchmarks.kernels.run import Problem


def problems(device: torch.device) -> list[Problem]:
    """The problems for a device. Those that decide most come first: there may not be time for all."""
    half, full = torch.bfloat16, torch.float32
    if device.type == "cpu":
        return [
            contrast_problem(device, full, 2048, 1, 2**16),
            contrast_problem(device, full, 256, 2, 2**16),
            symmetric_problem(device, full, 4096),
            edit_distance_problem(device, 65_536, 16),
            edit_distance_problem(device, 100_000, 64),
            augment_problem(device, 16, 16, (128, 170), 112, 112),
            augment_problem(device, 16, 16, (240, 320), 210, 112),
        ]
    return [
        contrast_problem(device, half, 2048, 1, 2**16),
        # These lie on the two sides of `contrast.MIN_KERNEL_LOGITS`.
        contrast_problem(device, full, 128, 1, 6400, with_unchosen_form=True),
        contrast_problem(device, full, 256, 1, 2**16, with_unchosen_form=True),
        augment_problem(device, 64, 16, (128, 170), 112, 112),
        edit_distance_problem(device, 65_536, 16),
        contrast_problem(device, full, 2048, 1, 2**16),
        symmetric_problem(device, half, 8192),
        augment_problem(device, 64, 16, (240, 320), 210, 112),
        symmetric_problem(device, full, 8192),
        contrast_problem(device, half, 128, 1, 6400, with_unchosen_form=True),
        contrast_problem(device, half, 256, 1, 2**16, with_unchosen_form=True),
        contrast_problem(device, half, 8192, 1, 2**16),
        edit_distance_problem(device, 100_000, 64),
        contrast_problem(device, full, 8192, 1, 2**16),
        contrast_problem(device, half, 2048, 1, 2**20),
        symmetric_problem(device, half, 32_768),
        symmetric_problem(device, full, 32_768),
        contrast_problem(device, full, 2048, 1, 2**20),
    ]
