import pytest

from finetune.errors import UsageError
from finetune.server.weights import read_names


def test_weights_that_would_be_trained_in_full_are_refused(tmp_path):
    names = tmp_path / "models.yaml"
    names.write_text("small: {model: smollm2-135m, local: {full: true}}\n")
    with pytest.raises(UsageError, match=r"models.yaml:1: small: local.full: what is served"):
        read_names(names)
    names.write_text("small: {model: smollm2-135m, local: {lora: {dora: true}}}\n")
    assert read_names(names)["small"].local.lora.dora


@pytest.mark.parametrize(
    ("text", "fact", "hint"),
    [
        ("", "is empty", "NAME: {model: FOLDER_OR_HUB_ID}"),
        ("- small", "must be a mapping, this is a list", "NAME: {model: FOLDER_OR_HUB_ID}"),
        ("small: 5", ":1: small: must be a mapping", "NAME: {model: FOLDER_OR_HUB_ID}"),
        ("small: {price: 1}", ":1: model: is missing", None),
        ("small: {model: smollm2-135m,\n  vlm: x}", ":2: vlm: unknown field", "`vllm`"),
        (
            "small:\n  model: smollm2-135m\n  local: {lora: {rnk: 3}}",
            ":3: local.lora.rnk: unknown field",
            "`rank`",
        ),
        ("small: {model: smollm2-135m, price: -1}", ":1: price: must be at least 0", None),
        ("small: {model: smollm}", ":1: small: model: smollm: no such folder", "smollm2-135m"),
        ("small: {model: ../nope}", ":1: small: model: ../nope: no such folder", "catalog"),
        ("small: {model: a/b/c}", ":1: small: model: a/b/c: no such folder", "catalog"),
    ],
)
def test_what_is_wrong_with_a_map_is_said_with_its_line(text, fact, hint, tmp_path):
    names = tmp_path / "models.yaml"
    names.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_names(names)
    assert (
        f"models.yaml{fact}" in caught.value.message
        or f"models.yaml: {fact}" in caught.value.message
    )
    assert hint is None or hint in caught.value.hint
