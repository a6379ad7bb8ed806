import errno
import os
from functools import partial

import pytest

from carousel import files
from carousel.errors import OutputError
from carousel.files import replace_directory, replacing, settle_directory, sweep, write_file, write_flushed, write_json
from faults import intercept


class CrashError(BaseException):
    """The process is gone: nothing is cleaned up after it."""


def fill_with(text):
    def fill(directory):
        for name in ("a", "b"):
            write_flushed(directory / name, text.encode())

    return fill


def text_of(directory):
    texts = {path.read_text() for path in directory.iterdir()}
    assert len(texts) == 1, "half of one and half of another"
    assert sorted(path.name for path in directory.iterdir()) == ["a", "b"]
    return texts.pop()


def count_operations(monkeypatch, action):
    seen = []
    with monkeypatch.context() as patch:
        intercept(seen.append, patch.setattr)
        action()
    return seen


def crash_at(number, monkeypatch, action):
    """Run `action` until its operation `number`; what it would clean up after that is left."""
    left = [number]

    def hook(operation):
        left[0] -= 1
        if left[0] < 0:
            raise CrashError(operation)

    with monkeypatch.context() as patch:
        intercept(hook, patch.setattr)
        with pytest.raises(CrashError):
            action()


def test_a_crash_at_any_operation_leaves_the_old_or_the_new_directory(tmp_path, monkeypatch):
    operations = count_operations(monkeypatch, lambda: replace_directory(tmp_path / "dry", fill_with("0")))
    replace_directory(tmp_path / "dry2", fill_with("0"))
    again = count_operations(monkeypatch, lambda: replace_directory(tmp_path / "dry2", fill_with("1")))
    assert {"makedirs", "open", "write", "fsync", "rename"} <= set(operations)
    for number in range(len(again)):
        path = tmp_path / str(number) / "last"
        replace_directory(path, fill_with("old"))
        if "rmtree" in again[number:]:  # removing the old one is the end, where errors are let pass
            crash_at(number, monkeypatch, lambda path=path: replace_directory(path, fill_with("new")))
        settle_directory(path)
        assert text_of(path) in ("old", "new")
        assert [entry.name for entry in path.parent.iterdir()] == ["last"]


def test_a_crash_at_any_operation_leaves_two_whole_directories_where_the_previous_is_kept(tmp_path, monkeypatch):
    def prepare(folder):
        path, before = folder / "last", folder / "before"
        for text in ("1", "2"):
            replace_directory(path, fill_with(text), previous=before)
        return path, before

    path, before = prepare(tmp_path / "dry")
    operations = count_operations(monkeypatch, lambda: replace_directory(path, fill_with("3"), previous=before))
    assert {"makedirs", "open", "write", "fsync", "rename", "rmtree", "unlink"} <= set(operations)
    seen = set()
    for number in range(len(operations)):
        path, before = prepare(tmp_path / str(number))
        replace = partial(replace_directory, path, fill_with("3"), previous=before)
        crash_at(number, monkeypatch, replace)
        # At this very moment one of the three is whole and in a place where it is looked for.
        places = [path, before, path.with_name(".last.new")]
        assert any(place.exists() and len(list(place.iterdir())) == 2 for place in places)
        settle_directory(path, before)
        seen.add(text_of(path))
        assert not path.with_name(".last.new").exists()
        replace_directory(path, fill_with("4"), previous=before)
        assert text_of(path) == "4"
        assert text_of(before) in ("2", "3")
    assert seen == {"2", "3"}


def test_the_one_before_is_kept_under_its_name(tmp_path):
    path, before = tmp_path / "last", tmp_path / "before"
    for text in ("1", "2", "3"):
        replace_directory(path, fill_with(text), previous=before)
    assert (text_of(path), text_of(before)) == ("3", "2")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_any_operation_that_the_system_refuses_is_an_error_of_ours_and_the_old_file_stays(tmp_path, monkeypatch, number):
    path = tmp_path / "kept.txt"
    operations = count_operations(monkeypatch, lambda: write_file(path, b"old"))
    assert {"open", "write", "fsync", "replace"} <= set(operations)
    refused = operations.index("replace")
    for place in range(refused + 1):
        seen = []

        def hook(operation, seen=seen, place=place):
            seen.append(operation)
            if len(seen) == place + 1:
                raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            intercept(hook, patch.setattr)
            with pytest.raises(
                OutputError, match=rf"kept\.txt: the file cannot be written(.|\n)*{os.strerror(number)}(.|\n)*try:"
            ):
                write_file(path, b"new")
        assert path.read_bytes() == b"old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["kept.txt"]


def test_a_directory_that_cannot_be_written_stays_what_it_was(tmp_path, monkeypatch):
    path = tmp_path / "last"
    replace_directory(path, fill_with("old"))
    operations = count_operations(monkeypatch, lambda: replace_directory(path, fill_with("old")))
    renames = [place for place, name in enumerate(operations) if name == "rename"]
    assert len(renames) == 2  # the old one aside, the new one in its place
    for place in range(renames[1] + 1):
        seen = []

        def hook(operation, seen=seen, place=place):
            seen.append(operation)
            if len(seen) == place + 1:
                raise OSError(errno.ENOSPC, "full")

        with monkeypatch.context() as patch:
            intercept(hook, patch.setattr)
            with pytest.raises(OutputError, match=r"the directory cannot be written(.|\n)*make room"):
                replace_directory(path, fill_with("new"))
        assert text_of(path) == "old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["last"]


def test_a_full_device_is_said(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    with pytest.raises(OutputError, match=r"No space left(.|\n)*make room"), files.writing(tmp_path):
        write_flushed("/dev/full", b"x" * 100)


def test_a_file_system_without_flushes_of_directories_is_no_error(tmp_path, monkeypatch):
    def hook(operation):
        if operation == "fsync" and flushed:
            raise OSError(errno.EINVAL, "no flush here")
        flushed.append(operation)

    flushed = []
    intercept(hook, monkeypatch.setattr)
    files.flush_directory(tmp_path)
    with pytest.raises(OSError, match="no flush"):
        write_flushed(tmp_path / "a", b"x")


def test_what_a_killed_process_left_is_swept_away_and_nothing_else(tmp_path):
    (tmp_path / "kept").mkdir()
    for name in (".metrics.0123456789ab.csv", ".a.0123456789ab", "metrics.csv", ".hidden", ".b.0123.csv"):
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.0123.csv", ".hidden", "kept", "metrics.csv"]
    with replacing(tmp_path / "metrics.csv") as temporary:
        temporary.touch()
        sweep(tmp_path)  # knows the names that we give
        assert not temporary.exists()
        temporary.touch()


def test_json_is_flushed_and_renamed(tmp_path, monkeypatch):
    seen = count_operations(monkeypatch, lambda: write_json(tmp_path / "a.json", {"a": 1}))
    assert seen.index("fsync") < seen.index("replace") < len(seen) - 1 - seen[::-1].index("fsync")
