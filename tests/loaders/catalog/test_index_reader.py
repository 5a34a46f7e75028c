"""Nothing that is damaged, cut or half written is taken for the index of a prepared set."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from cacl.errors import DataError
from cacl.loaders.catalog import index_reader
from cacl.loaders.catalog.index_format import FORMAT
from cacl.loaders.catalog.prepared_files import INDEX_NAME
from tests.loaders.catalog.prepared_sets import MEMBERS, SPLITS, UNSPLIT, entry, facts, opened, prepared, record, write


def all_of(folder: Path) -> tuple[object, ...]:
    found = opened(folder)
    return (
        list(map(facts, found)),
        found.split_names,
        found.prepared_index.about,
        found.prepared_index.folds,
        found.fingerprint,
    )


def test_damage_is_never_taken_for_a_record(tmp_path: Path) -> None:
    """A byte between the parts may change unseen; nothing that is read from the file may."""
    file = write(tmp_path, MEMBERS[:2]) / INDEX_NAME
    content, true, noticed = file.read_bytes(), all_of(tmp_path), 0
    damages = np.random.default_rng(0).integers(1, 256, len(content)).tolist()
    with file.open("r+b", buffering=0) as open_file:
        for location, damage in enumerate(damages):
            os.pwrite(open_file.fileno(), bytes([content[location] ^ damage]), location)
            if is_refused(tmp_path):
                noticed += 1
            else:
                assert all_of(tmp_path) == true, location
            os.pwrite(open_file.fileno(), content[location : location + 1], location)
    assert noticed > 0.9 * len(content)
    assert all_of(tmp_path) == true


def is_refused(folder: Path) -> bool:
    try:
        opened(folder)
    except DataError as error:
        message = str(error)
        if message.startswith("the set: its index.safetensors cannot be used (") and message.endswith(
            "; prepare the set again"
        ):
            return True
        raise
    return False


def test_other_types_of_columns_are_damage(tmp_path: Path) -> None:
    file = write(tmp_path) / INDEX_NAME
    content = file.read_bytes()
    for a, b in [(b"I32", b"U32"), (b"U32", b"I32"), (b"F64", b"I64"), (b"I64", b"F64")]:
        before, after = (b'"dtype":"%s"' % kind for kind in (a, b))
        assert before in content
        file.write_bytes(content.replace(before, after, 1))
        assert is_refused(tmp_path)


def test_cut_short_anywhere(tmp_path: Path) -> None:
    file = write(tmp_path, MEMBERS[:2]) / INDEX_NAME
    content = file.read_bytes()
    for length in [*range(64), *range(64, len(content), 9), len(content) - 1]:
        file.write_bytes(content[:length])
        assert is_refused(tmp_path), length


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"17",
        b"{}",
        b'"__metadata__"',
        b'{"__metadata__": []}',
        b'{"__metadata__": {"cacl": []}}',
        b'{"__metadata__": null, "a": {}}',
        b'{"__metadata__": {"cacl": "[]"}}',
        b"\xff\xfe",
    ],
)
def test_headers_that_are_none(tmp_path: Path, header: bytes) -> None:
    for length in (len(header), len(header) + 1, 2**40, 2**63, 2**64 - 1):
        (tmp_path / INDEX_NAME).write_bytes(length.to_bytes(8, "little") + header)
        with pytest.raises(DataError, match=r"^the set: its index\.safetensors cannot be used \(.+\); prepare the set"):
            opened(tmp_path)


def test_other_files_in_its_place(tmp_path: Path) -> None:
    file = tmp_path / INDEX_NAME
    with pytest.raises(DataError, match=r"^the set: its index.* cannot be used \(No such file or directory\)"):
        opened(tmp_path)
    save_file({"weight": np.zeros(3)}, file)
    with pytest.raises(DataError, match=r"^the set: its index.* cannot be used \("):
        opened(tmp_path)
    save_file({"weight": np.zeros(3)}, file, {"cacl": json.dumps({"format": "cacl prepared set 99"})})
    with pytest.raises(DataError, match=r"\(its format is 'cacl prepared set 99', not 'cacl prepared set \d+'\)"):
        opened(tmp_path)
    save_file({"weight": np.zeros(3)}, file, {"cacl": json.dumps({"format": FORMAT})})
    with pytest.raises(DataError, match=r"^the set: its index.* cannot be used \("):
        opened(tmp_path)
    file.unlink()
    file.mkdir()
    with pytest.raises(DataError, match=r"^the set: its index.* cannot be used \(Is a directory\)"):
        opened(tmp_path)


def test_a_set_in_use_is_prepared_again(tmp_path: Path) -> None:
    """Whoever has opened the old one goes on with it."""
    found = opened(write(tmp_path))
    before = list(map(facts, found))
    write(tmp_path, [prepared(n, entry(f"{n}.mp4")) for n in range(3)])
    assert list(map(facts, found)) == before
    assert len(opened(tmp_path)) == 3


def test_a_set_is_prepared_again_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is then the old one or the new one as a whole."""
    file, other = write(tmp_path / "a") / INDEX_NAME, write(tmp_path / "b", UNSPLIT[::-1]) / INDEX_NAME
    digest = index_reader.digest_columns

    def replacing(*given: Any) -> str:
        if other.exists():
            other.replace(file)
        return digest(*given)

    monkeypatch.setattr(index_reader, "digest_columns", replacing)
    wanted = [record(member, splits[1]) for member, splits in zip(MEMBERS, SPLITS, strict=True)]
    assert list(map(facts, opened(tmp_path / "a"))) == list(map(facts, wanted))
    assert list(map(facts, opened(tmp_path / "a"))) == [facts(record(member, None)) for member in UNSPLIT[::-1]]
