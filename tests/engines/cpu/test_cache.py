"""The disk cache: what is found is what was stored for exactly this question, and no fault of the disk is ever an error."""

import dataclasses
import errno
import logging
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import llvmlite
import pytest
from hypothesis import given
from hypothesis import strategies as st

import carousel
from carousel.engines.cpu import cache
from carousel.engines.cpu.target import target

HERE = target()
POSIX = pytest.mark.skipif(os.name == "nt", reason="files have no owner and mode on Windows")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder for the cache that does not exist yet."""
    path = tmp_path / "below" / "cache"
    monkeypatch.setenv("CAROUSEL_CACHE", str(path))
    return path


@pytest.fixture(autouse=True)
def lines(monkeypatch):
    """The log's lines as they come; the "once per process" begins anew."""
    monkeypatch.setattr(cache, "_told", False)
    seen = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    logger = logging.getLogger("carousel")
    logger.addHandler(handler)
    yield seen
    logger.removeHandler(handler)


def name_of(*key):
    return cache.digest(key, HERE)


def age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


# --- names ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_equal_names_mean_equal_keys(a, b):
    assert (cache.digest(a, HERE) == cache.digest(b, HERE)) == (a == b)


@pytest.mark.parametrize(
    "change",
    [{"triple": "x"}, {"cpu": "x"}, {"features": "+x"}, {"bits": 64}, {"fma": not HERE.fma}],
    ids=lambda change: next(iter(change)),
)
def test_another_cpu_is_another_name(change):
    assert cache.digest(["k"], dataclasses.replace(HERE, **change)) != name_of("k")


@pytest.mark.parametrize(
    ("owner", "attribute", "value"),
    [
        (carousel, "__version__", "0"),
        (llvmlite, "__version__", "0"),
        (cache.llvm, "llvm_version_info", (1, 2, 3)),
        (cache, "_sources", lambda: "other"),
    ],
    ids=["carousel", "llvmlite", "llvm", "sources"],
)
def test_another_maker_is_another_name(monkeypatch, owner, attribute, value):
    before = name_of("k")
    monkeypatch.setattr(owner, attribute, value)
    assert name_of("k") != before


def test_a_changed_source_is_another_name(tmp_path, monkeypatch):
    for file in ("engines/cpu/loop.py", "graph/kinds/base.py", "nn/layer.py"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("a")
    monkeypatch.setattr(carousel, "__file__", str(tmp_path / "__init__.py"))
    sources = cache._sources.__wrapped__
    seen = {sources()}
    (tmp_path / "nn/layer.py").write_text("b")
    assert sources() in seen
    for file in ("engines/cpu/loop.py", "graph/kinds/base.py"):
        (tmp_path / file).write_text("b")
        assert sources() not in seen
        seen.add(sources())
    (tmp_path / "graph/kinds/base.py").rename(tmp_path / "graph/kinds/other.py")
    assert sources() not in seen


def test_a_package_without_sources_still_has_names(tmp_path, monkeypatch):
    monkeypatch.setattr(carousel, "__file__", str(tmp_path / "library.zip" / "__init__.py"))
    assert len(cache._sources.__wrapped__()) == 64


# --- storing ----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_what_is_stored_is_read(tmp_path_factory, code):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAROUSEL_CACHE", str(tmp_path_factory.getbasetemp() / "round"))
        cache.write(name_of("k"), code)
        assert cache.read(name_of("k")) == code


@pytest.mark.usefixtures("place")
def test_what_was_not_stored_is_not_found(lines):
    cache.write(name_of("a"), b"code")
    assert cache.read(name_of("b")) is None
    cache.discard(name_of("a"))
    cache.discard(name_of("a"))
    assert cache.read(name_of("a")) is None
    assert lines == []


@POSIX
def test_the_folder_and_its_files_are_the_users_alone(place):
    cache.write(name_of("a"), b"code")
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()] == [0o600]


