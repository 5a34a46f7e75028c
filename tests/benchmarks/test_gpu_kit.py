"""What a machine with a GPU gets sent, and runs: as much of it as shows on a CPU."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.launch import ROOT

SLIM = [sys.executable, "-m", "benchmarks.gpu.slim_wheels"]
DEVICE = ["bash", str(ROOT / "benchmarks" / "gpu" / "device.sh")]
PTX, ELF = 1, 2


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run(list(map(str, command)), cwd=ROOT, env=env, capture_output=True, text=True, timeout=200)


# --- Wheels


def image(kind: int, arch: int, payload: bytes) -> bytes:
    return (
        struct.pack("<HHIQ", kind, 0x101, 64, len(payload)) + bytes(12) + struct.pack("<I", arch) + bytes(32) + payload
    )


def payload(kind: int, arch: int) -> bytes:
    return (f"{'code' if kind == ELF else 'text'} for {arch} " * 40).encode()[:512]


IMAGES = [(PTX, 75), (ELF, 80), (ELF, 86), (ELF, 90), (ELF, 100), (PTX, 100)]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with a function, symbols for debuggers, and device code for several architectures."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("library")
    content = b"".join(image(kind, arch, payload(kind, arch)) for kind, arch in IMAGES)
    fat = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(content)) + content
    (folder / "lib.c").write_text(
        f"const unsigned char device_code[] = {{{', '.join(map(str, fat))}}};\n"
        '__attribute__((noinline)) static int only_for_debuggers(void) { __asm__(""); return 42; }\n'
        "int answer(void) { return only_for_debuggers(); }\n"
        "int longer(int x) { return 3 * x + answer(); }\n"  # the last one must have room for three bytes
    )
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", "lib.so", "lib.c"], cwd=folder, check=True)
    return folder / "lib.so"


def wheel(folder: Path, files: dict[str, bytes]) -> Path:
    path = folder / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def answer(library: Path) -> int:
    """In a process of its own: one process would load libraries of one name once."""
    code = f"import ctypes; print(ctypes.CDLL({str(library)!r}).answer())"
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_wheel_comes_out_as_it_is_needed(library: Path, tmp_path: Path) -> None:
    data = library.read_bytes()
    assert ctypes.CDLL(str(library)).answer() == 42
    assert data.count(b"only_for_debuggers") == 1
    files = {
        "some/__init__.py": b"x = 1\n",
        "some/lib.so": data,
        "some/libaws-unused.so": data,
        "some/of.cpython-312-x86_64-linux-gnu.so": data,
        "some/of.cpython-311-x86_64-linux-gnu.so": data,
        "some/tests/test_it.py": b"",
        "some/header.h": b"",
        "some-1.0.data/purelib/beside.py": b"y = 2\n",
        "some-1.0.dist-info/METADATA": b"Name: some\n",
    }
    packed = run(*SLIM, "pack", wheel(tmp_path, files), "--out", tmp_path / "parts")
    assert packed.returncode == 0, packed.stderr
    unpacked = run(*SLIM, "unpack", tmp_path / "site", tmp_path / "parts")
    assert unpacked.returncode == 0, unpacked.stderr
    site = tmp_path / "site"
    assert {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()} == {
        "nvidia/__init__.py",
        "some/__init__.py",
        "some/lib.so",
        "some/libaws-unused.so",
        "some/of.cpython-312-x86_64-linux-gnu.so",
        "beside.py",
        "some-1.0.dist-info/METADATA",
    }
    assert (site / "beside.py").read_bytes() == b"y = 2\n"

    slim = (site / "some" / "lib.so").read_bytes()
    assert len(slim) == len(data)
    kept = [(kind, arch) for kind, arch in IMAGES if payload(kind, arch) in slim]
    assert kept == [(ELF, 90)]
    assert b"only_for_debuggers" not in slim
    assert answer(site / "some" / "lib.so") == 42
    assert answer(site / "some" / "libaws-unused.so") == 0, "of libraries that nobody calls nothing is kept"
    assert run(*SLIM, "check", library, site / "some" / "lib.so").returncode == 0
    (tmp_path / "bent.so").write_bytes(slim.replace(payload(ELF, 90), payload(ELF, 91)))
    assert run(*SLIM, "check", library, tmp_path / "bent.so").returncode == 1
    assert "ELF 90: 1 images" in run(*SLIM, "list", site / "some" / "lib.so").stdout


@pytest.mark.parametrize(("arch", "kept"), [(80, (ELF, 80)), (89, (ELF, 86)), (100, (ELF, 100)), (120, (PTX, 100))])
def test_device_code_is_what_the_architecture_loads(
    library: Path, tmp_path: Path, arch: int, kept: tuple[int, int]
) -> None:
    """The newest binary of its generation, else the newest text."""
    parts, site = tmp_path / "parts", tmp_path / "site"
    given = wheel(tmp_path, {"lib.so": library.read_bytes()})
    assert run(*SLIM, "pack", given, "--out", parts, "--arch", str(arch)).returncode == 0
    assert run(*SLIM, "unpack", site, parts).returncode == 0
    slim = (site / "lib.so").read_bytes()
    assert [one for one in IMAGES if payload(*one) in slim] == [kept]


def test_parts_that_are_not_there(tmp_path: Path) -> None:
    done = run(*SLIM, "unpack", tmp_path / "site", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("no archives in ")


# --- Stages


def test_stages_have_logs_and_limits(tmp_path: Path) -> None:
    """Without a GPU, and without what pack.sh makes."""
    environment = {"DEVICE": "cpu", "OUT": str(tmp_path / "out"), "TMPDIR": str(tmp_path), "PYTHON": sys.executable}
    done = run(*DEVICE, "60", "race", "nonsense", **environment)
    assert done.returncode == 0, done.stderr
    assert "=== race: exit 127 after " in done.stdout
    assert "=== nonsense: no such stage" in done.stdout
    assert "compute-sanitizer" in (tmp_path / "out" / "logs" / "race.log").read_text()
    done = run(*DEVICE, "10", "race", **environment)
    assert "=== race: no time left" in done.stdout


def test_every_stage_that_is_named_is_there() -> None:
    script = (ROOT / "benchmarks" / "gpu" / "device.sh").read_text()
    named = script.partition("# Stages: ")[2].partition(".")[0].split()
    assert len(named) == 12
    for name in named:
        assert f"\n{name}() {{" in script
        assert f"    {name}) stage {name} " in script


# --- Kernels


def test_launches_compile_for_a_gpu_that_is_not_there() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks.gpu.jit_check", "--few"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sm_90: 9 kernels" in done.stdout
    assert "0 failures" in done.stdout


def test_kernels_are_measured_without_matplotlib(tmp_path: Path) -> None:
    """Within no time: nothing is measured, but everything is written and printed."""
    code = "import sys; sys.modules['matplotlib'] = None; from cacl.benchmarks.gpu.kernels import main; main()"
    done = run(sys.executable, "-c", code, "--device", "cpu", "--seconds", "-1", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "no time for contrast: 2048 anchors" in done.stdout
    assert json.loads((tmp_path / "out" / "bench_kernels.json").read_text())["problems"] == []
