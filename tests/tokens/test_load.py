"""Which file a name means, and what is refused."""

from __future__ import annotations

import itertools
import json
import shutil

import pytest

from finetune.errors import UsageError
from finetune.tokens import engines, load_tokenizer
from tests.tokens.conftest import SHIPPED, WHEEL, for_each_tokenizer
from tests.tokens.conversations import TEXTS


@pytest.mark.parametrize("name", ["v1", "v2", "v3", "v7"])
def test_versions_of_the_wheel_have_names(name):
    tokenizer = load_tokenizer(name)
    assert (tokenizer.version, tokenizer.name) == (name, name)
    assert len(tokenizer.sha256) == 64
    assert tokenizer.pad_id not in (tokenizer.bos_id, tokenizer.eos_id)


def test_catalog_model_of_a_shipped_version_needs_no_files():
    assert load_tokenizer("mistralai/Mistral-7B-Instruct-v0.3").version == "v3"


@pytest.mark.parametrize("name", ["no-such-model", "ministral-3-8b"])
def test_what_is_not_there_is_a_usage_error(name):
    with pytest.raises(UsageError) as caught:
        load_tokenizer(name)
    assert caught.value.hint


def test_finder_is_asked_for_names(tmp_path):
    shutil.copy(WHEEL / SHIPPED["v3"], tmp_path / "tokenizer.model.v3")
    tokenizer = load_tokenizer("my-model", find={"my-model": tmp_path}.get)
    assert (tokenizer.version, tokenizer.name) == ("v3", "my-model")


def test_file_without_version_in_its_name_is_refused(tmp_path):
    shutil.copy(WHEEL / SHIPPED["v3"], tmp_path / "tokenizer.model")
    for ref in (tmp_path, tmp_path / "tokenizer.model"):
        with pytest.raises(UsageError, match="does not say its version"):
            load_tokenizer(ref)


def test_config_may_say_that_a_bare_file_is_the_first_version(tmp_path):
    shutil.copy(WHEEL / SHIPPED["v1"], tmp_path / "tokenizer.model")
    config = {"model_type": "mixtral", "vocab_size": 32000}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_tokenizer(tmp_path).version == "v1"
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    with pytest.raises(UsageError):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tekken.json", "{}"),
        ("tekken.json", "not json"),
        ("tekken.json", '{"config": {"version": "v99"}}'),
        ("tokenizer.model.v3", "not a model"),
        ("tokenizer.json", "{}"),
        ("something.json", "{}"),
        ("notes.txt", ""),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=name):
        load_tokenizer(tmp_path / name)


def test_empty_and_ambiguous_folders_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no tokenizer in this folder"):
        load_tokenizer(tmp_path)
    for version in ("v3", "v7"):
        shutil.copy(WHEEL / SHIPPED[version], tmp_path / f"tokenizer.model.{version}")
    with pytest.raises(UsageError, match="several tokenizer files"):
        load_tokenizer(tmp_path)


def test_file_under_a_wrong_version_is_refused(tmp_path):
    # v1's vocabulary has no [INST]: as v3, its control tokens would all be <unk>
    shutil.copy(WHEEL / SHIPPED["v1"], tmp_path / "tokenizer.model.v3")
    with pytest.raises(UsageError, match="no control token"):
        load_tokenizer(tmp_path)


@for_each_tokenizer("v3-tekken")
def test_fast_engine_counts_the_same(tokenizer):
    texts = [*TEXTS, *map("".join, itertools.pairwise(TEXTS))]
    expected = [len(tokenizer.text_ids(text)) for text in texts]
    fast = engines.Tekken(tokenizer._raw, fast_after=1e-9)
    assert fast.count(texts) == expected
    assert fast._fast is not None
    assert fast.count(texts) == expected
