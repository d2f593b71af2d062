"""Reports, read back as a browser would: elements, attributes, text."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import mistral_common
import pytest

from finetune.files import to_json
from finetune.recipe import load_recipe
from finetune.report import write_comparison, write_report
from finetune.runs import Run, identify

EVALUATION = {
    "records": 80,
    "label": "kept from both splits",
    "base": {
        "loss": {"value": 2.3, "low": 2.2, "high": 2.4},
        "exact_match": {"value": 0.02, "low": 0.0, "high": 0.06},
    },
    "tuned": {
        "loss": {"value": 0.4, "low": 0.3, "high": 0.5},
        "exact_match": {"value": 0.71, "low": 0.61, "high": 0.8},
    },
}
MANIFEST = {
    "digest": "d1",
    "rows": {"read": 500, "converted": 497, "rejected": 3},
    "records": {"made": 497, "written": 480, "rejected": 5, "removed": 12},
    "by_rule": {"duplicate": 12, "too-long": 5, "row": 3},
    "sources": [],
    "files": {"train-a.jsonl": {"records": 400, "bytes": 1000, "sha256": "ab" * 32}},
}


@pytest.fixture
def make_run(tmp_path):
    def make(folder="run", *, evaluation=None, manifest=None, metrics=(), origins=None, **settings):
        described = {"name": "support", "model": "no/model", "data": {"train": [{"path": "a"}]}}
        write(tmp_path / "recipe.yaml", to_json(described | settings))
        recipe = load_recipe(tmp_path / "recipe.yaml")
        run = Run.create(
            tmp_path / "runs" / folder,
            recipe,
            identity=identify(recipe, "d1"),
            dataset=tmp_path / "dataset",
            dataset_digest="d1",
        )
        write(run.folder / "metrics.jsonl", b"".join(to_json(line) + b"\n" for line in metrics))
        if evaluation is not None:
            write(run.folder / "evaluation.json", to_json(evaluation))
        if manifest is not None:
            write(run.dataset / "manifest.json", to_json(manifest))
        return run

    def write(path, data):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return make


@pytest.fixture
def curve():
    return [
        {
            "step": step,
            "epoch": step / 100,
            "tokens": 230 * step,
            "loss": 2.3 / step**0.5 + 0.05 * (step % 3),
            "learning_rate": 1e-4 * (1 - step / 200),
            "tokens_per_second": 900.0 + step % 7,
        }
        | ({"validation_loss": 2.5 / step**0.5} if step % 20 == 0 else {})
        for step in range(1, 201)
    ]


TOKENIZER = "mistral_instruct_tokenizer_240323.model.v3"
PAYLOADS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg onload=alert(1)>",
    "</title></style><iframe src=javascript:alert(1)>",
    '" onmouseover="alert(1)" x="',
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "a\x1b[2Jb\u202ec",
]


class Page(HTMLParser):
    """The elements, attributes and text of a page; fails where tags do not match."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.attributes, self.words, self.open = Counter(), [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements[tag] += 1
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data.split()

    @property
    def text(self):
        return " ".join(self.words)


def read(path):
    return Page(path.read_text(encoding="utf-8"))


def test_report_tells_the_whole_run(make_run, curve):
    run = make_run(evaluation=EVALUATION, manifest=MANIFEST, metrics=curve, seed=7)
    (run.checkpoints / "step-100").mkdir(parents=True)
    page = read(write_report(run))
    for fact in (
        "Better than the base model: exact match 0.020 → 0.710 on 80 held-out records",
        "kept from both splits",
        "0.610 … 0.800",  # the interval
        "read 500 converted 497 rejected 3",
        "made 497 written 480 rejected 5 removed 12",
        "duplicate 12",
        "validation loss",
        "validation loss checkpoint",
        "train-a.jsonl 400 abababababab",
        "seed 7 recipe.yaml:1",
        run.identity,
        run.state["versions"]["python"],
    ):
        assert fact in page.text, fact
    assert page.elements["svg"] == 3, "loss, learning rate, speed"
    assert page.elements["table"] >= page.elements["svg"], "each picture has its numbers"


