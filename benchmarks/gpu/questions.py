"""The questions that the loader has for a GPU, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Callable

from cacl.benchmarks.gpu import correctness_questions as correctness
from cacl.benchmarks.gpu import speed_questions as speed
from cacl.benchmarks.gpu.environment import Answer, Environment
from cacl.benchmarks.gpu.videos import videos

QUESTIONS: dict[str, Callable[[Environment], Answer]] = {
    question.__name__: question
    for question in (
        videos,
        correctness.exact,
        correctness.lifetime,
        speed.sizes,
        speed.views,
        correctness.colors,
        correctness.colors_after_another_size,
        speed.loaders,
        speed.training,
        speed.affinity,
        speed.parallelism,
        correctness.pixels,
        speed.augmentation,
        speed.memory,
        correctness.xvid,
        speed.from_the_start,
        correctness.strided_slices,
    )
}
"""What decides most comes first: there may not be time for all."""