DAMAGES = {
    "empty": lambda data: b"",
    "half a header": lambda data: data[:20],
    "header alone": lambda data: data[:-9],
    "a byte lost": lambda data: data[:-1],
    "a byte more": lambda data: data + b"x",
    "other magic": lambda data: b"C" + data[1:],
    "other format": lambda data: data[:8] + b"\2" + data[9:],
    "another key": lambda data: data[:15] + bytes([data[15] ^ 1]) + data[16:],
    "a bit of the code": lambda data: data[:-3] + bytes([data[-3] ^ 16]) + data[-2:],
    "zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_seen_and_repaired(place, lines, damage):
    name = name_of("a")
    cache.write(name, b"some code")
    (path,) = place.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert cache.read(name) is None
    assert cache.read(name) is None
    assert len(lines) == 1
    assert "damaged" in lines[0]
    cache.write(name, b"some code")
    assert cache.read(name) == b"some code"


def test_a_file_under_another_name_is_refused(place):
    cache.write(name_of("a"), b"code of a")
    (path,) = place.iterdir()
    path.rename(place / f"{name_of('b')}.code")
    assert cache.read(name_of("b")) is None


@pytest.mark.usefixtures("place")
def test_readers_see_all_of_a_file_or_none_of_it(lines):
    name, codes = name_of("a"), [bytes([i]) * 300_000 for i in range(4)]

    def work(i):
        if i % 2:
            cache.write(name, codes[i % 4])
        found = cache.read(name)
        return found is None or found in codes

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(60)))
    assert lines == []


# --- faults -----------------------------------------------------------------------------------------------------------


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


class FullFile:
    """A file that can be opened but takes nothing."""

    def __init__(self, handle, _mode):
        self.handle = handle

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.handle)

    write = full_disk


FULL = {
    "making the file": lambda patch: patch.setattr(cache.tempfile, "mkstemp", full_disk),
    "writing it": lambda patch: patch.setattr(cache, "open", FullFile, raising=False),
    "renaming it": lambda patch: patch.setattr(cache.os, "replace", full_disk),
}


@pytest.mark.parametrize("fault", FULL.values(), ids=FULL)
def test_a_full_disk_is_survived(place, lines, fault):
    cache.write(name_of("old"), b"old")
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        cache.write(name_of("a"), b"code")
        cache.write(name_of("b"), b"code")
    assert len(lines) == 1
    assert "No space left" in lines[0]
    assert cache.read(name_of("a")) is None
    assert cache.read(name_of("old")) == b"old"
    assert len(list(place.iterdir())) == 1


def test_a_file_that_cannot_be_read_is_survived(place, lines):
    cache.write(name_of("a"), b"code")
    (path,) = place.iterdir()
    path.unlink()
    path.mkdir()  # reading it fails, even for an administrator
    assert cache.read(name_of("a")) is None
    cache.write(name_of("a"), b"code")
    assert len(lines) == 1


@pytest.mark.parametrize("below", [(), ("sub",), ("sub", "sub")], ids=["itself", "below", "deep below"])
def test_a_file_where_the_folder_should_be_is_survived(tmp_path, monkeypatch, lines, below):
    file = tmp_path / "file"
    file.write_text("mine")
    monkeypatch.setenv("CAROUSEL_CACHE", str(file.joinpath(*below)))
    cache.write(name_of("a"), b"code")
    assert cache.read(name_of("a")) is None
    assert cache.info() == cache.Info(None, 0, 0)
    assert cache.clear() == 0
    assert file.read_text() == "mine"
    assert len(lines) == 1


@POSIX
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702], ids=oct)
def test_a_folder_that_others_can_write_to_is_refused(place, lines, mode):
    cache.write(name_of("a"), b"code")
    place.chmod(mode)
    assert cache.read(name_of("a")) is None
    cache.write(name_of("b"), b"code")
    assert len(lines) == 1
    assert f"'{place}' can be written by other users" in lines[0]
    place.chmod(0o755)
    assert cache.read(name_of("a")) == b"code"
    assert cache.read(name_of("b")) is None


@POSIX
def test_another_users_folder_is_refused(place, lines, monkeypatch):
    cache.write(name_of("a"), b"code")
    monkeypatch.setattr(os, "geteuid", lambda: place.stat().st_uid + 1)
    assert cache.read(name_of("a")) is None
    assert len(lines) == 1
    assert "belongs to another user" in lines[0]


