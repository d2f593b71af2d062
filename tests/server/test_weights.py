import pytest

from finetune.errors import RecipeError
from finetune.server.weights import read_names


def test_weights_that_would_be_trained_in_full_are_refused(tmp_path):
    names = tmp_path / "models.yaml"
    names.write_text("small: {model: smollm2-135m, local: {full: true}}\n")
    with pytest.raises(RecipeError, match=r"models.yaml:1: small: local.full: what is served"):
        read_names(names)
    names.write_text("small: {model: smollm2-135m, local: {lora: {dora: true}}}\n")
    assert read_names(names)["small"].local.lora.dora
