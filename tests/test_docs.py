"""What README and docs name is there: keys of the configuration, files, and links."""

import inspect
import re
from pathlib import Path

import pytest

import cacl
from cacl import config, errors
from cacl.config import Config
from cacl.config.reference import sections
from cacl.kernels import augment, contrast, edit_distance, symmetric
from tests.launch import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks/gpu/README.md",
]
KEYS = {key.name for section in sections() for key in section.keys}
SECTIONS = {"losses"} | {key.partition(".")[0] for key in KEYS if "." in key}
KEY = re.compile(rf"(?<![\w./-])((?:{'|'.join(sorted(SECTIONS))})\.[a-z][a-z_.]*[a-z])(?![\w(/-])")
FILE = re.compile(
    r"(?<![\w./<-])((?:benchmarks|cacl|docs|kernels|loaders|tests)/[\w/.-]+\.(?:py|toml|md|sh|svg|png))\b"
)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_keys_files_and_links_of_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    suffixes = ("md", "py", "toml", "json", "jsonl", "csv", "mp4", "safetensors")
    named = {key for key in KEY.findall(text) if key.rpartition(".")[2] not in suffixes}
    known = KEYS | {f"losses.{name}" for name in (*Config().losses, "variance")}  # CONTRIBUTING.md adds the last
    assert not {key for key in named if key not in known and not any(k.startswith(f"{key}.") for k in KEYS)}
    assert not {file for file in FILE.findall(text) if not (ROOT / file).exists()}
    assert not {link for link in LINK.findall(text) if not (page.parent / link).is_file()}  # The site has no folders.


def test_a_configuration_that_a_page_names_still_loads() -> None:
    earlier, demo = config.load(ROOT / "docs/demo_with_queue.toml"), config.load("demo")
    assert (earlier.contrast.pairs, earlier.contrast.negatives) == ("within", "queue")
    assert (earlier.clip, earlier.augment, earlier.retrieval) == (demo.clip, demo.augment, demo.retrieval)


def test_the_search_sees_what_it_looks_for() -> None:
    text = "`train.batch` in `cacl/gone.py`, see [it](gone.md#part), `data.root=x`"
    assert KEY.findall(text) == ["train.batch", "data.root"]
    assert FILE.findall(text) == ["cacl/gone.py"]
    assert LINK.findall(text) == ["gone.md"]
    assert sum(len(KEY.findall(page.read_text(encoding="utf-8"))) for page in PAGES) > 50


def test_the_python_interface_is_told_in_full() -> None:
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    told = re.findall(r"^\.\. auto\w+:: ([\w.]+)$", page, re.MULTILINE)
    public = {f"cacl.{name}" for name in cacl.__all__ if not name.startswith("__")}
    public |= {f"cacl.config.{name}" for name in config.__all__ if inspect.isfunction(getattr(config, name))}
    public |= {f"cacl.errors.{error.__name__}" for error in vars(errors).values() if inspect.isclass(error)}
    for module in (augment, contrast, edit_distance, symmetric):
        own = [name for name, thing in vars(module).items() if getattr(thing, "__module__", "") == module.__name__]
        public |= {f"{module.__name__}.{name}" for name in own if not name.startswith("_")}
    assert public <= set(told)
    assert len(told) == len(set(told))
