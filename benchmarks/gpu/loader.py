"""The questions that the loader has for a GPU, answered in one run of under ten minutes, from videos it makes itself.

    python -m benchmarks.gpu.loader > benchmarks/results/gpu_loader.json

`--device cpu` is the rehearsal: what DALI can do on a CPU is done (VP9, and frames that PyAV decoded), and the rest is
told as skipped. Each question has a process of its own, so that one which raises, crashes the driver or hangs costs no
other its answer. `--out FILE` is written after each. Without NVDEC (in a container without the driver's video
libraries), a GPU still answers what it can, over frames that PyAV decoded. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from cacl.benchmarks.gpu.environment import CPU, MAX_SECONDS, Answer, Environment, answer_or_error
from cacl.benchmarks.gpu.questions import QUESTIONS
from cacl.benchmarks.harness import machine
from cacl.benchmarks.loader.command import PACKAGES
from cacl.config import Config, DataConfig, override

MIN_SECONDS = 5
"""No question is begun when fewer seconds are left."""


def _answer(connection: Connection[Any, Any], name: str, env: Environment) -> None:
    os.dup2(2, 1)  # Only the answers go to stdout.
    connection.send(answer_or_error(partial(QUESTIONS[name], env)))


def ask(name: str, env: Environment, limit: float) -> Answer:
    """Asks a question in a process of its own, which is ended after `limit` seconds."""
    # CUDA and threads do not outlive a fork: this process has imported torch, and never computes with it.
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, name, env))
    started = time.perf_counter()
    process.start()
    theirs.close()
    try:
        answer = ours.recv() if ours.poll(max(0, limit)) else {"error": f"took more than {limit:.0f} seconds"}
    except EOFError:
        process.join()
        answer = {"error": f"the process ended with {process.exitcode}"}
    # A driver that hangs while it is unloaded has answered all the same.
    process.join(5)
    process.kill()
    process.join()
    return {"question": (QUESTIONS[name].__doc__ or "").strip(), "seconds": time.perf_counter() - started} | answer


def describe_gpu() -> str | None:
    """Name, driver and memory of the GPU; None where nvidia-smi does not tell."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def without_folders(text: str) -> str:
    """The text with absolute paths cut down to the name of the file."""
    return re.sub(r"(?<![\w/.])/(?:[^\s/:'\"\\]+/)+", "", text)


def main() -> None:
    """Asks the questions and prints the answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=2.5, help="for each timing")
    parser.add_argument("--quick", action="store_true", help="few small clips: does it run at all?")
    parser.add_argument("--budget", type=float, default=570, help="seconds for all questions")
    parser.add_argument("--only", nargs="+", choices=list(QUESTIONS), help="these questions, and the videos")
    parser.add_argument("--out", type=Path, help="written after each question")
    args = parser.parse_args()
    cuda, quick = args.device == "cuda", args.quick
    seconds = min(args.seconds, 0.3) if quick else args.seconds
    batch = 2 if quick else 32 if cuda else 8
    small = ["clip.frames=8", "clip.size=64", "loader.prefetch=1"] if quick else []
    threads = min(16, len(os.sched_getaffinity(0)))
    config = override(Config(), [f"train.batch_size={batch}", f"loader.threads={threads}", *small])
    result: Answer = {
        "machine": machine.describe(PACKAGES) | {"cuda": torch.version.cuda, "gpu": describe_gpu()},
        "settings": {"device": args.device, "seconds": seconds, "quick": quick, "batch": batch}
        | {"clip": asdict(config.clip), "loader": asdict(config.loader)},
        "questions": {},
    }
    text = ""
    deadline = time.monotonic() + args.budget
    with tempfile.TemporaryDirectory(prefix="gpu_loader") as folder:
        env = Environment(
            folder=Path(folder),
            device=torch.device("cuda", 0) if cuda else CPU,
            seconds=seconds,
            quick=quick,
            config=replace(config, data=DataConfig(cache=f"{folder}/cache")),
        )
        wanted = ["videos", *args.only] if args.only else list(QUESTIONS)
        for name in dict.fromkeys(wanted):
            left = deadline - time.monotonic()
            answer = ask(name, env, min(MAX_SECONDS, left)) if left > MIN_SECONDS else {"skipped": "no time left"}
            result["questions"][name] = json.loads(without_folders(json.dumps(answer)))
            if name == "exact" and cuda and "exact" not in answer.get("prepared", {}):
                env = replace(env, nvdec=False)  # The questions that do not need it still have their answer.
            print(f"{name}: {json.dumps(result['questions'][name])[:200]}", file=sys.stderr)
            text = json.dumps(result, indent=1)
            if args.out:
                args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
