from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import RecipeError, UsageError
from finetune.recipe import load_recipe
from finetune.recipe.explain import explain_key, recipe_reference
from finetune.recipe.faults import FOREIGN, known_keys

SMALL = "model: m\ndata:\n  train:\n    - {path: a.csv}\n"


@pytest.fixture
def write(tmp_path):
    def write_recipe(text, name="r.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_recipe


def fault(path, *overrides):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    assert caught.value.exit_code == 2
    return f"{caught.value} | {caught.value.hint}"


def test_a_small_recipe_gets_its_name_absolute_paths_and_defaults(write):
    path = write(SMALL, "support.yaml")
    recipe = load_recipe(path)

    assert (recipe.name, recipe.method, recipe.training.learning_rate) == ("support", "sft", 1e-4)
    assert recipe.data.train[0].path == path.parent / "a.csv"
    assert recipe.file == path


@pytest.mark.parametrize(
    ("file", "name"),
    [("tickets 2026 (v2).yaml", "tickets-2026-v2"), ("__é.yaml", "run"), ("x" * 90, "x" * 64)],
)
def test_any_name_of_a_file_gives_a_recipe_a_name(write, file, name):
    assert load_recipe(write(SMALL, file)).name == name


@pytest.mark.parametrize("spelling", ["1e-4", "1.0e-4", "1E-4", "0.0001"])
def test_yaml_1_2_numbers(write, spelling):
    recipe = load_recipe(write(f"{SMALL}training: {{learning_rate: {spelling}}}\n"))

    assert recipe.training.learning_rate == 1e-4


def test_yaml_1_2_no_is_text(write):
    assert load_recipe(write(f"{SMALL}platform: {{suffix: no}}\n")).platform.suffix == "no"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("lerning: 1", "r.yaml:5: lerning: unknown field"),
        ("training: {learning_rat: 1}", "did you mean `learning_rate`?"),
        ("training: {lr: 1}", "here it is `training.learning_rate`"),
        ("max_seq_length: 5", "here it is `training.seq_len`"),
        ("lora_r: 5", "here it is `local.lora.rank`"),
        ("num_epochs: 5", "here it is `training.epochs`"),
        ("rank: 5", "`rank` belongs in `local.lora.rank`"),
        ("trust_remote_code: true", "code from a model's folder is never run"),
        ("training: {epochs: x}", "training.epochs: must be a number"),
        ("training: {weight_decay: 3}", "training.weight_decay: must be at most 1.0"),
        ("backend: cloud", "backend: must be 'local' or 'platform'"),
        ("method: sfd", "did you mean `sft`?"),
        ("training: {epochs: 1, steps: 2}", "stands beside `epochs`"),
        ("model: again", "r.yaml:5:1: not YAML"),
        ("a: [", "r.yaml:6:1: not YAML"),
        ("1: 2", "a key must be text"),
        ("training: !!python/object:os.system {}", "r.yaml"),
        ("evaluation: {data: 0.99}", "nothing is left to train on"),
        ("local: {lora: {targets: [1]}}", "local.lora.targets.0: must be text"),
        ("local: {lora: {targets: []}}", "local.lora.targets: must have at least 1"),
        ("local: {threads: 100000}", "local.threads: must be at most 1024"),
        ("seed: 2147483648", "seed: must be less than 2147483648"),
        ("local: {full: true, quantize: 4bit}", "weights in 4bit cannot be trained"),
        ("local: {quantize: 8bit, lora: {dora: true}}", "does not go with weights in 8bit"),
        ("local: {full: true, lora: {rank: 8}}", "local.full: stands beside `local.lora`"),
        ("local: {lora: {experts: true, dora: true}}", "local.lora.dora: experts have no rows"),
        ("local: {lora: {experts: true, dropout: 0.1}}", "dropout: is not possible on experts"),
        ("local: {lora: {use_dora: true}}", "here it is `local.lora.dora`"),
        ("extends: ../other.yaml", "must name a recipe in the same folder"),
        ("extends: gone.yaml", "no such recipe"),
    ],
)
def test_every_fault_is_named_with_its_line_and_the_way_out(write, lines, said):
    assert said in fault(write(f"{SMALL}{lines}\n"))


