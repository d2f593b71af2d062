"""Configs of other trainers, given as data."""

from __future__ import annotations

import json

import pytest
from ruamel.yaml import YAML

from finetune.corpus import find_files
from finetune.corpus.configs import find_config, read_config
from finetune.errors import UsageError

LLAMA_FACTORY = {
    "shop": {
        "file_name": "shop.json",
        "columns": {"prompt": "question", "query": "input", "response": "answer"},
    },
    "chats": {
        "file_name": "chats.json",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "tools": "functions"},
    },
    "messages": {
        "hf_hub_url": "owner/name",
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {"role_tag": "role", "content_tag": "content"},
    },
    "pairs": {
        "file_name": "pairs.json",
        "ranking": True,
        "columns": {"prompt": "question", "chosen": "good", "rejected": "bad"},
    },
    "rated": {
        "file_name": "rated.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "kto_tag": "label"},
    },
    "plain": {"file_name": "alpaca.json"},
    "pages": {"file_name": "pages.jsonl", "columns": {"prompt": "text"}},
}
AXOLOTL = """
base_model: mistral
datasets:
  - {path: shop.jsonl, type: alpaca}
  - {path: chats/, ds_type: json, data_files: [a.jsonl, b.jsonl], type: chat_template, field_messages: dialog}
  - path: owner/name
    type: {field_instruction: question, field_output: answer}
  - path: ./old.json
    type: chat_template
    field_messages: conversations
    message_property_mappings: {role: from, content: value}
"""
TORCHTUNE = """
dataset:
  _component_: torchtune.datasets.chat_dataset
  source: json
  data_files: data/my.json
  conversation_column: dialog
  conversation_style: openai
"""
TORCHTUNE_PAIRS = """
dataset:
  - _component_: torchtune.datasets.instruct_dataset
    source: owner/name
    column_map: {input: question, output: answer}
"""
OUMI = """
data:
  train:
    datasets:
      - {dataset_name: text_sft, dataset_path: train.jsonl}
      - {dataset_name: owner/name, split: train}
"""


@pytest.mark.parametrize(
    ("name", "text", "tool", "sources"),
    [
        (
            "any.json",
            json.dumps(LLAMA_FACTORY),
            "LLaMA-Factory",
            [
                {
                    "path": "shop.json",
                    "format": "alpaca",
                    "columns": {"instruction": "question", "output": "answer"},
                },
                {"path": "chats.json", "format": "sharegpt", "columns": {"tools": "functions"}},
                {"path": "hub:owner/name", "format": "openai"},
                {
                    "path": "pairs.json",
                    "format": "preference",
                    "columns": {"prompt": "question", "chosen": "good", "rejected": "bad"},
                },
                {"path": "rated.json", "format": "rating", "columns": {"completion": "messages"}},
                {"path": "alpaca.json", "format": "alpaca"},
                {"path": "pages.jsonl", "format": "text"},
            ],
        ),
        (
            "any.yml",
            AXOLOTL,
            "axolotl or TRL",
            [
                {"path": "shop.jsonl", "format": "alpaca"},
                {"path": "a.jsonl", "format": "openai", "columns": {"messages": "dialog"}},
                {"path": "b.jsonl", "format": "openai", "columns": {"messages": "dialog"}},
                {
                    "path": "hub:owner/name",
                    "format": "pairs",
                    "columns": {"user": "question", "assistant": "answer"},
                },
                {"path": "./old.json", "format": "sharegpt"},
            ],
        ),
        (
            "any.yaml",
            TORCHTUNE,
            "torchtune",
            [{"path": "data/my.json", "format": "openai", "columns": {"messages": "dialog"}}],
        ),
        (
            "any.yaml",
            TORCHTUNE_PAIRS,
            "torchtune",
            [
                {
                    "path": "hub:owner/name",
                    "format": "pairs",
                    "columns": {"user": "question", "assistant": "answer"},
                }
            ],
        ),
        ("any.yaml", OUMI, "oumi", [{"path": "train.jsonl"}, {"path": "hub:owner/name"}]),
        ("any.yaml", "data: {train: [{path: a.csv}]}", "a recipe", []),
    ],
)
def test_config_is_told_by_its_shape(tmp_path, name, text, tool, sources):
    path = tmp_path / name
    path.write_text(text)
    found = read_config(path)
    assert (found.tool, found.sources) == (tool, sources)
    with pytest.raises(UsageError, match=r"any\.\w+: is .*, not data") as caught:
        find_files(path)
    assert caught.value.hint


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"datasets": []},
        {"datasets": [{"text": "T"}]},
        {"datasets": [{"path": "cat.png", "caption": "A cat"}]},
        {"data": [{"path": "a"}]},
        {"dataset": "x"},
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"train": {"text": "T"}},
    ],
)
def test_data_are_no_config(value):
    assert find_config(value) is None


def test_sources_of_a_hint_can_be_pasted_into_a_recipe(tmp_path):
    path = tmp_path / "info.json"
    path.write_text(json.dumps({"a": LLAMA_FACTORY["shop"], "b": LLAMA_FACTORY["messages"]}))
    with pytest.raises(UsageError) as caught:
        find_files(path)
    shown = caught.value.hint.split("`data.train` ")[1].split("; ")
    pasted = [YAML(typ="safe").load(text.strip("`"))[0] for text in shown]
    assert pasted == read_config(path).sources


def test_configs_in_a_folder_are_left_out_by_name(tmp_path):
    (tmp_path / "dataset_info.json").write_text(json.dumps(LLAMA_FACTORY))
    (tmp_path / "shop.json").write_text('[{"instruction": "I", "output": "O"}]')
    files, left_out = find_files(tmp_path)
    assert [file.name for file in files] == ["shop.json"]
    assert left_out == ["dataset_info.json"]


def test_init_takes_what_a_config_names(finetune, tmp_path):
    rows = [{"question": f"Q{n}", "input": "", "answer": "A"} for n in range(3)]
    (tmp_path / "shop.json").write_text(json.dumps(rows))
    (tmp_path / "info.json").write_text(json.dumps({"shop": LLAMA_FACTORY["shop"]}))
    done = finetune("init", "info.json", "-o", "r.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    recipe = YAML(typ="safe").load((tmp_path / "r.yaml").read_text())
    assert recipe["data"]["train"] == [
        {
            "path": "shop.json",
            "format": "alpaca",
            "columns": {"instruction": "question", "output": "answer"},
        }
    ]