def test_report_counts_the_tokens_of_the_records(make_run):
    """`hi` and `ok` are 6 tokens (<s> [INST] hi [/INST] ok </s>), of which 2 are trained."""
    tokenizer = Path(mistral_common.__file__).parent / "data" / TOKENIZER
    files = {"train-a.jsonl": {"records": 3, "sha256": "", "bytes": 0}}
    sources = [{"name": "a", "train": "train-a.jsonl", "weight": 1.0}]
    manifest = {**MANIFEST, "sources": sources, "files": files}
    run = make_run(model=str(tokenizer), manifest=manifest, training={"seq_len": 100})
    records = [
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": text}]}
        for text in ("ok", "ok", "ok " * 200)
    ]
    (run.dataset / "train-a.jsonl").write_bytes(b"".join(to_json(r) + b"\n" for r in records))
    page = read(write_report(run))
    assert "median 6" in page.text
    assert "longer than seq_len 100 1" in page.text
    assert "6 – 7 2" in page.text, "the histogram's numbers"
    assert page.elements["rect"] > 1


@pytest.mark.parametrize(
    ("base", "tuned", "verdict"),
    [
        ((0.1, 0.0, 0.2), (0.5, 0.4, 0.6), "Better than the base model: exact match"),
        ((0.5, 0.4, 0.6), (0.1, 0.0, 0.2), "Worse than the base model: exact match"),
        ((0.5, 0.4, 0.6), (0.55, 0.45, 0.65), "No clear difference from the base model"),
    ],
)
@pytest.mark.parametrize("name", ["exact_match", "loss"])
def test_verdict_weighs_the_intervals(make_run, name, base, tuned, verdict):
    if name == "loss":
        base, tuned, verdict = tuned, base, verdict.replace("exact match", "loss")
    sides = {
        side: {name: dict(zip(("value", "low", "high"), measure, strict=True))}
        for side, measure in (("base", base), ("tuned", tuned))
    }
    page = read(write_report(make_run(evaluation={"records": 9, **sides})))
    assert verdict in page.text


def test_report_shows_whatever_was_measured(make_run):
    evaluation = {
        "records": 9,
        "base": {"loss": {"value": 1.5}, "general_loss": {"value": 2.0, "low": 1.9, "high": 2.1}},
        "tuned": {
            "loss": {"value": 0.5},
            "general_loss": {"value": 3.0, "low": 2.9, "high": 3.1},
            "tool_calls": {"value": 0.8125},
        },
        "against": {"tool_calls": {"value": 0.4375}},
        "against_name": "other-<model>",
        "judge": {"model": "judge-1", "inconsistent": 3},
    }
    page = read(write_report(make_run(evaluation=evaluation)))
    for words in ("general loss", "3.000", "tool calls", "0.812", "0.438", "other-<model>"):
        assert words in page.text
    assert "judge-1" in page.text
    evaluation["tuned"] = {"general_loss": evaluation["tuned"]["general_loss"]}
    page = read(write_report(make_run("worse", evaluation=evaluation)))
    assert "Worse than the base model: general loss 2.000 → 3.000" in page.text


def test_report_of_a_run_that_has_hardly_begun(make_run):
    page = read(write_report(make_run()))
    assert "Preparing; not evaluated yet" in page.text
    assert "The dataset is not where the run left it." in page.text
    assert "Not counted" in page.text
    assert page.elements["svg"] == 0


def test_report_of_a_failed_run_says_why(make_run, curve):
    run = make_run(metrics=[*curve[:3], {"step": 4, "loss": None}])
    run.set_state("failed", error="step 4: the loss is not a number")
    page = read(write_report(run))
    assert "Failed: step 4: the loss is not a number" in page.text
    assert "not a number at 1 steps" in page.text


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_text_becomes_markup(make_run, curve, payload):
    def poisoned(text):
        evaluation = {**EVALUATION, "label": text, "note": text, "examples": [{"prompt": text}]}
        for side in ("base", "tuned"):
            evaluation[side] = {**evaluation[side], text: {"value": 0.5}}
        manifest = {
            **MANIFEST,
            "by_rule": {text: 1},
            "files": {text: {"records": 1, "sha256": text}},
        }
        data = {"train": [{"path": text, "system": text, "columns": {"user": text}}]}
        run = make_run(
            f"run{len(text)}",
            evaluation=evaluation,
            manifest=manifest,
            metrics=curve,
            model=text,
            data=data,
        )
        run.set_state("failed", error=text, versions={text: text})
        return run

    harmless, hostile = poisoned("plain"), poisoned(payload)
    for one, other in (
        (write_report(harmless), write_report(hostile)),
        (write_comparison(harmless, harmless), write_comparison(hostile, harmless)),
    ):
        page, same = read(other), read(one)
        if other.name == "report.html":
            assert page.elements == same.elements
        assert page.elements.keys() <= same.elements.keys() | {"p", "table"}
        assert page.elements["script"] == page.elements["img"] == page.elements["iframe"] == 0
        for name, value in page.attributes:
            assert not name.startswith("on")
            assert name not in ("href", "src", "action")
            assert "javascript:" not in (value or "")
        html = other.read_text(encoding="utf-8")
        assert "\x1b" not in html
        assert "\u202e" not in html