def test_all_faults_are_named_at_once(write):
    told = fault(write(f"{SMALL}lerning: 1\ntraining: {{epochs: x}}\n"))

    assert "r.yaml:5: lerning: unknown field" in told
    assert "r.yaml:6: training.epochs: must be a number" in told


@pytest.mark.parametrize("text", ["", "- a\n", "just text\n", "model: m\n"])
def test_what_is_not_a_recipe_is_refused(write, text):
    assert "r.yaml" in fault(write(text))


def test_a_file_that_is_not_there_a_folder_and_bytes_that_are_not_utf8(tmp_path, write):
    assert "no such recipe" in fault(tmp_path / "gone.yaml")
    assert "is a folder" in fault(tmp_path)
    path = write("")
    path.write_bytes(b"model: \xff\n")
    assert "byte 7 is not UTF-8" in fault(path)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n"
            for i in range(9)
        ),
        "a: &a [*a]\n",
        "a: " + "[" * 20_000 + "\n",
        "a: " + "{a: " * 50 + "}" * 50 + "\n",
    ],
    ids=["laughs", "self", "brackets", "deep"],
)
def test_yaml_bombs_are_refused_at_once(write, text):
    started = time.monotonic()
    fault(write(text))

    assert time.monotonic() - started < 30


def test_overrides_win_and_say_so(write):
    recipe = load_recipe(write(SMALL), ["training.epochs=2", "data.train.0.weight=0.5", "seed=3"])

    assert (recipe.training.epochs, recipe.data.train[0].weight, recipe.seed) == (2, 0.5, 3)
    origins = {key: origin for key, _, origin in recipe.origins}
    assert origins["training.epochs"] == "-s training.epochs"
    assert origins["model"] == "r.yaml:1"
    assert origins["training.seq_len"] == "default"


@pytest.mark.parametrize(
    "override",
    ["training", "=1", "training.lerning=1", "data.train.5.weight=1", "model.x=1", "seed=[1"],
)
def test_a_wrong_override_is_named(write, override):
    assert "-s " in fault(write(SMALL), override)


def test_extends_lays_a_recipe_over_another(write):
    write(f"{SMALL}training: {{epochs: 1, seq_len: 512}}\n", "base.yaml")
    recipe = load_recipe(write("extends: base.yaml\ntraining: {epochs: 2}\n", "over.yaml"))

    assert (recipe.name, recipe.training.epochs, recipe.training.seq_len) == ("over", 2, 512)
    origins = {key: origin for key, _, origin in recipe.origins}
    assert (origins["training.epochs"], origins["training.seq_len"]) == (
        "over.yaml:2",
        "base.yaml:5",
    )


def test_extends_goes_one_level(write):
    write(SMALL, "a.yaml")
    write("extends: a.yaml\n", "b.yaml")

    assert "extends another recipe" in fault(write("extends: b.yaml\n", "c.yaml"))


@given(st.text(max_size=60))
def test_any_text_after_a_recipe_loads_or_is_a_recipe_error(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("r") / "r.yaml"
    path.write_bytes(f"{SMALL}{text}".encode("utf-8", "replace"))
    try:
        load_recipe(path)
    except RecipeError as error:
        assert "r.yaml" in str(error)


def test_every_foreign_key_points_at_a_key_that_exists():
    assert set(FOREIGN.values()) <= set(known_keys())


def test_every_field_has_its_sentence_and_explains_itself():
    for key, field in known_keys().items():
        assert field.description.endswith("."), key
        assert explain_key(key).description == field.description
        assert f"`{key}`" in recipe_reference()


def test_a_key_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(UsageError) as caught:
        explain_key("training.epoch")
    assert "training.epochs" in caught.value.hint
