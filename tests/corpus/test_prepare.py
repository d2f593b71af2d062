"""`prepare`: every row accounted for, the same bytes on every repeat, nothing half-written."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.corpus import Dataset, prepare
from finetune.errors import DataError, UsageError
from finetune.recipe import Recipe


def recipe(folder: Path, *train, validation=0.0, evaluation=0.0, **data) -> Recipe:
    def place(source):
        source = {"path": source} if isinstance(source, str) else dict(source)
        return {**source, "path": str(folder / source["path"])}

    if isinstance(validation, list):
        validation = [place(source) for source in validation]
    return Recipe.model_validate(
        {
            "name": "support",
            "model": "smollm2-135m",
            "data": {"train": [place(s) for s in train], "validation": validation, **data},
            "evaluation": {"data": evaluation},
        }
    )


def pair(question, answer="yes", **more):
    return {"question": question, "answer": answer, **more}


def write(path: Path, rows) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path.name


def lines(path: Path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def tree(folder: Path):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def questions(path: Path | None):
    return [r["messages"][0]["content"] for r in lines(path)] if path else []


def test_folder_holds_everything_with_its_account(tmp_path):
    rows = [pair(f"q{i}", id=i) for i in range(200)]
    source = write(tmp_path / "tickets.jsonl", [rows[0], *rows, pair("bad", None), pair("", "")])
    described = recipe(tmp_path, source, validation=0.2, evaluation=0.3, max_rejected=0.02)
    dataset = prepare(described, folder=tmp_path / "datasets")
    manifest = dataset.manifest
    assert dataset.folder.name == f"support-{dataset.digest[:12]}"
    assert manifest["rows"] == {"read": 203, "converted": 202, "rejected": 1}
    assert manifest["records"] == {"made": 202, "written": 200, "rejected": 1, "removed": 1}
    assert manifest["by_rule"] == {"duplicate": 1, "empty-assistant": 1, "null": 1}
    assert manifest["unused"] == {"id": 201}
    sides = [questions(p) for p in (dataset.train[0].path, dataset.validation, dataset.evaluation)]
    assert sorted(q for side in sides for q in side) == sorted(row["question"] for row in rows)
    assert [len(side) for side in sides] == pytest.approx([100, 40, 60], abs=20)
    assert lines(dataset.folder / "rejected.jsonl") == [
        {
            "source": "tickets",
            "file": "tickets.jsonl",
            "line": 202,
            "path": "answer",
            "rule": "null",
        },
        {
            "source": "tickets",
            "file": "tickets.jsonl",
            "line": 203,
            "path": "messages[1]",
            "rule": "empty-assistant",
        },
        {
            "source": "tickets",
            "file": "tickets.jsonl",
            "line": 2,
            "rule": "duplicate",
            "kept": {"source": "tickets", "file": "tickets.jsonl", "line": 1},
        },
    ]
    assert manifest["waterfall"] == [
        {"step": "check", "rule": "empty-assistant", "records": 1, "left": 201},
        {"step": "duplicate", "rule": "duplicate", "records": 1, "left": 200},
    ]
    origins = lines(dataset.folder / "origins.jsonl")
    raw = lines(tmp_path / source)
    for origin in origins:
        output = lines(dataset.folder / origin["output"])[origin["line"] - 1]
        assert output["messages"][0]["content"] == raw[origin["row"] - 1]["question"]
    assert len(origins) == 200
    assert str(tmp_path) not in (dataset.folder / "manifest.json").read_text()
    assert Dataset.load(dataset.folder) == dataset


def test_repeats_are_byte_identical_wherever_they_run(tmp_path):
    rows = [pair(f"q{i}") for i in range(50)]
    for place in ("one", "two"):
        write(tmp_path / place / "tickets.jsonl", rows)
    first, second = (
        prepare(
            recipe(tmp_path / place, "tickets.jsonl", validation=0.2),
            folder=tmp_path / place / "datasets",
        )
        for place in ("one", "two")
    )
    assert first.folder.name == second.folder.name
    assert tree(first.folder) == tree(second.folder)


def test_unchanged_inputs_are_not_read_again_and_damage_is_mended(tmp_path):
    described = recipe(tmp_path, write(tmp_path / "a.jsonl", [pair(f"q{i}") for i in range(2000)]))
    calls = []

    def progress(stage, done, total=None, **facts):
        calls.append(done)

    first = prepare(described, folder=tmp_path / "d", progress=progress)
    before = tree(first.folder)
    assert calls
    calls.clear()
    assert prepare(described, folder=tmp_path / "d", progress=progress) == first
    assert not calls
    first.train[0].path.write_bytes(b"{}\n")
    assert prepare(described, folder=tmp_path / "d", progress=progress) == first
    assert tree(first.folder) == before
    assert [p.name for p in (tmp_path / "d").iterdir()] == [first.folder.name]


@pytest.mark.parametrize("change", ["row", "weight", "validation", "name of the source"])
def test_another_input_is_another_dataset(tmp_path, change):
    write(tmp_path / "a.jsonl", [pair(f"q{i}") for i in range(20)])
    first = prepare(recipe(tmp_path, "a.jsonl"), folder=tmp_path / "d")
    source = {"path": "a.jsonl"}
    if change == "row":
        write(tmp_path / "a.jsonl", [pair(f"q{i}") for i in range(21)])
    elif change == "weight":
        source["weight"] = 2.0
    elif change == "name of the source":
        source["path"] = (tmp_path / "a.jsonl").rename(tmp_path / "b.jsonl").name
    described = recipe(tmp_path, source, validation=0.5 if change == "validation" else 0.0)
    assert prepare(described, folder=tmp_path / "d").folder != first.folder
    assert first.is_whole()


def test_side_of_a_row_stays_when_rows_and_sources_are_added(tmp_path):
    rows = [pair(f"q{i}") for i in range(300)]
    write(tmp_path / "a.jsonl", rows)
    shares = {"validation": 0.2, "evaluation": 0.2}
    before = prepare(recipe(tmp_path, "a.jsonl", **shares), folder=tmp_path / "d")
    random.Random(1).shuffle(rows)
    write(tmp_path / "a.jsonl", [pair("new"), *rows])
    write(tmp_path / "b.jsonl", [pair("other")])
    after = prepare(recipe(tmp_path, "b.jsonl", "a.jsonl", **shares), folder=tmp_path / "d")
    for side in ("validation", "evaluation"):
        assert set(questions(getattr(before, side))) <= set(questions(getattr(after, side)))
    grown = prepare(
        recipe(tmp_path, "a.jsonl", validation=0.4, evaluation=0.2), folder=tmp_path / "d"
    )
    assert set(questions(before.validation)) <= set(questions(grown.validation))


@pytest.mark.parametrize("deduplicate", ["exact", "off"])
def test_no_training_record_equals_a_held_out_one(tmp_path, deduplicate):
    # Equal records from different rows: their hashes put them on different sides.
    rows = [pair(f"q{i % 40}", id=i) for i in range(400)]
    write(tmp_path / "a.jsonl", rows)
    dataset = prepare(
        recipe(
            tmp_path, "a.jsonl", validation=0.1, evaluation=0.1, clean={"deduplicate": deduplicate}
        ),
        folder=tmp_path / "d",
    )
    train, validation, evaluation = (
        questions(p) for p in (dataset.train[0].path, dataset.validation, dataset.evaluation)
    )
    assert not set(train) & (set(validation) | set(evaluation))
    assert not set(validation) & set(evaluation)
    assert set(train) | set(validation) | set(evaluation) == {f"q{i}" for i in range(40)}
    assert (len(train) == len(set(train))) == (deduplicate == "exact")
    assert validation
    assert evaluation
    records = dataset.manifest["records"]
    assert records["made"] == 400 == records["written"] + records["removed"]
    origins = lines(dataset.folder / "origins.jsonl")
    assert len(origins) == records["written"]
    assert len(lines(dataset.folder / "rejected.jsonl")) == records["removed"]
    for origin in origins:
        output = lines(dataset.folder / origin["output"])[origin["line"] - 1]
        assert output["messages"][0]["content"] == rows[origin["row"] - 1]["question"]


def test_named_validation_sources_win_over_their_training_twins(tmp_path):
    write(tmp_path / "train.jsonl", [pair("a"), pair("b"), pair("c")])
    write(tmp_path / "held.jsonl", [pair("b", extra=1)])
    dataset = prepare(
        recipe(tmp_path, "train.jsonl", validation=[{"path": "held.jsonl"}]), folder=tmp_path / "d"
    )
    assert questions(dataset.train[0].path) == ["a", "c"]
    assert questions(dataset.validation) == ["b"]
    assert dataset.manifest["by_rule"] == {"held-out": 1}


def test_group_keeps_rows_together_across_sources(tmp_path):
    write(tmp_path / "a.jsonl", [pair(f"q{i}", customer=i % 30) for i in range(300)])
    (tmp_path / "b.csv").write_text(
        "question,answer,customer\n" + "".join(f"p{i},yes,{i % 30}\n" for i in range(300))
    )
    group = {"group": "customer"}
    dataset = prepare(
        recipe(tmp_path, {"path": "a.jsonl", **group}, {"path": "b.csv", **group}, validation=0.3),
        folder=tmp_path / "d",
    )
    held = {int(q[1:]) % 30 for q in questions(dataset.validation)}
    kept = {int(q[1:]) % 30 for file in dataset.train for q in questions(file.path)}
    assert held
    assert not held & kept
    with pytest.raises(UsageError, match="group: no column `client`"):
        prepare(recipe(tmp_path, {"path": "a.jsonl", "group": "client"}), folder=tmp_path / "d")


def test_each_source_has_its_own_file_and_weight_and_system_prompt(tmp_path):
    write(tmp_path / "x" / "a.jsonl", [pair("1"), pair("2", system="own")])
    write(tmp_path / "y" / "a.jsonl", [pair("3")])
    write(tmp_path / "y" / "b.jsonl", [pair("4")])
    (tmp_path / "y" / "README.md").write_text("about")
    dataset = prepare(
        recipe(
            tmp_path,
            {"path": "x/a.jsonl", "system": "Be brief."},
            {"path": "y", "weight": 0.5},
            {"path": "y/*.jsonl", "columns": {"user": "answer", "assistant": "question"}},
        ),
        folder=tmp_path / "d",
    )
    assert [(f.path.name, f.weight, f.records) for f in dataset.train] == [
        ("train-a.jsonl", 1.0, 2),
        ("train-y.jsonl", 0.5, 2),
        ("train-data.jsonl", 1.0, 2),
    ]
    assert [r["messages"][0]["content"] for r in lines(dataset.train[0].path)] == [
        "Be brief.",
        "own",
    ]
    assert dataset.manifest["sources"][1]["left_out"] == ["README.md"]


def test_too_many_rejected_rows_stop_it_before_anything_is_there(tmp_path):
    write(tmp_path / "a.jsonl", [pair("q"), pair("x", None), pair("y", 3)])
    with pytest.raises(DataError) as caught:
        prepare(recipe(tmp_path, "a.jsonl"), folder=tmp_path / "d")
    assert str(caught.value) == "2 rows of 3 rejected, `data.max_rejected` allows 0.0%"
    assert caught.value.hint == (
        "mend them, or allow it with `-s data.max_rejected=0.667`\n"
        "  null ×1: a.jsonl:2\n"
        "  type ×1: a.jsonl:3"
    )
    assert list((tmp_path / "d").iterdir()) == []
    prepare(recipe(tmp_path, "a.jsonl", max_rejected=0.667), folder=tmp_path / "d")


@pytest.mark.parametrize(
    ("name", "content", "options", "error", "message"),
    [
        ("b.jsonl", b"{}", {}, UsageError, "a.jsonl: no such file or folder"),
        ("a.jsonl", b"", {}, DataError, "a.jsonl: the file is empty"),
        ("a.jsonl", b'{"x', {}, DataError, "a.jsonl:1: none of the first rows (1) can be read"),
        ("a.jsonl", b'{"x":1}', {}, UsageError, "a.jsonl: unknown format: there are `x`"),
        ("a.jsonl", b'{"prompt":1}', {"format": "csv"}, UsageError, "csv: unknown format"),
        ("a.jsonl", b'{"x":1}', {"columns": {"user": "y"}}, UsageError, "no column `y`"),
        ("a.jsonl", b"%PDF-", {}, UsageError, "a.jsonl: unknown format: it looks like a PDF"),
        ("a.jsonl", b'{"question":"q","answer":null}', {}, UsageError, "unknown format"),
    ],
)
def test_bad_sources_are_said(tmp_path, name, content, options, error, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error) as caught:
        prepare(recipe(tmp_path, {"path": "a.jsonl", **options}), folder=tmp_path / "d")
    assert message in str(caught.value)
    assert not list(tmp_path.glob("d/*"))


def test_nothing_left_to_train_on_is_said(tmp_path):
    write(tmp_path / "a.jsonl", [pair("q")])
    with pytest.raises(DataError, match="no record is left to train on"):
        prepare(recipe(tmp_path, "a.jsonl", evaluation=1.0), folder=tmp_path / "d")


def test_source_that_changes_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, [pair(f"q{i}") for i in range(1500)])

    def progress(stage, done, total=None, **facts):
        with open(path, "a") as file:
            file.write(json.dumps(pair("late")) + "\n")

    with pytest.raises(DataError, match=r"a\.jsonl: changed while it was read"):
        prepare(recipe(tmp_path, "a.jsonl"), folder=tmp_path / "d", progress=progress)
    assert list((tmp_path / "d").iterdir()) == []


def test_two_at_once_end_with_one_whole_dataset(tmp_path):
    described = recipe(tmp_path, write(tmp_path / "a.jsonl", [pair(f"q{i}") for i in range(3000)]))
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from finetune.corpus import prepare; from finetune.recipe import Recipe\n"
        "print(prepare(Recipe.model_validate_json(sys.argv[2]), folder=Path(sys.argv[3])).is_whole())"
    )
    command = [sys.executable, "-c", script, str(Path.cwd()), described.model_dump_json()]
    workers = [
        subprocess.Popen([*command, str(tmp_path / "d")], stdout=subprocess.PIPE) for _ in range(2)
    ]
    assert [worker.communicate()[0] for worker in workers] == [b"True\n", b"True\n"]
    assert len(list((tmp_path / "d").iterdir())) == 1


dirty_rows = st.one_of(
    st.builds(pair, st.sampled_from("abcdefg"), st.sampled_from(["yes", "", None, 3])),
    st.just({"question": "only"}),
    st.just(["no", "object"]),
    st.just("text"),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(dirty_rows, max_size=30),
    broken=st.lists(st.sampled_from(['{"question":', "{]", "nan", '{"a":1,}']), max_size=4),
    evaluation=st.sampled_from([0.0, 0.4]),
    deduplicate=st.sampled_from(["exact", "off"]),
)
def test_no_row_is_lost_or_invented(tmp_path_factory, rows, broken, evaluation, deduplicate):
    folder = tmp_path_factory.mktemp("any")
    first = pair("first") if not evaluation else pair("first", x=1)
    text = [json.dumps(row) for row in (first, *rows)] + broken
    (folder / "a.jsonl").write_text("\n".join(text))
    described = recipe(
        folder,
        {"path": "a.jsonl", "format": "pairs"},
        validation=0.3,
        evaluation=evaluation,
        max_rejected=1.0,
        clean={"deduplicate": deduplicate},
    )
    try:
        dataset = prepare(described, folder=folder / "d")
    except DataError as error:
        assert "left to train on" in str(error)
        return
    manifest = dataset.manifest
    read, made = manifest["rows"], manifest["records"]
    assert read["read"] == len(text) == read["converted"] + read["rejected"]
    assert made["made"] == made["written"] + made["rejected"] + made["removed"]
    assert (
        read["converted"]
        == made["made"]
        == sum(
            isinstance(row, dict)
            and isinstance(row.get("question"), str)
            and isinstance(row.get("answer"), str)
            for row in (first, *rows)
        )
    )
    lost = lines(dataset.folder / "rejected.jsonl")
    assert len(lost) == read["rejected"] + made["rejected"] + made["removed"]
    assert Counter(line["rule"] for line in lost) == manifest["by_rule"]
    kept = lines(dataset.folder / "origins.jsonl")
    assert (
        len(kept) == made["written"] == sum(f.get("records", 0) for f in manifest["files"].values())
    )
    assert sorted([o["row"] for o in kept] + [o["line"] for o in lost]) == list(
        range(1, len(text) + 1)
    )


def test_workspaces_of_dead_processes_are_removed_and_others_stay(tmp_path):
    folder = tmp_path / "d"
    dead, alive = folder / ".x.tmp-1", folder / ".y.tmp-2"
    for path in (dead, alive):
        path.mkdir(parents=True)
        (path / "train.jsonl").write_text("half")
    script = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, 2); print(); input()"
    command = [sys.executable, "-c", script, str(alive / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        prepare(recipe(tmp_path, write(tmp_path / "a.jsonl", [pair("q")])), folder=folder)
        assert not dead.exists()
        assert alive.exists()
        holder.communicate(b"\n")


@pytest.fixture
def fast_folder(tmp_path):
    """Give a folder in memory where there is one: what is tested syncs hundreds of times."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_killed_anywhere_or_out_of_disk_it_ends_the_same(tmp_path, fast_folder):
    write(tmp_path / "a.jsonl", [pair(f"q{i % 200}", id=i) for i in range(400)])
    described = recipe(tmp_path, "a.jsonl", validation=0.1, evaluation=0.1)
    sweep = Path(__file__).with_name("sweep.py")
    done = subprocess.run(
        [sys.executable, str(sweep), described.model_dump_json(), str(fast_folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # How many of the random kills found it at work depends on the machine.
    killed, full, _ = map(int, done.stdout.split())
    assert killed >= 30
    assert full >= 5