def test_report_loads_nothing_and_forbids_it(make_run, curve):
    html = write_report(make_run(evaluation=EVALUATION, metrics=curve)).read_text(encoding="utf-8")
    assert not re.search(r"https?:|//\w|url\(|@import|<script|<link", html)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in html


def test_examples_and_keys_are_not_shown(make_run):
    evaluation = {**EVALUATION, "examples": [{"prompt": "Jane Doe, 12 Elm Street"}]}
    run = make_run(evaluation=evaluation)
    run.set_state("failed", error="refused: Bearer abcdefgh12345678")
    html = write_report(run).read_text(encoding="utf-8")
    assert "Elm Street" not in html
    assert "abcdefgh12345678" not in html


def test_long_runs_stay_small_and_keep_their_spikes(make_run, curve):
    lines = ({"step": step, "loss": 1.0, "learning_rate": 1e-4} for step in range(100_000))
    metrics = [{**line, "loss": 9.5} if line["step"] == 55_555 else line for line in lines]
    path = write_report(make_run(metrics=metrics))
    assert path.stat().st_size < 200_000
    assert path.stat().st_size < write_report(make_run("short", metrics=curve)).stat().st_size * 4
    loss = re.search(r'<path class="raw0" d="(.+?)"', path.read_text(encoding="utf-8"))[1]
    heights = [float(point.split()[1]) for point in loss[1:].split("L")]
    assert min(heights) < 40, "the one spike reaches the top"
    assert max(heights) > 200


def test_comparison_shows_what_differs(make_run, curve):
    first = make_run("first", evaluation=EVALUATION, metrics=curve)
    second = make_run("second", metrics=curve, training={"learning_rate": 5e-4})
    path = write_comparison(first, second)
    assert path.parent == first.folder
    page = read(path)
    assert "training.learning_rate 0.0001 0.0005" in page.text
    assert "exact match 0.020 0.710 0.610 … 0.800 – –" in page.text
    assert "A: training loss" in page.text
    assert "B: validation loss" in page.text
    assert "seed" not in page.text, "what is equal is left out"
    assert "Nothing: the same settings" in read(write_comparison(first, first)).text


PROVENANCE = {
    "purpose": "answers to customers",
    "lawful_basis": "legitimate-interests",
    "source": "our tickets",
    "retention": "until 2027-12-31",
}


def test_record_of_processing_says_what_why_where_and_how_long(make_run):
    section = {"mode": "pseudonymize", "counts": {"email": {"messages.user": 1234}},
               "other_names": "not searched", "key": "ab12"}  # fmt: skip
    run = make_run(
        manifest=MANIFEST | {"privacy": section},
        data={"train": [{"path": "tickets.csv", "provenance": PROVENANCE}, {"path": "b"}]},
        backend="platform",
        egress={"personal_data": "masked"},
    )
    text = read(write_report(run)).text
    for fact in (
        "what 480 records done with them sft of no/model where La Plateforme of Mistral AI",
        "personal data (1,234) found and replaced by pseudonyms",
        "egress.personal_data: masked other names not searched left out on request 0 records",
        "key of the pseudonyms ab12",
        "tickets.csv answers to customers legitimate-interests our tickets until 2027-12-31",
        "b not stated not stated not stated not stated",
        "Pseudonymized data remain personal data",
    ):
        assert fact in text
