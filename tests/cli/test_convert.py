"""`finetune convert` and `finetune prepare` as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHAREGPT = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}
RECORD = {
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
}


@pytest.fixture
def run(tmp_path):
    def call(*arguments, stdin=b"", limit=None):
        command = [sys.executable, "-m", "finetune", *map(str, arguments)]
        if limit is not None:
            command = ["bash", "-c", f'ulimit -f {limit}; exec "$@"', "-", *command]
        return subprocess.run(
            command,
            cwd=tmp_path,
            input=stdin,
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    return call


def test_convert_writes_every_valid_record_and_exits_3_for_the_others(run, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(SHAREGPT) + '\n{"conversations": 3}\n')
    (tmp_path / "b.csv").write_text("prompt;completion;id\nHi;Hello;1\nBye;;2\n")
    done = run("convert", "a.jsonl", "b.csv", "-o", "out.jsonl")
    assert done.returncode == 3
    out = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in out] == [RECORD, RECORD]
    words = done.stderr.decode()
    assert "a.jsonl:2: conversations: expected a list, got a number  [type]" in words
    assert "b.csv:3: messages[1]: neither content nor tool calls  [empty-assistant]" in words
    assert "b.csv: CSV, pairs: columns `prompt` and `completion`" in words
    assert "`id` was not used (2 rows)" in words
    assert "error: 1 row of 4 and 1 record of 3 rejected; 2 records written" in words
    assert done.stdout == b""


def test_convert_fills_templates_and_counts_their_columns_as_used(run, tmp_path):
    (tmp_path / "a.csv").write_text("subject,body,answer,id\nBill,Too much,Sorry,1\n")
    columns = r"user={subject}, again:\n\n{body},assistant=answer"
    done = run("convert", "a.csv", "--columns", columns, "-o", "-")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["messages"][0]["content"] == "Bill, again:\n\nToo much"
    assert b"`id` was not used (1 row)" in done.stderr
    assert b"`subject` was not used" not in done.stderr


def test_convert_groups_a_table_of_messages(run, tmp_path):
    (tmp_path / "t.csv").write_text("id,who,body\n1,agent,Hello\n2,customer,Bye\n1,bot,Hi\n")
    columns = "conversation=id,role=who,content=body"
    command = ("convert", "t.csv", "--columns", columns, "--roles")
    done = run(*command, "agent=assistant,customer=user,bot=user", "--json", "-o", "out.jsonl")
    assert done.returncode == 3  # conversations that end with or open with the wrong side
    account = json.loads(done.stdout)
    assert account["rows"] == {"read": 3, "converted": 3, "rejected": 0}
    assert account["records"]["made"] == 2
    done = run(*command, "agent=asistant", "-o", "o")
    assert done.returncode == 2
    assert b"--roles: `asistant` is not a role" in done.stderr
    assert b"did you mean `assistant`?" in done.stderr


def test_convert_reads_a_source_tree(run, tmp_path):
    for number in range(25):
        path = tmp_path / "repo" / f"m{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"x = {number}\n")
    (tmp_path / "repo" / "LICENSE").write_text("MIT\n")
    done = run("convert", "repo", "--from", "code", "--json", "-o", "out.jsonl")
    assert done.returncode == 0, done.stderr
    account = json.loads(done.stdout)
    assert account["rows"] == {"read": 26, "converted": 25, "rejected": 1}
    assert account["by_rule"] == {"licence-file": 1}
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert first == {"text": "# m0.py\nx = 0\n"}


def test_convert_tells_its_account_as_json(run, tmp_path):
    (tmp_path / "a.csv").write_text("frage,antwort\nHi,Hello\n")
    done = run("convert", "a.csv", "--columns", "user=frage,assistant=antwort", "--json", "-o", "o")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {
        "rows": {"read": 1, "converted": 1, "rejected": 0},
        "records": {"made": 1, "written": 1, "rejected": 0, "removed": 0},
        "by_rule": {},
        "warnings": {},
        "fixes": {},
        "unused": {},
        "format": "pairs",
        "kind": "chat",
    }
    assert done.stderr == b""


def test_convert_parts_the_labels_of_a_cell(run, tmp_path):
    (tmp_path / "a.csv").write_text('body,topics,flag\nHi,"bill,refund",a\nHo,bill,b\n')
    columns = "text=body,labels.topic=topics split by ,,labels.is-new=flag"
    done = run("convert", "a.csv", "--columns", columns, "-o", "-")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["labels"] for line in done.stdout.splitlines()] == [
        {"topic": ["bill", "refund"], "is-new": "a"},
        {"topic": ["bill"], "is-new": "b"},
    ]


def test_joined_labels_are_told_wherever_data_are_looked_at(run, tmp_path):
    rows = "".join(f"row {n},{'bill;refund' if n % 2 else 'bill'}\n" for n in range(8))
    (tmp_path / "a.csv").write_text(f"text,label\n{rows}")
    said = "1 class made of others  [joined-labels]"
    done = run("convert", "a.csv", "-o", "out.jsonl", "--json")
    assert json.loads(done.stdout)["warnings"] == {"joined-labels": 1}
    assert f"warning: labels.*: {said}" in run("convert", "a.csv", "-o", "o").stderr.decode()
    done = run("init", "a.csv", "-o", "a.yaml", "--json")
    assert json.loads(done.stdout)["sources"][0]["noted"] == [said]
    assert f"warning: {said}" in run("prepare", "a.yaml").stdout.decode()


def test_no_name_of_the_data_moves_the_cursor_or_forges_a_line(run, tmp_path):
    key = "\x1b[2J\nerror: forged"
    talk = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
    (tmp_path / "a.jsonl").write_text(json.dumps({**talk, key: 1}) + "\n")
    (tmp_path / "b\nerror: forged.csv").write_text("question,answer\n1,\n")
    words = run("convert", ".", "-o", "out.jsonl").stderr.decode()
    assert "`\\u001b[2J\\nerror: forged` was not used" in words
    assert "b\\nerror: forged.csv:2: messages[1]" in words
    assert "\nerror: forged" not in words
    run("init", "a.jsonl", "-o", "a.yaml")
    assert "\\nerror: forged" in (tmp_path / "a.yaml").read_text()


def test_convert_reads_stdin_and_writes_stdout(run):
    rows = json.dumps([SHAREGPT, SHAREGPT]).encode()
    done = run("convert", "-", "--from", "sharegpt", "-o", "-", stdin=rows)
    assert done.returncode == 0
    assert [json.loads(line) for line in done.stdout.splitlines()] == [RECORD, RECORD]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.csv", "-o", "o"], 2, "error: missing.csv: no such file or folder"),
        (["empty.csv", "-o", "o"], 3, "error: empty.csv: the file is empty  [empty-file]"),
        (["a.pdf", "-o", "o"], 2, "error: a.pdf: unknown format: it looks like a PDF document"),
        (["a.csv", "-o", "o"], 2, "error: a.csv: unknown format: there are `x`, `y`"),
        (["a.csv", "-o", "a.csv"], 2, "error: a.csv: is input and output"),
        (["a.csv", "-o", "."], 2, "error: .: is a folder"),
        (["a.csv", "--from", "csv", "-o", "o"], 2, "error: csv: unknown format"),
        (["a.csv", "--kind", "chta", "-o", "o"], 2, "error: a.csv: chta: no such kind of record"),
        (["a.csv", "--columns", "user", "-o", "o"], 2, "error: --columns: is not a=b,c=d"),
        (
            ["a.csv", "--columns", "user=z,assistant=y", "-o", "o"],
            2,
            "error: a.csv: columns.user: no column `z`: there are `x`, `y`",
        ),
        (["a.csv", "--json", "-o", "-"], 2, "error: --json: stdout holds the records already"),
    ],
)
def test_convert_says_what_is_wrong_with_its_input(run, tmp_path, arguments, code, message):
    (tmp_path / "empty.csv").touch()
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    done = run("convert", *arguments)
    assert done.returncode == code
    assert done.stderr.decode().startswith(message)
    assert not (tmp_path / "o").exists()
    assert (tmp_path / "a.csv").read_text() == "x,y\n1,2\n"


def test_full_disk_leaves_nothing_half_written(run, tmp_path):
    (tmp_path / "a.jsonl").write_text(
        "".join(f'{{"prompt": "{i}", "completion": "{i}"}}\n' for i in range(3000))
    )
    (tmp_path / "r.yaml").write_text("model: smollm2-135m\ndata: {train: [{path: a.jsonl}]}\n")
    for command in (["convert", "a.jsonl", "-o", "out.jsonl"], ["prepare", "r.yaml"]):
        done = run(*command, limit=64)
        assert done.returncode == 1
        assert b"disk full: nothing half-written was kept" in done.stderr
        assert not (tmp_path / "out.jsonl").exists()
        assert not list(tmp_path.glob("datasets/*"))
        assert not list(tmp_path.glob("**/.*tmp*"))


def test_prepare_shows_the_account_and_is_quick_the_second_time(run, tmp_path):
    rows = [json.dumps(SHAREGPT), json.dumps(SHAREGPT), '{"conversations": null}']
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    (tmp_path / "r.yaml").write_text(
        "model: smollm2-135m\ndata: {train: [{path: a.jsonl}], validation: 0}\n"
    )
    done = run("prepare", "r.yaml")
    assert done.returncode == 3
    assert b"1 row of 3 rejected" in done.stderr
    assert b"-s data.max_rejected=0.334" in done.stderr
    first = run("prepare", "r.yaml", "-s", "data.max_rejected=0.334")
    assert first.returncode == 0
    assert "rows     3 read = 2 converted + 1 rejected" in first.stdout.decode()
    assert "records  2 made = 1 written + 0 rejected + 1 removed" in first.stdout.decode()
    again = run("prepare", "r.yaml", "-s", "data.max_rejected=0.334", "--json")
    told = json.loads(again.stdout)
    assert "1 record of 3 rows" in (tmp_path / told["report"]).read_text()
    assert told["lengths"]["records"] == told["manifest"]["profile"]["records"] == 1
    assert told["manifest"]["by_rule"] == {"duplicate": 1, "null": 1}
    quiet = run("prepare", "r.yaml", "-s", "data.max_rejected=0.334", "-q")
    assert quiet.stdout.decode().strip() == told["folder"]


CALLS = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Lyon?"},
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "a1b2c3d4e",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Lyon"}'},
                }
            ],
        },
        {"role": "tool", "content": "21", "tool_call_id": "a1b2c3d4e"},
        {"role": "assistant", "content": "21 degrees."},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "Weather of a city",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        }
    ],
}


TEXT = {"text": "A document."}
PAIR = {
    "prompt": [{"role": "user", "content": "Hi"}],
    "chosen": [{"role": "assistant", "content": "Hello"}],
    "rejected": [{"role": "assistant", "content": "What?"}],
}
RATED = {"prompt": PAIR["prompt"], "completion": PAIR["chosen"], "label": True}


@pytest.mark.parametrize(
    ("to", "record"),
    [
        *(("openai", record) for record in (RECORD, CALLS)),
        ("sharegpt", RECORD),
        ("alpaca", RECORD),
        *(("trl", record) for record in (RECORD, CALLS, TEXT, PAIR, RATED)),
    ],
)
def test_convert_there_and_back_through_a_pipe(tmp_path, to, record):
    (tmp_path / "x.jsonl").write_text(json.dumps(record, separators=(",", ":")) + "\n")
    finetune = f"{sys.executable} -m finetune convert"
    done = subprocess.run(
        ["bash", "-c", f"{finetune} x.jsonl --to {to} -o - | {finetune} - --from {to} -o -"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == (tmp_path / "x.jsonl").read_bytes()


def test_convert_rejects_what_the_format_to_write_cannot_hold(run, tmp_path):
    (tmp_path / "x.jsonl").write_text(f"{json.dumps(RECORD)}\n{json.dumps(CALLS)}\n")
    done = run("convert", "x.jsonl", "--to", "alpaca", "-o", "out.jsonl", "--json")
    assert done.returncode == 3
    assert json.loads((tmp_path / "out.jsonl").read_text()) == {
        "instruction": "Hi",
        "input": "",
        "output": "Hello",
    }
    assert "x.jsonl:2: tools: `alpaca` has no tools  [not-in-format]" in done.stderr.decode()
    account = json.loads(done.stdout)
    assert account["records"] == {"made": 2, "written": 1, "rejected": 1, "removed": 0}


def test_convert_refuses_a_kind_that_the_format_to_write_does_not_have(run, tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "T", "labels": {"topic": "a"}}\n')
    done = run("convert", "x.jsonl", "--to", "openai", "-o", "out.jsonl")
    assert done.returncode == 2
    assert "the format `openai` holds no classifier records" in done.stderr.decode()
    assert not (tmp_path / "out.jsonl").exists()


def test_a_file_that_cannot_be_read_costs_only_itself(run, tmp_path):
    (tmp_path / "a.csv").write_text("question,answer\nQ,A\n")
    (tmp_path / "b.csv").touch()
    (tmp_path / "c.jsonl").write_text("}\n")
    done = run("convert", "a.csv", "b.csv", "c.jsonl", "-o", "out.jsonl")

    assert done.returncode == 3
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1
    assert b"b.csv: the file is empty  [empty-file]" in done.stderr
    assert b"c.jsonl:1: " in done.stderr
    assert b"0 rows of 1 rejected; 2 files not read; 1 record written" in done.stderr
