"""The targets of a classifier: filled in from the records, or refused with the place."""

import pytest

from finetune import records
from finetune.corpus import Dataset, TrainFile
from finetune.corpus.labels import count_labels, fill_targets
from finetune.errors import DataError, RecipeError
from finetune.recipe import Recipe


def make_recipe(*targets, method="classifier"):
    return Recipe.model_validate(
        {
            "model": "m",
            "method": method,
            "data": {"train": [{"path": "a.jsonl"}]},
            "training": {"classifier_targets": list(targets)},
        }
    )


@pytest.fixture
def make_dataset(tmp_path):
    def make(*labels, **held_out):
        def write(name, rows):
            path = tmp_path / f"{name}.jsonl"
            made = [
                records.from_object("classifier", {"text": "SECRET", "labels": r}) for r in rows
            ]
            path.write_bytes(b"".join(records.encode(record) + b"\n" for record in made))
            return path

        train = [TrainFile(write("train-a", labels), 1.0, len(labels))]
        rest = {"validation": None, "evaluation": None}
        rest |= {name: write(name, rows) for name, rows in held_out.items()}
        return Dataset(tmp_path, "d", {}, train, **rest)

    return make


def fill(recipe, dataset):
    return [
        target.model_dump() for target in fill_targets(recipe, dataset).training.classifier_targets
    ]


def test_targets_are_those_of_the_data(make_dataset):
    dataset = make_dataset(
        {"b": "y", "a": ["q", "p"]}, {"b": "x", "a": []}, {"b": "y"}, validation=[{"b": "x"}]
    )
    kinds = {"weight": 1.0}
    assert fill(make_recipe(), dataset) == [
        {"name": "a", "labels": ["p", "q"], "loss_function": "multi_class", **kinds},
        {"name": "b", "labels": ["x", "y"], "loss_function": "single_class", **kinds},
    ]


def test_what_the_recipe_says_stays_and_the_rest_is_filled_in(make_dataset):
    dataset = make_dataset({"b": "y", "a": "p"}, {"b": "x", "a": "q"})
    named = [
        {"name": "b", "labels": ["y", "x"], "weight": 0.5},
        {"name": "a", "loss_function": "multi_class"},
    ]
    assert fill(make_recipe(*named), dataset) == [
        {"name": "b", "labels": ["y", "x"], "weight": 0.5, "loss_function": "single_class"},
        {"name": "a", "labels": ["p", "q"], "weight": 1.0, "loss_function": "multi_class"},
    ]


def test_labels_are_counted_by_record(make_dataset):
    dataset = make_dataset({"a": ["p", "p"]}, {"a": ["q", "p"]}, {"b": "x"}, {"b": "y"})
    a, b = fill_targets(make_recipe(), dataset).training.classifier_targets
    assert count_labels(dataset, a) == ([2, 1], 2)
    assert count_labels(dataset, b) == ([1, 1], 2)


def test_other_methods_have_no_targets(make_dataset):
    recipe = make_recipe(method="sft")
    assert fill_targets(recipe, make_dataset({"a": "p"})) is recipe


AB = [{"a": "p"}, {"a": "q"}]


@pytest.mark.parametrize(
    ("targets", "rows", "held_out", "fact"),
    [
        ([], [{"a": "p"}, {"a": "p"}], {}, "`a`: all training records have the same labels"),
        ([], [{"a": ["p"]}] * 2, {}, "`a`: all training records have the same labels"),
        ([], [{"a": "p"}, {"a": ["q"]}], {}, "train-a.jsonl:2: labels.a: a list, one value before"),
        ([], AB, {"validation": [{"a": "r"}]}, "validation.jsonl:1: labels.a: a label that no"),
        (
            [],
            AB,
            {"evaluation": [*AB, {"a": "r"}]},
            "evaluation.jsonl:3: labels.a: a label that no",
        ),
        ([{"name": "b"}], AB, {}, "train-a.jsonl:1: labels.a: a target that"),
        ([{"name": "a", "labels": ["p", "r"]}], AB, {}, "train-a.jsonl:2: labels.a: a label that"),
        ([{"name": "a", "labels": ["p", "q", "r"]}], AB, {}, "has the label `r` of `a`"),
        (
            [{"name": "a", "loss_function": "single_class"}],
            [{"a": ["p"]}, {"a": ["q"]}],
            {},
            "train-a.jsonl:1: labels.a: a list, where the target has one label a record",
        ),
    ],
)
def test_labels_that_cannot_be_trained_are_named(make_dataset, targets, rows, held_out, fact):
    with pytest.raises(DataError) as caught:
        fill_targets(make_recipe(*targets), make_dataset(*rows, **held_out))
    assert fact in caught.value.message
    assert "SECRET" not in caught.value.message
    assert caught.value.exit_code == 3


def test_a_target_that_no_record_has_is_the_recipes_fault(make_dataset):
    named = [{"name": "topic"}, {"name": "topik"}]
    with pytest.raises(RecipeError, match="no training record has the target `topik`") as caught:
        fill_targets(make_recipe(*named), make_dataset({"topic": "p"}, {"topic": "q"}))
    assert caught.value.hint == "did you mean `topic`?"
    assert caught.value.exit_code == 2


def test_a_target_of_held_out_records_alone_is_refused(make_dataset):
    dataset = make_dataset(*AB, validation=[{"b": "p"}])
    with pytest.raises(RecipeError, match="no training record has the target `b`"):
        fill_targets(make_recipe(), dataset)


def test_records_of_another_kind_are_named(make_dataset):
    dataset = make_dataset(*AB)
    with open(dataset.train[0].path, "ab") as file:
        file.write(b'{"messages": [{"role": "user", "content": "SECRET"}]}\n')
    with pytest.raises(DataError, match=r"train-a.jsonl:3: not a record of a classifier"):
        fill_targets(make_recipe(), dataset)
