"""Wheels for a machine without a package index, as small as they get: one GPU architecture, one Python, no symbols.

    python -m benchmarks.gpu.slim_wheels pack WHEEL... --out DIR [--arch 90] [--python 312] [--limit 60] [--jobs 1]
    python -m benchmarks.gpu.slim_wheels unpack SITE PART...       # on the machine, then: export PYTHONPATH=SITE
    python -m benchmarks.gpu.slim_wheels list LIBRARY.so...        # the device code in it, by kind and architecture
    python -m benchmarks.gpu.slim_wheels check BEFORE.so AFTER.so  # what was kept is the same bits, and so is the rest

`pack` writes DIR/0, DIR/1, ...: folders ("parts") of .tar.xz archives, each folder at most LIMIT MiB. Every archive can
be unpacked alone, so `unpack` takes the parts in any order, in one call or in several, with a process for each archive.
`unpack` needs the standard library only (lzma is in it, zstd only since Python 3.14).

What is taken away, mostly by zeros, which cost nothing once compressed:
* files that nothing imports: headers, type stubs, modules of other Pythons, tests (UNUSED_FILES);
* device code for other architectures: libraries hold it in fat binaries, that is a header of 16 bytes (magic
  0xBA55ED50, version, size of the header, u64 size of what follows) and then entries, each a header (u16 kind: 1 PTX,
  2 ELF; u16; u32 its size; u64 size of the payload; ...; u32 architecture at byte 28) and its payload. A GPU of
  architecture A loads the ELF for the highest architecture up to A of the same generation (A // 10), else it
  compiles PTX. What it loads moves to the front, the header says so, and zeros follow to where the next begins: every
  other offset in the library stays;
* device code of operators that a video loader does not call (UNUSED_KERNELS: arithmetic, random numbers, filters,
  reductions, warps, audio): fat binaries all of whose kernels have such names. Launching one fails as on a GPU that the
  library was not built for. This needs the package zstandard; `--whole` keeps such code;
* symbol tables that only debuggers read (.symtab, .strtab), in the same way;
* the code of libraries that must be there but are not called (UNCALLED_LIBRARIES: S3, CV-CUDA, audio, encoders of HEVC
  and AV1): every function of theirs becomes "return 0". Data, symbols and relocations stay, so that they load as
  before; `--whole` keeps the code.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import lzma
import os
import re
import struct
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from cacl.benchmarks.gpu.device_code import PTX, entries_loaded, fat_binaries, rewrite, slim_library, symbols

MIN_BYTES_ALONE = 6 * 2**20
"""Files from this size on have an archive of their own, so that they are unpacked in parallel."""
ARCHIVE_BYTES = 12 * 2**20
"""Smaller files share archives of about this many bytes."""
MIB = 2**20

UNUSED_FILES = (
    r"^nvidia/dali/include/",
    r"^nvidia/nvimgcodec/(include|cmake)/",
    r"^nvidia/[^/]*/(include|bin)/",
    r"^nvidia/dali/(experimental/torchvision|plugin/(jax|tf|paddle|numba))",
    r"^nvidia/dali/Acknowledgements\.txt$",
    r"\.pyi$|\.pxd$|\.pyx$|\.hpp$|\.h$|\.lib$",
    r"(^|/)tests?/",
    r"^[^/]*\.data/(scripts|data)/",
)
UNCALLED_LIBRARIES = (
    r"/lib(aws-|s2n|cvcuda|nvcv_types|cfitsio|sndfile|FLAC|opus-"
    r"|x265|SvtAv1Enc|gnutls|unistring|asound)[^/]*\.so"
)
"""google_cloud_cpp is not among them: DALI calls it when it loads."""


# --- Packing


def wanted(name: str, python: str) -> bool:
    """Whether a file of a wheel is imported by this Python, or loaded by what is."""
    tag = re.search(r"\.cpython-(\d+t?)-", name)
    return not (name.endswith("/") or (tag and tag[1] != python) or any(re.search(drop, name) for drop in UNUSED_FILES))


def files_of(wheels: list[Path], arch: int, python: str, whole: bool) -> Iterator[tuple[str, bytes]]:
    """Yields the files of these wheels as they are packed, with their paths."""
    for wheel in wheels:
        gone, before, after = Counter[str](), 0, 0
        with zipfile.ZipFile(wheel) as archive:
            for info in archive.infolist():
                name = re.sub(r"^[^/]*\.data/(purelib|platlib)/", "", info.filename)
                if not wanted(name, python):
                    continue
                hollow = not whole and bool(re.search(UNCALLED_LIBRARIES, name))
                data, less = slim_library(archive.read(info), arch, whole, hollow)
                gone += less
                before, after = before + len(data), after + len(data) - sum(less.values())
                yield name, data
        what = ", ".join(f"{key} {size / MIB:.1f}" for key, size in sorted(gone.items()))
        print(f"{wheel.name}: {before / MIB:.1f} MiB, of which {after / MIB:.1f} not zeroed; {what}", flush=True)


def compressed(name: str, files: list[tuple[str, bytes]], folder: Path) -> tuple[Path, int]:
    """A .tar.xz of these files, best for machine code of x86."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, data in files:
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), 0o755 if data[:4] == b"\x7fELF" else 0o644
            tar.addfile(info, io.BytesIO(data))
    raw = stream.getvalue()
    filters = [
        {"id": lzma.FILTER_X86},
        {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": min(1 << 27, max(1 << 20, len(raw)))},
    ]
    file = folder / f"{name}.tar.xz"
    file.write_bytes(lzma.compress(raw, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters))
    return file, len(raw)


def pack(wheels: list[Path], out: Path, arch: int, python: str, limit: float, jobs: int, whole: bool) -> None:
    """Writes the parts."""
    out.mkdir(parents=True)
    files = dict(files_of(wheels, arch, python, whole))
    # Other packages named nvidia.* may lie elsewhere.
    files["nvidia/__init__.py"] = b"__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"
    groups: list[tuple[str, list[tuple[str, bytes]]]] = []
    small: list[tuple[str, bytes]] = []
    # Libraries lie beside libraries, and text lies beside text.
    for name, data in sorted(files.items(), key=lambda file: (file[1][:4] == b"\x7fELF", file[0])):
        if len(data) >= MIN_BYTES_ALONE:
            groups.append((re.sub(r"[^\w.-]", "_", Path(name).name), [(name, data)]))
        elif small and sum(len(d) for _, d in small) + len(data) > ARCHIVE_BYTES:
            groups.append((f"small{len(groups)}", small))
            small = [(name, data)]
        else:
            small.append((name, data))
    groups.append((f"small{len(groups)}", small))
    groups.sort(key=lambda group: -sum(len(data) for _, data in group[1]))
    if jobs == 1:
        archives = [compressed(name, files, out)[0] for name, files in groups]
    else:
        with ProcessPoolExecutor(jobs) as pool:
            archives = [done.result()[0] for done in [pool.submit(compressed, *group, out) for group in groups]]
    bins: list[list[Path]] = []
    for archive in sorted(archives, key=lambda file: -file.stat().st_size):  # This is first fit, the largest first.
        size = archive.stat().st_size
        if size > limit * MIB:
            sys.exit(f"{archive.name} alone is {size / MIB:.1f} MiB, and a part may have {limit}")
        room = (b for b in bins if sum(f.stat().st_size for f in b) + size <= limit * MIB)
        if (part := next(room, None)) is None:
            bins.append(part := [])
        part.append(archive)
    for number, part in enumerate(bins):
        (out / str(number)).mkdir()
        for archive in part:
            archive.rename(out / str(number) / archive.name)
        sizes = [file.stat().st_size for file in (out / str(number)).iterdir()]
        print(f"part {number}: {sum(sizes) / MIB:.2f} MiB in {len(sizes)} archives")


# --- Unpacking


def unpack(site: Path, parts: list[Path]) -> None:
    """Unpacks the parts into a folder."""
    archives = sorted((file for part in parts for file in part.rglob("*.tar.xz")), key=lambda f: -f.stat().st_size)
    if not archives:
        sys.exit(f"no archives in {', '.join(map(str, parts))}")
    site.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(max(1, min(len(archives), len(os.sched_getaffinity(0))))) as pool:
        total = sum(pool.map(_unpack_one, archives, [site] * len(archives)))
    print(f"{len(archives)} archives, {total / MIB:.0f} MiB in {site}")


def _unpack_one(archive: Path, site: Path) -> int:
    total = 0
    with tarfile.open(archive, "r:xz") as tar:
        for member in tar:
            total += member.size
            tar.extract(member, site, filter="data")
    return total


# --- Looking


def show(file: Path) -> None:
    """Prints what device code is in a library."""
    data = file.read_bytes()
    found, sizes = Counter[str](), Counter[str]()
    for fat in fat_binaries(data):
        for entry in fat.entries:
            key = f"{'PTX' if entry.kind == PTX else 'ELF'} {entry.arch}" + (
                "" if any(data[entry.payload]) else ", empty"
            )
            found[key] += 1
            sizes[key] += entry.size
    print(f"{file.name}: {len(data) / MIB:.1f} MiB")
    for key, count in sorted(found.items()):
        print(f"  {key}: {count} images, {sizes[key] / MIB:.2f} MiB")


def check(before: Path, after: Path, arch: int) -> None:
    """Checks that every fat binary has what it had for this architecture, or nothing, and the rest is as it was."""
    old, new = before.read_bytes(), bytearray(after.read_bytes())
    full = empty = 0
    for fat in fat_binaries(old):
        (size,) = struct.unpack_from("<Q", new, fat.content.start - 8)
        left = new[fat.content.start : fat.content.start + size]
        kept = entries_loaded(fat.entries, arch)
        full += left == rewrite(old, fat, kept)
        empty += left == rewrite(old, fat, [])
        new[fat.content.start - 8 : fat.content.stop] = old[fat.content.start - 8 : fat.content.stop]
    for span in symbols(old):
        new[span] = old[span]
    all_of_them = full + empty == sum(1 for _ in fat_binaries(old))
    same = all_of_them and hashlib.sha256(old).digest() == hashlib.sha256(new).digest()
    print(f"{before.name}: {full} fat binaries kept, {empty} empty, {'all' if same else 'NOT ALL'} else as it was")
    if not same:
        sys.exit(1)


def main() -> None:
    """Runs the verb that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing = verbs.add_parser("pack")
    packing.add_argument("wheels", nargs="+", type=Path)
    packing.add_argument("--out", type=Path, required=True)
    packing.add_argument("--arch", type=int, default=90)
    packing.add_argument("--python", default="312")
    packing.add_argument("--limit", type=float, default=60, help="MiB of a part")
    packing.add_argument("--jobs", type=int, default=1)
    packing.add_argument("--whole", action="store_true", help="hollow no library out")
    unpacking = verbs.add_parser("unpack")
    unpacking.add_argument("site", type=Path)
    unpacking.add_argument("parts", nargs="+", type=Path)
    listing = verbs.add_parser("list")
    listing.add_argument("libraries", nargs="+", type=Path)
    checking = verbs.add_parser("check")
    checking.add_argument("before", type=Path)
    checking.add_argument("after", type=Path)
    checking.add_argument("--arch", type=int, default=90)
    args = parser.parse_args()
    if args.verb == "pack":
        pack(args.wheels, args.out, args.arch, args.python, args.limit, args.jobs, args.whole)
    elif args.verb == "unpack":
        unpack(args.site, args.parts)
    elif args.verb == "list":
        for library in args.libraries:
            show(library)
    else:
        check(args.before, args.after, args.arch)


if __name__ == "__main__":
    main()
