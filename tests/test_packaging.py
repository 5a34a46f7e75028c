"""What is installed: built as a wheel from what git knows, unpacked elsewhere, and run there."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path

import pytest

from cacl import __version__
from tests.launch import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGE_DIRS = {
    "cacl": "cacl",
    "cacl.loaders": "loaders",
    "cacl.kernels": "kernels",
    "cacl.benchmarks": "benchmarks",
}
NOT_INSTALLED = ("benchmarks/gpu/", "benchmarks/scripts/")
"""These folders hold scripts for a checkout, which are no part of the package."""
LINKS = {
    "cacl/loaders": "../loaders",
    "cacl/kernels": "../kernels",
    "cacl/benchmarks": "../benchmarks",
    "cacl/cli.py": "../cli.py",
}

MAX_FILE_BYTES = 1_000_000
MACHINE_PATH = re.compile(r"(?<![\w.~}$])/(?:home|Users|root|tmp|var/tmp|var/folders)/\w")


@pytest.fixture(scope="module")
def files() -> list[str]:
    """The names of all files that git tracks or would track, and that are there."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in set(listed.split("\0")) if name and os.path.lexists(ROOT / name))


@pytest.fixture(scope="module")
def wheel(files: list[str], tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy of those files alone."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in files:
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / "source" / name, follow_symlinks=False)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), "source"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def unpacked(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    wheel.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory outside the repository."""
    return tmp_path_factory.mktemp("elsewhere")


def run(unpacked: Path, folder: Path, *arguments: str) -> str:
    """Returns stdout of a Python that finds the unpacked wheel before the editable install. -P keeps the folder out."""
    environment = os.environ | {"PYTHONPATH": str(unpacked), "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-P", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def module_files(files: list[str]) -> dict[str, str]:
    """Returns the file of each module in the repository, by its path in the wheel."""
    found = {"cacl/cli.py": "cli.py"}
    for name in files:
        folder = name.split("/")[0]
        if (
            name.endswith(".py")
            and folder in PACKAGE_DIRS.values()
            and name not in LINKS
            and not name.startswith(NOT_INSTALLED)
        ):
            found[name if folder == "cacl" else f"cacl/{name}"] = name
    return found


# --- The tree


def test_the_packages_listed_are_those_that_exist(files: list[str]) -> None:
    folders = {os.path.dirname(place) for place in module_files(files)}
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(name.replace("/", ".") for name in folders)
    assert PROJECT["tool"]["setuptools"]["package-dir"] == PACKAGE_DIRS
    assert all((ROOT / module_files(files)[f"{folder}/__init__.py"]).exists() for folder in folders)


@pytest.mark.parametrize("link", LINKS)
def test_the_links_are_links(link: str) -> None:
    """A copy in place of a link would be what is installed, and drift from the file that is edited."""
    assert (ROOT / link).is_symlink()
    assert os.readlink(ROOT / link) == LINKS[link]


def test_the_links_are_named_to_ruff_and_pyright() -> None:
    assert set(LINKS) <= set(PROJECT["tool"]["ruff"]["extend-exclude"])
    assert set(LINKS) <= set(PROJECT["tool"]["pyright"]["include"])


def test_no_file_is_large(files: list[str]) -> None:
    assert not [name for name in files if (ROOT / name).lstat().st_size > MAX_FILE_BYTES]


def test_no_file_names_a_place_on_somebodys_machine(files: list[str]) -> None:
    found = []
    for name in files:
        content = b"" if (ROOT / name).is_symlink() else (ROOT / name).read_bytes()
        if b"\0" not in content:
            lines = content.decode("utf-8").splitlines()
            found += [f"{name}:{n}: {line.strip()}" for n, line in enumerate(lines, 1) if MACHINE_PATH.search(line)]
    assert not found
    assert MACHINE_PATH.search("cd /" + "home/me")
    assert not MACHINE_PATH.search("~/home/me, https://x.org/" + "home/me")


# --- The wheel


def test_the_wheel_holds_every_module_as_it_is_edited(files: list[str], wheel: zipfile.ZipFile) -> None:
    modules = module_files(files)
    packed = {name for name in wheel.namelist() if name.endswith(".py")}
    assert packed == set(modules)
    assert not [place for place in packed if wheel.read(place) != (ROOT / modules[place]).read_bytes()]


def test_the_wheel_holds_the_recipes(files: list[str], wheel: zipfile.ZipFile) -> None:
    recipes = [name for name in files if name.startswith("cacl/recipes/")]
    assert "cacl/recipes/demo.toml" in recipes
    assert not [name for name in recipes if wheel.read(name) != (ROOT / name).read_bytes()]


def test_the_wheel_tells_type_checkers_that_it_is_typed(wheel: zipfile.ZipFile) -> None:
    assert wheel.read("cacl/py.typed") == b""


def test_the_wheel_adds_one_name_to_an_environment(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0] for name in wheel.namelist()} == {
        "cacl",
        f"cacl-{__version__}.dist-info",
    }


def test_the_wheel_tells_what_it_is(wheel: zipfile.ZipFile) -> None:
    info = f"cacl-{__version__}.dist-info"
    metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
    assert (metadata["Name"], metadata["Version"]) == ("cacl", __version__)
    assert metadata["Requires-Python"] == ">=3.11"
    assert "Apache License" in wheel.read(f"{info}/licenses/LICENSE").decode()
    assert wheel.read(f"{info}/entry_points.txt").decode().split() == [
        "[console_scripts]",
        "cacl",
        "=",
        "cacl.cli:main",
    ]


def test_the_wheel_carries_the_readme(wheel: zipfile.ZipFile) -> None:
    """setuptools only warns when the file is not there."""
    metadata = Parser().parsestr(wheel.read(f"cacl-{__version__}.dist-info/METADATA").decode())
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.get_payload()).strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()


def test_the_unpacked_wheel_imports_from_its_own_place(unpacked: Path, elsewhere: Path) -> None:
    code = "import cacl, cacl.cli, cacl.loaders.catalog.scan, cacl.kernels as k; print(cacl.__version__); "
    code += "print(*(m.__file__ for m in (cacl, cacl.cli, cacl.loaders.catalog.scan, k)), sep='\\n')"
    version, *places = run(unpacked, elsewhere, "-c", code).splitlines()
    assert version == __version__
    assert [Path(place).relative_to(unpacked).as_posix() for place in places] == [
        "cacl/__init__.py",
        "cacl/cli.py",
        "cacl/loaders/catalog/scan.py",
        "cacl/kernels/__init__.py",
    ]


def test_a_checkout_runs_without_being_installed(elsewhere: Path) -> None:
    """-S leaves out what is installed here."""
    code = "import sys; sys.path.append(sys.argv[1]); import cacl; print(cacl.__version__)"
    command = [sys.executable, "-S", "-P", "-c", code, str(ROOT)]
    done = subprocess.run(command, cwd=elsewhere, env={}, capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.stderr) == (__version__, "")


def test_the_unpacked_wheel_finds_its_recipes(unpacked: Path, elsewhere: Path) -> None:
    shown = run(unpacked, elsewhere, "-m", "cacl.cli", "train", "videos", "--config", "demo", "--dry-run")
    assert tomllib.loads(shown)["name"] == "demo"
    assert tomllib.loads(shown)["data"]["root"] == "videos"
    printed = run(unpacked, elsewhere, "-m", "cacl.cli", "recipes", "demo")
    assert printed == (ROOT / "cacl/recipes/demo.toml").read_text(encoding="utf-8")


def test_the_unpacked_wheel_explains_its_keys(unpacked: Path, elsewhere: Path) -> None:
    (key,) = json.loads(run(unpacked, elsewhere, "-m", "cacl.cli", "config", "clip.frames", "--json"))
    assert key["meaning"] == "T, the number of frames in a clip."


def test_the_unpacked_wheel_makes_videos_and_scans_them(unpacked: Path, elsewhere: Path) -> None:
    assert "train" in run(unpacked, elsewhere, "-m", "cacl.cli", "--help")
    made = run(unpacked, elsewhere, "-m", "cacl.cli", "data", "synth", "videos", "--train", "1", "--test", "0")
    assert made.split() == ["videos/labels.csv"]
    found = json.loads(run(unpacked, elsewhere, "-m", "cacl.cli", "data", "scan", "videos", "--json"))
    assert (len(found["videos"]), found["rejected"], found["missing"], found["layout"]) == (48, [], [], "csv")
    assert {video["split"] for video in found["videos"]} == {"train"}


HELP_OF_EVERY_COMMAND = """
import sys
import typer
import cacl.cli

def commands(command, path=()):
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))

