"""What torch.compile makes of the problems of the kernel benchmark."""

import pytest
import torch

from cacl.benchmarks.kernels.contrast_problems import contrast_problem, symmetric_problem
from cacl.benchmarks.kernels.edit_distance_problem import edit_distance_problem
from cacl.benchmarks.kernels.run import COMPILED
from tests.benchmarks.kernels.small import CPU


@pytest.mark.parametrize("operation", ["contrast", "symmetric", "edit-distance"])
def test_torch_compile_is_right(operation: str) -> None:
    """It is checked like the others; the smallest problem of each operation."""
    tiniest = {
        "contrast": contrast_problem(CPU, torch.float32, 5, 1, 30),
        "symmetric": symmetric_problem(CPU, torch.float32, 6),
        "edit-distance": edit_distance_problem(CPU, 5, 4),
    }[operation]
    task = tiniest.make()
    (compiled,) = (each for each in task.contenders if each.name == COMPILED)
    errors = task.errors(compiled.prepare()())
    assert compiled.limits.keys() <= errors.keys()
    assert all(errors[name] <= limit for name, limit in compiled.limits.items()), errors
