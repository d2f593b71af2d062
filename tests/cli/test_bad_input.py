"""Bad input of every kind, as a user would type it: place, fact, next step, exit code."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import mistral_common
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
    "wordy.jsonl": GOOD.replace(b"Hi", b"word " * 200) + GOOD,
    "pairs.jsonl": b"".join(
        b'{"prompt":[{"role":"user","content":"%d?"}],"chosen":[{"role":"assistant","content":"y"}],'
        b'"rejected":[{"role":"assistant","content":"%b"}]}\n' % (n, b"y" if n == 5 else b"n")
        for n in range(12)
    ),
    "labels.jsonl": b"".join(b'{"text":"%d","labels":{"topic":["a"]}}\n' % n for n in range(9)),
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
    (["run", "pairs-of-chats.yaml"], 2, "it holds chat records (`laplateforme`"),
    (["run", "same-answers.yaml"], 3, "same-answers ×1: pairs.jsonl:6"),
    (["run", "one-class.yaml"], 3, "`topic`: all training records have the same labels"),
    (["run", "too-long.yaml"], 3, "too long: 206 tokens, at most 100  [too-long]"),
    (
        ["plan", "mismatch.yaml"],
        2,
        "the tokenizer does not match the weights: it has 32,768 tokens",
    ),
    (["plan", "adapter.yaml"], 2, "an adapter, not a model"),
    (["run", "crowd.yaml"], 2, "local.launch.processes: 9999 is more than the"),
    (["plan", "whole.yaml"], 2, "local.full: `dpo` trains an adapter"),
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
    "pairs-of-chats.yaml": RECIPE + "method: dpo\n",
    "same-answers.yaml": RECIPE.replace("good", "pairs") + "method: dpo\n",
    "one-class.yaml": RECIPE.replace("good", "labels") + "method: classifier\n",
    "too-long.yaml": RECIPE.replace("good", "wordy").replace("smollm2-135m", "./model")
    + "training: {seq_len: 100}\n",
    "mismatch.yaml": RECIPE.replace("smollm2-135m", "./mismatch"),
    "adapter.yaml": RECIPE.replace("smollm2-135m", "./adapter"),
    "crowd.yaml": RECIPE + "local: {launch: {processes: 9999}}\n",
    "whole.yaml": RECIPE + "method: dpo\nlocal: {full: true}\n",
}


def write_models(folder):
    """Write what looks like a model, like one with another's tokenizer, and like an adapter."""
    name = "mistral_instruct_tokenizer_240323.model.v3"
    data = Path(mistral_common.__file__).parent / "data" / name
    for model, rows in {"model": 32768, "mismatch": 64}.items():
        (folder / model).mkdir()
        (folder / model / "tokenizer.model.v3").write_bytes(data.read_bytes())
        (folder / model / "config.json").write_text(f'{{"vocab_size":{rows}}}')
        (folder / model / "model.safetensors").write_bytes(b"")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text('{"peft_type":"LORA"}')


@pytest.fixture
def folder(tmp_path):
    """A folder of its own for each case: some of them leave runs behind."""
    write_models(tmp_path)
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    for name, text in RECIPES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "good.jsonl").write_bytes(
        b"".join(GOOD.replace(b"Hi", b"Hi %d" % n) for n in range(50))
    )
    return tmp_path


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