for path in commands(typer.main.get_command(cacl.cli.app)):
    print("command:", *path)
    sys.argv = ["cacl", *path, "--help"]
    try:
        cacl.cli.main()
    except SystemExit as end:
        assert not end.code, path
print(cacl.cli.__file__)
"""


def test_the_unpacked_wheel_shows_the_help_of_every_command(unpacked: Path, elsewhere: Path) -> None:
    *shown, place = run(unpacked, elsewhere, "-c", HELP_OF_EVERY_COMMAND).splitlines()
    assert Path(place).is_relative_to(unpacked)
    named = [line.removeprefix("command:").strip() for line in shown if line.startswith("command:")]
    assert {"", "train", "bench-loader", "bench-kernels", "data scan", "data prepare", "eval retrieval"} <= set(named)
    assert len([line for line in shown if line.strip().startswith("Usage: ")]) == len(named)


def test_the_unpacked_wheel_times_loaders(
    unpacked: Path, elsewhere: Path, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    for number in range(3):
        make_video(tmp_path / f"{number}.mp4", frames=12, size=(48, 32))
    keys = ["clip.frames=4", "clip.stride=2", "clip.size=16", "train.batch_size=2", "loader.threads=1"]
    sets = [part for key in keys for part in ("--set", key)]
    arguments = ["bench-loader", str(tmp_path), "--clips", "2", "--repeats", "1", "--json", *sets]
    result = json.loads(run(unpacked, elsewhere, "-m", "cacl.cli", *arguments))
    measured = [row["contender"] for row in result["rows"] if row["stats"]]
    assert "PyAV + DataLoader" in measured
    assert any("cacl" in name for name in measured)
