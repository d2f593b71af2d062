"""A run of the embedded model: talk with it, write it merged."""

import errno
import importlib
import json
import resource
import subprocess
import sys

import pytest
from click.testing import CliRunner

from finetune.backends.local.chat import Chat
from finetune.cli import finetune
from finetune.errors import UsageError
from finetune.export import EXPORTERS, export
from finetune.recipe import load_recipe
from finetune.runs import Run

RECORD = {
    "messages": [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "The capital of France is Paris."},
    ]
}


def make_run(folder):
    (folder / "recipe.yaml").write_text(
        "model: smollm2-135m\ndata: {train: [{path: chats.jsonl}]}\n"
    )
    (folder / "chats.jsonl").write_text(json.dumps(RECORD) + "\n")
    dataset = folder / "dataset"
    dataset.mkdir()
    (dataset / "validation.jsonl").write_text(json.dumps(RECORD) + "\n")
    recipe = load_recipe(folder / "recipe.yaml")
    return Run.create(
        folder / "runs" / "demo", recipe, identity="0", dataset=dataset, dataset_digest="0"
    )


@pytest.fixture
def untrained(tmp_path):
    return make_run(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, embedded_model):
    """A run with an adapter that changes what the model says."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    from finetune.backends.local.quiet import quiet

    run = make_run(tmp_path_factory.mktemp("run"))
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    with quiet():
        base = AutoModelForCausalLM.from_pretrained(embedded_model, dtype=torch.bfloat16)
        tuned = peft.get_peft_model(base, config)
        torch.manual_seed(0)
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.003)
        tuned.save_pretrained(run.adapter)
    return run


def test_every_exporter_is_there():
    for target in EXPORTERS.values():
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_what_cannot_be_exported(untrained, tmp_path):
    with pytest.raises(UsageError, match="no such form") as caught:
        export(untrained, tmp_path / "out", to="merge")
    assert caught.value.hint == "did you mean `merged`?"
    with pytest.raises(UsageError, match="is there already"):
        export(untrained, tmp_path, to="merged")
    with pytest.raises(UsageError, match="merged: this form has no option `numbers`"):
        export(untrained, tmp_path / "out", to="merged", options={"numbers": "f16"})


@pytest.mark.parametrize("form", EXPORTERS)
def test_an_adapter_of_another_base_is_not_exported(run, tmp_path, form):
    """It has the shapes of the run's own: somebody has put it there by hand."""
    place = run.adapter / "adapter_config.json"
    config = {**json.loads(place.read_bytes()), "base_model_name_or_path": "owner/other"}
    place.write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"another base: .* names `owner/other`"):
        export(run, tmp_path / "out", to=form)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="another base"):
        Chat(run.recipe, run.adapter)


@pytest.mark.parametrize("command", [["chat"], ["export", "--to", "merged", "-o", "x"]])
def test_a_run_without_an_adapter_says_so(untrained, command):
    done = subprocess.run(
        [sys.executable, "-m", "finetune", *command, str(untrained.folder)],
        capture_output=True,
        text=True,
        input="hello",
        check=False,
    )
    assert done.returncode == 2
    assert "has no tuned model" in done.stderr


@pytest.mark.heavy
def test_merged_model_answers_as_the_adapter_does(trained, tmp_path, check_document):
    merged = tmp_path / "merged"
    done = CliRunner().invoke(
        finetune,
        ["export", str(trained.folder), "--to", "merged", "-o", str(merged), "--json"],
        catch_exceptions=False,
    )
    facts = json.loads(done.stdout)
    check_document("cli/export", facts)
    assert facts["kl"] < 0.05
    assert facts["agreement"] >= 0.95
    assert facts["bytes"] == sum(path.stat().st_size for path in merged.iterdir())
    assert sorted(path.name for path in merged.iterdir()) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tekken.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["merged"], "nothing else is left"


@pytest.mark.heavy
def test_chat_answers_one_prompt(trained):
    arguments = ["chat", str(trained.folder), "--max-new-tokens", "8", "--json"]
    question = "What is the capital of France?"
    asked = CliRunner().invoke(finetune, [*arguments, "--prompt", question], catch_exceptions=False)
    message = json.loads(asked.stdout)["message"]
    assert message["role"] == "assistant"
    assert message["content"]
    piped = CliRunner().invoke(finetune, arguments, input=question + "\n", catch_exceptions=False)
    assert json.loads(piped.stdout)["message"] == message


LIMITS = {"merged": 65536, "consolidated": 65536, "gguf": 65536, "lora": 30000, "adapter": 4096}


@pytest.mark.parametrize("form", LIMITS)
def test_a_full_disk_leaves_nothing(run, tmp_path, form):
    """A limit to the size of files stands for the disk; the weights are larger."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMITS[form], old[1]))
    try:
        with pytest.raises(OSError, match=r"File too large|No space left") as caught:
            export(run, tmp_path / "out", to=form)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert caught.value.errno in (errno.EFBIG, errno.ENOSPC)
    assert not list(tmp_path.glob("*out*"))
