"""Where the scalars of a training go at its logging steps: to its sinks, and to the console."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType

from cacl.config import Config
from cacl.reporting.console import Console
from cacl.reporting.sinks.select import open_sinks

log = logging.getLogger(__name__)


class ScalarLog:
    """Writes the scalars of a run to its sinks and to the console.

    On a terminal the console shows them behind the progress bar, elsewhere as one line for each logging step.
    """

    def __init__(self, config: Config, console: Console, *, first_step: int, steps: int) -> None:
        """Opens the log of a run.

        Args:
            config: The configuration of the run.
            console: The open console. Where it is not enabled, no sink is opened, and nothing is written.
            first_step: Steps that were taken before this process began.
            steps: Steps of the whole run.

        Raises:
            CaclError: A sink cannot be opened.
        """
        self.console, self.first_step, self.steps = console, first_step, steps
        self._sinks = open_sinks(config, first_step) if console.enabled else []
        self._started = time.monotonic()
        console.progress("training", first_step, steps)

    def __enter__(self) -> ScalarLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as closing:  # closes the others, too, if one fails
            for sink in self._sinks:
                closing.callback(sink.close)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes what was measured since the last logging step.

        Args:
            step: Steps taken so far, of the whole run.
            scalars: Means by name, with "loss", "epoch", "clips_per_second" and "data_wait_share" among them.
        """
        summary = summarize(scalars)
        self.console.progress("training", step, self.steps, summary)
        if not self.console.shows_bars:
            seconds_per_step = (time.monotonic() - self._started) / (step - self.first_step)
            seconds_left = seconds_per_step * (self.steps - step)
            log.info(f"step {step}/{self.steps}, epoch {scalars['epoch']:.1f}: {summary}, {seconds_left:.0f} s left")
        for sink in self._sinks:
            sink.write(step, scalars)


def summarize(scalars: Mapping[str, float]) -> str:
    """Returns the scalars that are worth watching, as a part of a line.

    Args:
        scalars: What `ScalarLog.write` takes. The contrast, the order and the skipped clips may be absent.
    """
    similarities = [value for name, value in scalars.items() if name.startswith("similarity/")]
    parts = [f"loss {scalars['loss']:.3f}"]
    if similarities:
        parts += [f"contrast {scalars['contrast']:.3f}", f"positives {sum(similarities) / len(similarities):.2f}"]
    if "order_accuracy" in scalars:
        parts += [f"order {scalars['order']:.3f}", f"order accuracy {scalars['order_accuracy']:.2f}"]
    if "accuracy" in scalars:
        parts.append(f"accuracy {scalars['accuracy']:.2f}")
    if "val_accuracy" in scalars:
        parts.append(f"validation accuracy {scalars['val_accuracy']:.2f}")
    parts += [
        f"k-NN {name.removeprefix('knn_accuracy/')} {value:.2f}"
        for name, value in scalars.items()
        if name.startswith("knn_accuracy/")
    ]
    parts += [f"{scalars['clips_per_second']:.1f} clips/s", f"data wait {scalars['data_wait_share']:.0%}"]
    if "clips_skipped" in scalars:
        parts.append(f"skipped {scalars['clips_skipped']:.0f}")
    return ", ".join(parts)
