"""What is sent to make a job, by the host that it is sent to."""

from __future__ import annotations

import pytest

from finetune.backends.platform.jobs import find_skip_share, name_model
from finetune.errors import RecipeError
from finetune.recipe import Recipe

HERE = "http://127.0.0.1:8000"


def make_recipe(base="smollm2-135m", *, too_long="error", **platform):
    data = {"train": [{"path": "/data.jsonl"}], "too_long": too_long}
    facts = {"model": base, "backend": "platform", "data": data, "platform": platform}
    return Recipe.model_validate(facts)


@pytest.mark.parametrize(
    ("base", "host", "name"),
    [
        ("mistral-nemo", "api.mistral.ai", "open-mistral-nemo"),
        ("mistralai/Mistral-Nemo-Instruct-2407", HERE, "mistral-nemo"),
        ("smollm2-135m", "embedded", "smollm2-135m"),
        ("/models/of-the-house", "embedded", "of-the-house"),
        ("somebody/their-model", "https://finetune.example.org", "their-model"),
    ],
)
def test_a_server_of_ones_own_calls_a_model_as_the_recipe_does(base, host, name):
    assert name_model(make_recipe(base, host=host)) == name
    assert name_model(make_recipe(base, host=host, model="other")) == "other"


def test_mistral_has_no_name_for_what_it_does_not_serve():
    with pytest.raises(RecipeError, match=r"no name for `smollm2-135m`"):
        name_model(make_recipe())


@pytest.mark.parametrize(
    ("host", "too_long", "said", "share"),
    [
        ("embedded", "drop", 0.0, 0.5),
        ("embedded", "drop", 0.1, 0.1),
        ("embedded", "error", 0.0, 0.0),
        (HERE, "truncate-history", 0.0, 0.0),
        ("api.mistral.ai", "drop", 0.0, 0.0),
    ],
)
def test_what_is_too_long_is_left_out_there_as_it_is_here(host, too_long, said, share):
    recipe = make_recipe(too_long=too_long, host=host, invalid_sample_skip_percentage=said)
    assert find_skip_share(recipe) == share
