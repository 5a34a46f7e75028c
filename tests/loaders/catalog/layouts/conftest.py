"""A data set that tests of several modules lay out."""

from pathlib import Path

import pytest

from tests.loaders.catalog.layouts.data_sets import put, write


@pytest.fixture
def ucf101(tmp_path: Path) -> Path:
    put(tmp_path / "UCF-101/ApplyEyeMakeup", *(f"v_ApplyEyeMakeup_g{g:02d}_c01.avi" for g in (1, 2, 8, 9)))
    put(tmp_path / "UCF-101/HandstandPushups", "v_HandStandPushups_g01_c01.avi", "v_HandStandPushups_g08_c01.avi")
    lists = tmp_path / "ucfTrainTestlist"
    write(lists / "classInd.txt", "1 ApplyEyeMakeup", "37 HandstandPushups", end="\r\n")
    write(
        lists / "trainlist01.txt",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g09_c01.avi 1",
        "HandstandPushups/v_HandStandPushups_g08_c01.avi 37",
        end="\r\n",
    )
    write(
        lists / "testlist01.txt",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g03_c01.avi",
        "HandstandPushups/v_HandStandPushups_g01_c01.avi",
        end="\r\n",
    )
    write(lists / "trainlist02.txt", "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi 1")
    write(lists / "testlist02.txt", "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi")
    return tmp_path
