"""What `make check` leaves out is there, and something of each folder stays."""

from pathlib import Path

from tests.conftest import DISTRIBUTED, SLOW

TESTS = Path(__file__).parent


def test_the_places_that_have_a_mark_exist() -> None:
    for place in (*DISTRIBUTED, *SLOW):
        path, _, test = place.partition("::")
        assert (TESTS / path).exists(), place
        assert not test or f"def {test}(" in (TESTS / path).read_text(encoding="utf-8"), place


def test_each_folder_keeps_some_but_the_one_whose_tests_all_start_processes() -> None:
    left_out = [TESTS / place for place in (*DISTRIBUTED, *SLOW)]
    files = list(TESTS.glob("*/**/test_*.py"))
    quick = [path for path in files if not any(path.is_relative_to(place) for place in left_out)]
    folders, kept = ({path.relative_to(TESTS).parts[0] for path in paths} for paths in (files, quick))
    assert folders - kept == {"distributed"}
