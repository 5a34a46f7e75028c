"""Device code and symbols in libraries: where they are, and what a GPU of one architecture does not need of them."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

try:
    import zstandard  # pyright: ignore[reportMissingImports]  # Only packing needs it.
except ImportError:
    zstandard = None

HEADER = 16
MAGIC = struct.pack("<IHH", 0xBA55ED50, 1, HEADER)
PTX, ELF = 1, 2
UNUSED_KERNELS = (
    r"expr\d+ExecuteTiled|dali\d+rng|kernels\d+(filter|warp|signal|audio|jpeg|equalize)\d|kernels\d+(Reduce|erase_gpu)"
    r"|normalize_impl\d+Normalize|cutlass|dali\d+(Displacement|rice_decompress)|^__(cuda_sm|nv_static)|^\$"
)
RETURN_0 = bytes.fromhex("31c0c3").ljust(16, b"\x90")
"""`xor eax, eax; ret`, padded: compilers begin functions at multiples of 16 bytes."""


class Entry(NamedTuple):
    """Device code for one architecture."""

    at: int
    """Where its header is in the file."""
    kind: int
    arch: int
    payload: slice

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return self.payload.stop - self.payload.start


class FatBinary(NamedTuple):
    """Device code for several architectures."""

    content: slice
    """Where that is in the file which follows its header."""
    entries: list[Entry]


def fat_binaries(data: bytes | bytearray) -> Iterator[FatBinary]:
    """Yields the fat binaries of a library. What merely looks like one is passed over."""
    at = 0
    while (at := data.find(MAGIC, at)) >= 0:
        at += HEADER
        content = slice(at, at + struct.unpack_from("<Q", data, at - 8)[0])
        if entries := _entries(data, content):
            yield FatBinary(content, entries)
            at = content.stop


def _entries(data: bytes | bytearray, content: slice) -> list[Entry]:
    """All entries, or none if there is something that this does not know."""
    at, entries = content.start, list[Entry]()
    while at < content.stop <= len(data):
        kind, _, header, size = struct.unpack_from("<HHIQ", data, at)
        (arch,) = struct.unpack_from("<I", data, at + 28)
        payload = slice(at + header, at + header + size)
        if kind not in (PTX, ELF) or not 64 <= header <= 256 or not 10 <= arch < 1000 or payload.stop > content.stop:
            return []
        entries.append(Entry(at, kind, arch, payload))
        at = payload.stop
    return entries if at == content.stop else []


def entries_loaded(entries: list[Entry], arch: int) -> list[Entry]:
    """The entries that a GPU of this architecture loads."""
    runs = [e for e in entries if e.kind == ELF and e.arch // 10 == arch // 10 and e.arch <= arch]
    compiles = [e for e in entries if e.kind == PTX and e.arch <= arch]
    best = max(runs or compiles, key=lambda e: e.arch, default=None)
    return [e for e in runs or compiles if best and e.arch == best.arch]


def kernel_names(image: bytes) -> list[str]:
    """The names of the functions in an image of kind ELF; none if it cannot be read."""
    if image[:4] == b"\x28\xb5\x2f\xfd" and zstandard:
        image = zstandard.ZstdDecompressor().decompressobj().decompress(image)
    return [name.decode() for name in set(re.findall(rb"\.text\.([\w$.]+)", image))] if image[:4] == b"\x7fELF" else []


def is_unused(data: bytes, entries: list[Entry]) -> bool:
    """Whether the entries have only kernels that nobody calls."""
    names = [name for entry in entries for name in kernel_names(data[entry.payload])]
    return any(name[0] == "_" for name in names) and all(re.search(UNUSED_KERNELS, name) for name in names)


def rewrite(data: bytes, fat: FatBinary, kept: list[Entry]) -> bytes:
    """The content of a fat binary with these entries only. Where none is left, one stays that nobody loads."""
    if kept:
        return b"".join(data[entry.at : entry.payload.stop] for entry in kept)
    empty = fat.entries[0]
    return data[empty.at : empty.payload.start] + bytes(empty.size)


class Section(NamedTuple):
    """A section of an ELF file."""

    name: bytes
    loaded: bool
    span: slice
    """Where the section is in the file."""
    link: int


def sections(data: bytes | bytearray) -> list[Section]:
    """The sections of an ELF file of 64 bits."""
    (table,), (size, count, of_names) = struct.unpack_from("<Q", data, 40), struct.unpack_from("<HHH", data, 58)
    headers = [struct.unpack_from("<IIQQQQII", data, table + n * size) for n in range(count)]
    names = headers[of_names][4]
    return [
        Section(
            bytes(data[names + name : data.index(b"\0", names + name)]), bool(flags & 2), slice(at, at + length), link
        )
        for name, _, flags, _, at, length, link, _ in headers
    ]


def symbols(data: bytes | bytearray) -> list[slice]:
    """Where there are symbols and names that no loader reads."""
    found = sections(data)
    tables = [s for s in found if s.name == b".symtab" and not s.loaded]
    return [s.span for s in tables] + [found[s.link].span for s in tables if found[s.link].name == b".strtab"]


def slim_library(data: bytes, arch: int, whole: bool = True, hollow: bool = False) -> tuple[bytes, Counter[str]]:
    """The same library with zeros in it, and how many bytes of what they replace.

    With `whole`, only what a GPU of this architecture cannot load is taken away. With `hollow`, all code is.
    """
    if data[:5] != b"\x7fELF\x02":
        return data, Counter()
    out, gone = bytearray(data), Counter[str]()

    def fill(span: slice, what: str, filler: bytes = b"\0") -> None:
        length = span.stop - span.start
        out[span] = (filler * (length // len(filler) + 1))[:length]
        gone[what] += length

    for fat in fat_binaries(data):
        kept = [] if hollow else entries_loaded(fat.entries, arch)
        if not whole and is_unused(data, kept):
            kept = []
        for entry in fat.entries:
            if entry not in kept:
                gone[f"{'PTX' if entry.kind == PTX else 'ELF'} {entry.arch}"] += entry.size
        content = rewrite(data, fat, kept)
        out[fat.content] = content.ljust(fat.content.stop - fat.content.start, b"\0")
        struct.pack_into("<Q", out, fat.content.start - 8, len(content))
    for span in symbols(data):
        fill(span, "symbols")
    for section in sections(data) if hollow else ():
        if section.name == b".text":
            past = section.span.start % len(RETURN_0)
            fill(section.span, "hollow", RETURN_0[past:] + RETURN_0[:past])
        elif section.name in (b".gcc_except_table", b".eh_frame", b".eh_frame_hdr"):
            fill(section.span, "hollow")
    return bytes(out), gone
