"""Fixtures that several rooms share."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

# The suite tries the same examples each time: it tells whether a change broke something, and never
# whether it was lucky. `--hypothesis-profile=deep` looks for new faults.
# No deadlines: a loaded machine is slow, which is no fault.
hypothesis.settings.register_profile("suite", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("deep", max_examples=10_000, deadline=None)
hypothesis.settings.load_profile("suite")

ROOT = Path(__file__).parent.parent


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Begin with the files that take long, so that no process is left with one at the end."""
    heavy = {item.path for item in items if item.get_closest_marker("heavy")}
    items.sort(key=lambda item: item.path not in heavy)


@pytest.fixture(scope="session")
def finetune():
    """Run the command line: `finetune("plan", path, cwd=folder)` → the finished process."""

    def run(*arguments, cwd):
        return subprocess.run(
            [sys.executable, "-m", "finetune", *map(str, arguments)],
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def check_document():
    """Check a JSON document against a schema of `data_schemas`, named such as `cli/plan`."""
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    folder = ROOT / "data_schemas"
    schemas = {
        str(path.relative_to(folder)).removesuffix(".schema.json"): path
        for path in folder.rglob("*.schema.json")
    }
    registry = Registry().with_resources(
        (path.as_uri(), Resource.from_contents(json.loads(path.read_bytes())))
        for path in schemas.values()
    )

    def check(name, document):
        schema = {"$ref": schemas[name].as_uri()}
        Draft202012Validator(schema, registry=registry).validate(document)

    return check


@pytest.fixture(scope="session")
def embedded_model(tmp_path_factory):
    """The folder of the embedded model in the user's cache, built once for all workers."""
    from finetune.backends.local.embedded import provide_model

    lock = tmp_path_factory.getbasetemp().parent / "embedded-model.lock"
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return provide_model()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    """A folder with a randomly initialised Mistral of two layers, in float32."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        sliding_window=None,
        initializer_range=0.5,
        pad_token_id=11,
    )
    folder = tmp_path_factory.mktemp("tiny") / "base"
    MistralForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_adapter(tiny_base):
    """A folder with a LoRA adapter for `tiny_base` that changes what it says."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    from finetune.backends.local.quiet import quiet

    torch.manual_seed(1)
    linears = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=linears, task_type="CAUSAL_LM")
    with quiet():
        tuned = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_base), config)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    folder = tiny_base.parent / "adapter"
    with quiet():
        tuned.save_pretrained(folder)
    return folder
