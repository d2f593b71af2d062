"""Bad input of every kind, as a user would type it: place, fact, next step, exit code."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = b'{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}]}\n'
ROOT = Path(__file__).parents[2]

FILES = {
    "empty.jsonl": b"",
    "notes.pdf": b"%PDF-1.7\n%\xe2\xe3\n",
    "bytes.bin": bytes(range(256)) * 20,
    "table.csv": b"a;b\n1;2\n",
    "latin.jsonl": GOOD + b'{"messages":[{"role":"user","content":"caf\xe9"}]}\n',
    "cut.jsonl": GOOD + GOOD[:40],
    "cut.json": b"[" + GOOD.strip() + b"," + GOOD[:40],
    "typo.jsonl": GOOD.replace(b'"user"', b'"usr"'),
}

CASES = [
    (["convert", "gone.csv", "-o", "o.jsonl"], 2, "gone.csv: no such file or folder"),
    (["convert", "empty.jsonl", "-o", "o.jsonl"], 3, "empty.jsonl: "),
    (["convert", "notes.pdf", "-o", "o.jsonl"], 2, "a PDF document"),
    (["convert", "bytes.bin", "-o", "o.jsonl"], 2, "binary data"),
    (
        ["convert", "table.csv", "--columns", "user=q,assistant=a", "-o", "o.jsonl"],
        2,
        "there are `a`, `b`",
    ),
    (["convert", "table.csv", "-o", "o.jsonl"], 2, "--from"),
    (
        ["convert", "table.csv", "--from", "sharegtp", "-o", "o.jsonl"],
        2,
        "did you mean `sharegpt`?",
    ),
    (["convert", "latin.jsonl", "-o", "o.jsonl"], 3, "latin.jsonl:2"),
    (["convert", "cut.jsonl", "-o", "o.jsonl"], 3, "cut.jsonl:2"),
    (["convert", "cut.json", "-o", "o.jsonl"], 3, "cut.json:2"),
    (["validate", "gone.jsonl"], 2, "gone.jsonl: no such file"),
    (["validate", "latin.jsonl"], 3, "[utf-8]"),
    (["validate", "typo.jsonl"], 3, "messages[0].role"),
    (["validate", "typo.jsonl", "--for", "v99"], 2, "v99"),
    (["inspect", "typo.jsonl:1", "--model", "v7"], 3, "finetune validate"),
    (["inspect", "typo.jsonl:9", "--model", "v7"], 2, "typo.jsonl"),
    (["inspect", "good.jsonl", "--model", "ministrel-3-8b"], 2, "ministral-3-8b"),
    (["plan", "typo.yaml"], 2, "did you mean `training`?"),
    (["run", "nomodel.yaml"], 2, "mistral-9"),
    (["run", "long.yaml"], 2, "training.seq_len"),
    (["run", "few.yaml"], 3, "data.max_rejected"),
    (["chat", "last", "--prompt", "x"], 2, "no runs here"),
    (["export", "last", "--to", "merged", "-o", "m"], 2, "no runs here"),
]
RECIPE = "model: smollm2-135m\ndata: {train: [{path: good.jsonl}], validation: 0}\n"
RECIPES = {
    "typo.yaml": RECIPE + "trainig: {epochs: 1}\n",
    "nomodel.yaml": RECIPE.replace("smollm2-135m", "mistral-9"),
    "long.yaml": RECIPE + "training: {seq_len: 100000}\n",
    "few.yaml": RECIPE.replace("good.jsonl", "cut.jsonl"),
    "good.yaml": RECIPE,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    for name, text in RECIPES.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "good.jsonl").write_bytes(
        b"".join(GOOD.replace(b"Hi", b"Hi %d" % n) for n in range(50))
    )
    return folder


@pytest.mark.parametrize(
    ("arguments", "code", "said"), CASES, ids=lambda v: " ".join(v) if isinstance(v, list) else None
)
def test_bad_input_gets_its_place_and_its_exit_code(finetune, folder, arguments, code, said):
    done = finetune(*arguments, cwd=folder)

    assert done.returncode == code
    assert said in done.stdout + done.stderr
    assert "error" in done.stderr
    assert "Traceback" not in done.stderr
    assert "fault of finetune" not in done.stderr


def test_marks_and_line_ends_are_read_and_said(finetune, folder):
    (folder / "dos.jsonl").write_bytes(b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n"))

    converted = finetune("convert", "dos.jsonl", "-o", "unix.jsonl", cwd=folder)
    checked = finetune("validate", "dos.jsonl", cwd=folder)

    assert converted.returncode == 0, converted.stderr
    assert "byte order mark" in converted.stderr
    assert (folder / "unix.jsonl").read_bytes() == GOOD
    assert checked.returncode == 3
    assert "[bom]" in checked.stderr + checked.stdout


def test_a_line_of_100_mb_is_named_in_bounded_memory(folder):
    with open(folder / "long.jsonl", "wb") as file:
        file.write(GOOD + b'{"messages":"')
        file.writelines(b"x" * 2**20 for _ in range(100))
        file.write(b'"}\n' + GOOD)
    # A process of its own in between: a child's peak begins with what its parent held when it forked.
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-m', 'finetune', 'validate', 'long.jsonl'])\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        "sys.exit(done.returncode)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 3
    assert "long.jsonl:2" in done.stdout
    assert "[line-too-long]" in done.stdout
    assert int(done.stdout.split()[-1]) * 1024 < 150e6


def test_a_full_disk_is_said_and_leaves_nothing_half_written(folder):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    done = subprocess.run(
        [sys.executable, "-m", "finetune", "convert", "good.jsonl", "-o", "full.jsonl"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "disk full" in done.stderr
    assert not [path.name for path in folder.iterdir() if "full.jsonl" in path.name]