# --- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", "off"])
def test_the_cache_can_be_switched_off(monkeypatch, lines, value):
    monkeypatch.setenv("CAROUSEL_CACHE", value)
    cache.write(name_of("a"), b"code")
    assert cache.read(name_of("a")) is None
    assert cache.info().path is None
    assert lines == []


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x/cache"}, "/x/cache/carousel"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/carousel"),
        ("linux", {}, "/home/me/.cache/carousel"),
        ("darwin", {"XDG_CACHE_HOME": "/x/cache"}, "/home/me/Library/Caches/carousel"),
        ("win32", {"LOCALAPPDATA": "/users/me/local"}, "/users/me/local/carousel"),
        ("win32", {}, "/home/me/AppData/Local/carousel"),
        ("linux", {"CAROUSEL_CACHE": "~/here"}, "/home/me/here"),
    ],
)
@POSIX
def test_each_system_has_its_place(monkeypatch, platform, variables, expected):
    for variable in ("CAROUSEL_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(cache.sys, "platform", platform)
    assert cache._wanted() == Path(expected)


def homeless():
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("home", [homeless, lambda: Path("~")], ids=["none", "relative"])
def test_a_user_without_a_home_has_no_cache(monkeypatch, lines, home):
    for variable in ("CAROUSEL_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(cache.Path, "home", home)
    cache.write(name_of("a"), b"code")
    assert cache.read(name_of("a")) is None
    assert len(lines) == 1
    assert "no home" in lines[0]


# --- size -------------------------------------------------------------------------------------------------------------


def fill(place, count):
    """Files of 1,000 bytes of code, the first the oldest, an hour apart."""
    for i in range(count):
        cache.write(name_of(str(i)), bytes(1000))
    for i in range(count):
        age(place / f"{name_of(str(i))}.code", (count - i) * 3600)


def kept(count):
    return [i for i in range(count) if cache.read(name_of(str(i))) is not None]


@pytest.mark.parametrize(
    ("limit", "value"), [("MAX_FILES", 3), ("MAX_BYTES", 3 * 1100)], ids=["by number", "by size"]
)  # a file is its code and 85 bytes
def test_the_least_recently_used_go_first(place, monkeypatch, limit, value):
    fill(place, 5)
    monkeypatch.setattr(cache, limit, value)
    cache.write(name_of("5"), bytes(1000))
    assert kept(6) == [3, 4, 5]


def test_a_hit_counts_as_use_once_a_day(place, monkeypatch):
    fill(place, 3)
    old, recent = (place / f"{name_of(i)}.code" for i in "01")
    age(old, 30 * 24 * 3600)
    before = recent.stat().st_mtime
    assert kept(3) == [0, 1, 2]
    assert recent.stat().st_mtime == before
    assert abs(old.stat().st_mtime - time.time()) < 60
    monkeypatch.setattr(cache, "MAX_FILES", 2)
    cache.write(name_of("3"), bytes(1000))
    assert kept(4) == [0, 3]


def test_one_file_larger_than_the_limit_is_still_kept(place, monkeypatch):
    fill(place, 2)
    monkeypatch.setattr(cache, "MAX_BYTES", 10)
    cache.write(name_of("2"), bytes(1000))
    assert kept(3) == [2]


def test_what_killed_processes_left_goes_after_a_day(place):
    fill(place, 1)
    for name, hours in (("stale", 25), ("fresh", 1)):
        (place / f"{name}.code-tmp").write_bytes(b"half")
        age(place / f"{name}.code-tmp", hours * 3600)
    cache.write(name_of("1"), b"code")
    assert [path.name for path in place.glob("*.code-tmp")] == ["fresh.code-tmp"]


def test_info_and_clear(place):
    assert cache.info() == cache.Info(place, 0, 0)
    fill(place, 4)
    (place / "notes.txt").write_text("not ours")
    (place / "half.code-tmp").write_text("ours")
    assert cache.info() == cache.Info(place, 4, 4 * (1000 + cache._HEADER.size))
    assert cache.clear() == 4
    assert [path.name for path in place.iterdir()] == ["notes.txt"]
    assert cache.info() == cache.Info(place, 0, 0)
