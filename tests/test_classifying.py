"""A classifier from a table to its report, through the public surface."""

import csv
import json
from pathlib import Path

import mistral_common
import msgspec
import pytest

from finetune import load_recipe, pipeline
from finetune.errors import RecipeError, UsageError
from finetune.export import export
from finetune.tokens import load_tokenizer

TOKENIZER = "mistral_instruct_tokenizer_240323.model.v3"
TEXTS = {
    "delivery": ["the parcel never came", "where is my order", "it was due on Monday"],
    "refund": ["I want my money back", "pay me back please", "the refund is missing"],
    "billing": ["the invoice is wrong", "you charged me twice", "a receipt for my taxes"],
}
ENDINGS = ["", " please", " now", " thanks", " again", " today"]


def write_table(path):
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "topic", "tags"])
        for topic, texts in TEXTS.items():
            for place, text in enumerate(text + ending for text in texts for ending in ENDINGS):
                tags = [["late"], ["late", "angry"], ["angry"]][place % 3]
                table.writerow([text, topic, json.dumps(tags)])


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder with a tiny model that has a real tokenizer, a table and a recipe."""
    from tests.backends.local.conftest import make_model

    folder = tmp_path_factory.mktemp("workshop")
    vocabulary = load_tokenizer("v3").vocab_size
    make_model(vocab_size=vocabulary, initializer_range=0.3).save_pretrained(folder / "model")
    data = Path(mistral_common.__file__).parent / "data"
    (folder / "model" / "tokenizer.model.v3").write_bytes((data / TOKENIZER).read_bytes())
    write_table(folder / "table.csv")
    columns = {"text": "text", "labels.topic": "topic", "labels.tags": "tags"}
    recipe = {
        "model": "./model",
        "method": "classifier",
        "data": {"train": [{"path": "table.csv", "columns": columns}], "validation": 0.1},
        "training": {"epochs": 4, "learning_rate": 0.01, "seq_len": 100},
        "evaluation": {"data": 0.25},
        "local": {"batch_tokens": 100, "dtype": "float32"},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return folder


@pytest.fixture(scope="module")
def run(workshop):
    recipe = load_recipe(workshop / "recipe.yaml")
    return pipeline.run(recipe, folder=workshop / "runs", datasets=workshop / "datasets")


def test_targets_come_from_the_data_and_stand_in_plan_run_and_adapter(
    run, workshop, check_document
):
    recipe = load_recipe(workshop / "recipe.yaml")
    plan = pipeline.plan(recipe, folder=workshop / "runs", datasets=workshop / "datasets")
    wanted = [
        {
            "name": "tags",
            "labels": ["angry", "late"],
            "weight": 1.0,
            "loss_function": "multi_class",
        },
        {
            "name": "topic",
            "labels": ["billing", "delivery", "refund"],
            "weight": 1.0,
            "loss_function": "single_class",
        },
    ]
    assert msgspec.to_builtins(plan.targets) == wanted
    noted = [event["targets"] for event in run.events() if event["event"] == "targets"]
    assert noted == [wanted]
    assert json.loads((run.adapter / "classifier.json").read_bytes()) == {"targets": wanted}
    assert plan.memory.trainable["classifier"] == 5 * 64
    assert plan.memory.parts["loss"] == 0


def test_it_learns_and_its_figures_follow_their_schema(run, check_document):
    evaluation = run.evaluation()
    check_document("files/evaluation", evaluation)
    for line in (run.folder / "predictions.jsonl").read_text().splitlines():
        check_document("files/prediction", json.loads(line))
    assert list(evaluation["tuned"]) == ["loss", "f1_macro", "f1_micro", "accuracy", "ece"]
    topic = evaluation["targets"]["topic"]
    assert topic["tuned"]["measures"]["accuracy"]["value"] > 0.6
    assert topic["base"]["measures"]["accuracy"]["value"] < 0.6
    assert sum(map(sum, topic["tuned"]["confusion"])) == topic["records"] == evaluation["records"]
    assert "confusion" not in evaluation["targets"]["tags"]["tuned"]
    assert sum(row["records"] for row in topic["tuned"]["labels"]) == topic["records"]
    metrics = run.metrics()
    assert {"accuracy_topic", "loss_tags", "validation_loss"} <= metrics[-1].keys()
    assert metrics[-1]["loss"] < metrics[0]["loss"]


def test_the_report_shows_labels_confusion_and_reliability(run):
    html = (run.folder / "report.html").read_text()
    for words in ("Labels of topic", "Labels of tags", "billing", "Confusion", "by confidence"):
        assert words in html
    assert "parcel" not in html


def test_the_same_run_measured_again_and_beside_itself(run, check_document):
    before = run.evaluation()
    beside = pipeline.evaluate(run, against=run.folder.name)
    check_document("files/evaluation", beside)
    assert beside["against"] == beside["tuned"] == before["tuned"]
    assert beside["base"] == before["base"]


def test_classify_gives_scores_for_texts_and_conversations(run, workshop, finetune, check_document):
    rows = [
        "where is my parcel",
        json.dumps({"text": "you charged me twice", "labels": {"topic": "billing"}}),
        json.dumps({"messages": [{"role": "user", "content": "pay me back"}]}),
    ]
    (workshop / "rows.jsonl").write_text("\n".join(rows) + "\n\n")
    done = finetune("classify", run.folder.name, "--file", "rows.jsonl", "--json", cwd=workshop)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["line"] for line in lines] == [1, 2, 3]
    for line in lines:
        check_document("cli/classify", line)
        assert sum(line["scores"]["topic"].values()) == pytest.approx(1)
        best = max(line["scores"]["topic"], key=line["scores"]["topic"].get)
        assert line["labels"]["topic"] == best
        tags = line["scores"]["tags"]
        assert line["labels"]["tags"] == [tag for tag in tags if tags[tag] >= 0.5]


@pytest.mark.parametrize(
    ("line", "fact"),
    [
        ('{"prompt": "secret"}', "is no object with `text` or `messages`"),
        ('{"text": 3}', "is no object with `text` or `messages`"),
        ("{", "is no object with `text` or `messages`"),
        ("{}", "needs either `text` or `messages`"),
        ('{"messages": []}', "holds nothing to label"),
        ('{"text": ""}', "holds nothing to label"),
        ('{"text": "a", "messages": []}', "needs either `text` or `messages`"),
    ],
)
def test_rows_that_are_nothing_to_classify_are_named(run, workshop, finetune, line, fact):
    (workshop / "bad.jsonl").write_text(f"a text\n{line}\n")
    done = finetune("classify", run.folder.name, "--file", "bad.jsonl", cwd=workshop)
    assert done.returncode == 3
    assert f"bad.jsonl:2: {fact}" in done.stderr
    assert "secret" not in done.stderr


def test_the_adapter_is_exported_with_its_head_and_other_forms_are_refused(run, tmp_path):
    export(run, tmp_path / "adapter", to="adapter")
    assert (tmp_path / "adapter" / "classifier.safetensors").is_file()
    assert (tmp_path / "adapter" / "classifier.json").is_file()
    with pytest.raises(UsageError, match="merged: this form holds language models"):
        export(run, tmp_path / "merged", to="merged")


def test_nobody_talks_with_a_classifier(run, workshop, finetune):
    done = finetune("chat", run.folder.name, "--prompt", "hello", cwd=workshop)
    assert done.returncode == 2
    assert "is a classifier and gives no answers" in done.stderr


@pytest.mark.parametrize(
    ("overrides", "fact"),
    [
        (["method=sft"], "`sft` has no labels"),
        (["training.classifier_targets.0.labels=[a]"], "one label alone"),
        (["training.classifier_targets.0.labels=[a, b, a]"], "names a label twice"),
        (["training.classifier_targets.0.weight=0"], "all targets have weight 0"),
        (["training.classifier_targets=[{name: 1.5}]"], "must be text"),
        (["training.classifier_targets=[{name: a}, {name: a}]"], "names a target twice"),
        (["training.classifier_targets=[{name: a, weight: -1}]"], "must be at least 0"),
        (["evaluation.judge={url: 'http://127.0.0.1', model: m}"], "gives no answers"),
    ],
)
def test_targets_that_contradict_themselves_are_refused(workshop, overrides, fact):
    first = "training.classifier_targets=[{name: topic}]"
    with pytest.raises(RecipeError, match=fact):
        load_recipe(workshop / "recipe.yaml", [first, *overrides])
