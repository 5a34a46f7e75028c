"""The marks of the stages: in a trace they follow each other, and to training they change nothing."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from cacl import stages
from cacl.stages import ENCODERS, PREFIX, STAGES, stage
from cacl.training.train_state import TrainState
from tests.tiny import tiny_batch, tiny_config

OF_TRAINER = {"data", "log"}
"""The stages that the trainer marks around a step."""


def marks(recorded: profile) -> list[tuple[str, int, int]]:
    """The name, the start and the end of each mark, in the order in which they start."""
    events = [event for event in recorded.events() or [] if event.name.startswith(PREFIX)]
    ranges = [(event.name.removeprefix(PREFIX), event.time_range.start, event.time_range.end) for event in events]
    return sorted(ranges, key=lambda mark: mark[1])


def test_stages_of_a_step_follow_each_other_and_the_encoders_are_in_two_of_them() -> None:
    state = TrainState(tiny_config("unused"), 4, torch.device("cpu"))
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        state.train_step(tiny_batch(4), sync=True)
    found = marks(recorded)
    stages = [mark for mark in found if mark[0] in STAGES]
    assert [name for name, _, _ in stages] == [name for name in STAGES if name not in OF_TRAINER]
    assert all(end <= start for (_, _, end), (_, start, _) in pairwise(stages))
    inner = [mark for mark in found if mark[0] not in STAGES]
    assert [name for name, _, _ in inner] == [*ENCODERS, *ENCODERS]
    around = [[name for name, a, b in stages if a <= start and end <= b] for _, start, end in inner]
    assert around == [["query"], ["query"], ["keys"], ["keys"]]


def test_a_mark_breaks_no_graph_of_torch_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is compiled it is no mark of torch, of which the compiler would warn."""
    graphs = []
    monkeypatch.setattr(stages, "record_function", None)

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        graphs.append(graph)
        return graph.forward

    def marked(x: torch.Tensor) -> torch.Tensor:
        with stage("cnn"):
            return x.sin() + 1

    torch.compiler.reset()
    x = torch.rand(3)
    found = torch.compile(marked, backend=backend, fullgraph=True)(x)
    assert len(graphs) == 1
    with pytest.raises(TypeError):
        marked(x)
    assert torch.equal(found, x.sin() + 1)
