"""A base in memory once, with adapters that come and go."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune.backends.local.shared import Shared
from finetune.errors import UsageError
from tests.export.conftest import make_adapter, make_base


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("shared") / "base")


@pytest.fixture(scope="module")
def adapter(base):
    return make_adapter(base, base.parent / "adapter")


def answer(shared, adapter=None):
    with shared.using(adapter) as model, torch.inference_mode():
        return model(torch.tensor([[1, 40, 50, 60]])).logits


def test_base_and_adapters_answer_each_as_themselves(base, adapter):
    shared = Shared(str(base))
    alone = answer(shared)
    tuned = answer(shared, adapter)
    other = shutil.copytree(adapter, base.parent / "other")
    assert (tuned - alone).abs().max() > 0.1
    assert torch.equal(answer(shared, other), tuned)
    assert torch.equal(answer(shared), alone)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("fault", ["shape", "missing", "base", "gone"])
def test_an_adapter_that_does_not_fit_leaves_no_trace(base, adapter, tmp_path, first, fault):
    shared = Shared(str(base))
    alone = answer(shared)
    tuned = None if first else answer(shared, adapter)
    broken = shutil.copytree(adapter, tmp_path / "broken")
    weights = load_file(broken / "adapter_model.safetensors")
    name = min(name for name in weights if "lora_B" in name)
    if fault == "shape":
        weights[name] = weights[name][:-1].contiguous()
    elif fault == "missing":
        del weights[name]
    elif fault == "base":
        place = broken / "adapter_config.json"
        config = {**json.loads(place.read_bytes()), "base_model_name_or_path": "owner/other"}
        place.write_text(json.dumps(config))
    save_file(weights, broken / "adapter_model.safetensors")
    if fault == "gone":
        (broken / "adapter_model.safetensors").unlink()
    with pytest.raises(UsageError):
        answer(shared, broken)
    assert torch.equal(answer(shared), alone)
    if tuned is not None:
        assert torch.equal(answer(shared, adapter), tuned)
