"""A log is read as it grows, and its end without the rest."""

from pathlib import Path

import pytest

from segdist.system.log_tail import LogTail, last_lines


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "rank0.log"


def test_what_was_added_is_read_once(log: Path) -> None:
    tail = LogTail(log)
    assert tail.read_new() == b"", "there is no file yet"
    log.write_bytes(b"one\ntw")
    assert tail.read_new() == b"one\ntw"
    assert tail.read_new() == b""
    log.write_bytes(b"one\ntwo\n")
    assert tail.read_new() == b"o\n"


def test_an_unfinished_line_waits_for_its_end_unless_it_is_all_there_is(log: Path) -> None:
    tail = LogTail(log)
    log.write_bytes(b"one\nz\xc3")
    assert tail.read_new(whole_lines=True) == b"one\n"
    log.write_bytes(b"one\nz\xc3\xa9ro\n 10%")
    assert tail.read_new(whole_lines=True) == b"z\xc3\xa9ro\n"
    assert tail.read_new(whole_lines=True) == b" 10%"


def test_a_file_that_got_shorter_is_read_from_its_beginning(log: Path) -> None:
    tail = LogTail(log)
    log.write_bytes(b"of the first start\n")
    tail.read_new()
    log.write_bytes(b"of the second\n")
    assert tail.read_new() == b"of the second\n"


def test_last_lines_reads_the_end_only_and_splits_a_redrawn_progress_bar(tmp_path: Path) -> None:
    log = tmp_path / "rank0.log"
    log.write_bytes(b"x" * 100_000 + b"\n 10%\r 20%\r\n\nValueError: \xff\n")
    assert last_lines(log, 3) == [" 10%", " 20%", "ValueError: \ufffd"]
    assert last_lines(tmp_path / "none.log", 3) == [f"({tmp_path}/none.log is not there)"]


def test_an_empty_log_has_no_last_line(log: Path) -> None:
    log.write_bytes(b"\n \n")
    assert last_lines(log, 1) == []
