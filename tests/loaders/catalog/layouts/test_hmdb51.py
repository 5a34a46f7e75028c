"""HMDB51: official names and lists; no file is ever opened."""

from pathlib import Path

import pytest

from cacl.errors import DataError
from tests.loaders.catalog.layouts.data_sets import facts, find, put, write

ODD = "Let's_Go_[Part;2]_&_#1_wave_f_nm_np1_fr_med_0.avi"


@pytest.mark.parametrize("folder", ["", "testTrainMulti_7030_splits"])
def test_hmdb51(tmp_path: Path, folder: str) -> None:
    put(
        tmp_path / "hmdb51",
        f"wave/{ODD}",
        "wave/same.avi",
        "wave/unused.avi",
        "shoot_bow/same.avi",
        "shoot_bow/new.avi",
    )
    write(tmp_path / folder / "wave_test_split1.txt", f"{ODD} 1 ", "same.avi 2 ", "unused.avi 0 ")
    write(tmp_path / folder / "shoot_bow_test_split1.txt", "same.avi 1 ", "#gone.avi 2 ")
    write(tmp_path / folder / "wave_test_split2.txt", f"{ODD} 2 ", "same.avi 1 ", "unused.avi 1 ")
    write(tmp_path / folder / "shoot_bow_test_split2.txt", "same.avi 2 ", "new.avi 1 ")
    listing = find(tmp_path)
    assert listing.layout == "hmdb51"
    assert facts(listing) == {
        "hmdb51/shoot_bow/new.avi": ("shoot_bow", None),
        "hmdb51/shoot_bow/same.avi": ("shoot_bow", "train"),
        f"hmdb51/wave/{ODD}": ("wave", "train"),
        "hmdb51/wave/same.avi": ("wave", "test"),
        "hmdb51/wave/unused.avi": ("wave", None),
    }
    assert listing.missing == ("shoot_bow/#gone.avi",)
    assert facts(find(tmp_path, fold=2))[f"hmdb51/wave/{ODD}"] == ("wave", "test")
    with pytest.raises(DataError, match=r"_test_split3\.txt .* fold 1, 2$"):
        find(tmp_path, fold=3)
    (tmp_path / folder / "shoot_bow_test_split2.txt").unlink()
    with pytest.raises(DataError, match=r"data\.fold = 2: no list named shoot_bow_test_split2\.txt in .*; there are"):
        find(tmp_path, fold=2)


def test_hmdb51_value_out_of_range(tmp_path: Path) -> None:
    put(tmp_path, "wave/a.avi")
    write(tmp_path / "wave_test_split1.txt", "a.avi 3")
    with pytest.raises(DataError, match=r"wave_test_split1\.txt line 1: 'a\.avi 3' does not end in 0"):
        find(tmp_path)
