from __future__ import annotations

import bz2
import doctest
import gzip
import io
import lzma
import os
import signal
import subprocess
import sys

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from finetune import files
from finetune.errors import RunLocked, UsageError


def test_an_atomic_file_appears_whole_and_knows_its_digest(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with files.AtomicFile(path) as file:
        file.write(b"one ")
        file.write(b"two")
        assert not path.exists()

    assert path.read_bytes() == b"one two"
    assert (file.size, file.sha256) == (7, files.digest(path))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), files.AtomicFile(path) as file:
        file.write(b"new")
        raise RuntimeError

    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("a.txt", b"old")]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    code = (
        "import resource, signal, sys; from pathlib import Path; from finetune import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "files.write_atomic(Path(sys.argv[1]), b'x' * 5000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )

    assert "File too large" in done.stderr
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("a.txt", b"old")]


def test_a_torn_journal_line_is_left_out_and_the_next_one_is_kept(tmp_path):
    path = tmp_path / "events.jsonl"
    files.append_line(path, {"n": 1})
    with open(path, "ab") as file:
        file.write(b'{"n": 2')
    files.append_line(path, {"n": 3})

    assert files.read_journal(path) == [{"n": 1}, {"n": 3}]


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [
        ("", bytes),
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
        (".zst", zstd.compress),
        (".named-otherwise", zstd.compress),
        (".gz", lambda data: gzip.compress(data[:5]) + gzip.compress(data[5:])),
        (".bz2", lambda data: bz2.compress(data[:5]) + bz2.compress(data[5:])),
        (".xz", lambda data: lzma.compress(data[:5]) + bytes(8) + lzma.compress(data[5:])),
        (".zst", lambda data: zstd.compress(data[:5]) + zstd.compress(data[5:])),
        (".zst", lambda data: b"\x50\x2a\x4d\x18\x04\0\0\0size" + zstd.compress(data)),
    ],
)
def test_compressed_files_are_read_as_they_are(tmp_path, suffix, compress):
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(compress(b"one\ntwo\r\n\nlast"))

    with files.open_bytes(path) as file:
        lines = [(line.number, line.data) for line in files.read_lines(file)]

    assert lines == [(1, b"one"), (2, b"two"), (3, b""), (4, b"last")]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstd.compress])
@pytest.mark.parametrize("fault", ["cut", "flipped", "more behind"])
def test_lines_before_the_damage_are_given_then_it_is_raised(tmp_path, compress, fault):
    lines = [f"{n} {n * 7919 % 10007}".encode() for n in range(60_000)]
    data = compress(b"\n".join(lines) + b"\n")
    half = len(data) // 2
    data = {
        "cut": data[:half],
        "flipped": data[:half] + bytes([data[half] ^ 255]) + data[half + 1 :],
        "more behind": data + b"not compressed",
    }[fault]
    path = tmp_path / "a"
    path.write_bytes(data)
    found = []

    with files.open_bytes(path) as file, pytest.raises(files.Damaged, match="truncated") as caught:
        found += (line.data for line in files.read_lines(file))

    assert caught.value.line == len(found) + 1
    if fault != "flipped":  # what a changed byte changes may show only at the end
        assert found == lines[: len(found)]
        assert len(found) == len(lines) or fault == "cut"


def test_data_that_expand_without_end_are_stopped(tmp_path):
    path = tmp_path / "a.zst"
    block = b"0" * 2**20
    with zstd.open(path, "wb") as file:
        for _ in range(1200):
            file.write(block)

    with files.open_bytes(path) as file, pytest.raises(files.Damaged, match="bomb"):
        assert not list(files.read_lines(file))


@given(st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"").replace(b"\r", b""))))
def test_every_line_is_read_or_named_too_long(lines):
    limit = 20
    file = io.BytesIO(b"".join(line + b"\n" for line in lines))

    read = list(files.read_lines(file, limit=limit))

    assert [line.data for line in read] == [line if len(line) <= limit else None for line in lines]
    assert [line.number for line in read] == list(range(1, len(lines) + 1))


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_what_cannot_be_opened_is_a_usage_error(tmp_path, name):
    with pytest.raises(UsageError):
        files.open_bytes(tmp_path / name)


def test_a_lock_names_its_holder_and_is_free_after_a_kill(tmp_path):
    path = tmp_path / ".lock"
    code = (
        "import sys, time; from pathlib import Path; from finetune.files import Lock\n"
        "with Lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert files.Lock(path).held()
        with pytest.raises(RunLocked, match=f"process {other.pid} ") as caught, files.Lock(path):
            pass
        assert caught.value.exit_code == 9
        os.kill(other.pid, signal.SIGKILL)
        other.wait()

    assert not files.Lock(path).held()
    with files.Lock(path) as lock:
        assert lock.held()


def test_the_examples_hold():
    assert doctest.testmod(files).failed == 0


def test_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with files.AtomicFile(path) as file:
        file.write(b"data")

    assert os.read(reader, 10) == b"data"
    assert path.is_fifo()
    assert list(tmp_path.iterdir()) == [path]
    os.close(reader)
