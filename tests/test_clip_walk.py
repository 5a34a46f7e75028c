"""The way of one clip, as docs/architecture.md tells it, is the way that it takes."""

import os
import re
import subprocess
import sys

from tests.launch import ROOT


def test_the_page_names_the_files_that_a_clip_passes() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    section = page.partition("## The way of one clip")[2].partition("\n## ")[0]
    passed = re.findall(r"^\| `(\S+\.py)` \|", section, re.MULTILINE)
    helping = re.findall(r"`(\S+/\S+\.py)`", section.partition("Ten more files")[2].partition("\n\n")[0])
    assert (len(passed), len(helping)) == (18, 10)

    done = subprocess.run(
        [sys.executable, "docs/clip_walk.py"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == sorted(passed + helping)
