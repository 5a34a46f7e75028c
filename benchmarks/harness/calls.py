"""Contenders that are a single call, and the roofline of a machine among them."""

from __future__ import annotations

import torch

from cacl.benchmarks.harness.comparison import Contender, ContenderRun
from cacl.benchmarks.harness.timing import Call, Roofline, seconds_of, warm_up
from cacl.errors import reason_of


class CallRun(ContenderRun[float]):
    """A call that is timed, once it is warm."""

    call: Call
    calls: int

    def __init__(self, contender: Contender[[], Call], device: torch.device) -> None:
        super().__init__(contender)
        self.device = device

    def check(self) -> str:
        """Prepares the call. There is nothing to compare it with."""
        self.call = self.contender.prepare()
        return ""

    def warm_up(self) -> None:
        """Calls it as often as a measurement will."""
        self.calls = warm_up(self.call, self.device)

    def measure(self) -> float:
        """Seconds of one call."""
        return seconds_of(self.call, self.calls, self.device)

    @property
    def values(self) -> list[float]:
        """Seconds of one call in each repeat."""
        return self.measurements

    def describe_error(self, error: Exception) -> str:
        """The first line of the message: compilers add many."""
        return reason_of(error).strip().partition("\n")[0]

    def release(self) -> None:
        """Lets go of the memory that the call holds."""
        self.call = lambda: None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


class RooflineRun(CallRun):
    """Work that this machine does as fast as it can. Nothing is faster than the best of many measurements of it."""

    def __init__(self, roofline: Roofline, device: torch.device) -> None:
        super().__init__(
            Contender(name=roofline.description, description="the roofline", prepare=lambda: roofline.call), device
        )
        self.work = roofline.work

    @property
    def rate(self) -> float:
        """Operations or bytes per second."""
        return self.work / min(self.measurements)
