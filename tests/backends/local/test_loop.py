import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from finetune.backends.local.checkpoints import list_steps
from finetune.backends.local.lora import add_adapter
from finetune.backends.local.model import load_model
from finetune.backends.local.samples import collate, pack
from finetune.backends.local.sft import TASK
from finetune.backends.local.validation import measure
from finetune.errors import RunError, TrainingError
from tests.backends.local.conftest import go_on, make_model, make_recipe, make_samples

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("train_tiny.py")
SWEEP = ROOT / "benchmarks" / "crash_points.py"


class Stop(Exception):
    """Stands for a kill: nothing of ours runs after it."""


def train(folder, samples, *, stop=None, model=None, task=TASK, checkpointing=False, **more):
    """Return the lines of metrics and the trained weights; `more` is for `fit` and `local`."""
    own = {key: more.pop(key) for key in ("identity", "validation", "event") if key in more}
    recipe = make_recipe(**more)
    model = model or add_adapter(make_model(), recipe.local.lora)
    lines = []

    def metric(**values):
        lines.append(values)
        if values["step"] == stop:
            raise Stop

    own |= {"gradient_checkpointing": checkpointing, "metric": metric}
    with contextlib.suppress(Stop):
        go_on(task, model, samples, recipe, folder=folder, **own)
    return lines, trained(model)


def trained(model):
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_loss_falls_and_every_step_has_its_line(folder, samples):
    validation = [pack(sample) for sample in make_samples(4)]
    lines, _ = train(folder, samples, validation=validation, save_every=3)
    count = len(lines)
    assert [line["step"] for line in lines] == list(range(1, count + 1))
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[-1]["tokens"] == 2 * sum(len(sample.input_ids) for sample in samples)
    assert lines[-1]["epoch"] == 2
    saved = [line["step"] for line in lines if "validation_loss" in line]
    assert saved == sorted({*range(3, count + 1, 3), count})
    assert all(line["tokens_per_second"] > 0 and line["grad_norm"] > 0 for line in lines)


def test_micro_batches_add_up_to_the_step(folder, tmp_path):
    samples = [pack(sample) for sample in make_samples(12, weighted=True)]
    whole, one = train(folder, samples, micro_batch_tokens=200)
    split, other = train(tmp_path / "split", samples, micro_batch_tokens=60)
    for a, b in zip(whole, split, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-5)


def test_the_first_step_is_one_step_of_adamw_by_hand(folder):
    samples = [pack(sample) for sample in make_samples(3, weighted=True)]
    lines, got = train(
        folder, samples, batch_tokens=sum(len(s.input_ids) for s in samples), micro_batch_tokens=70
    )
    model = add_adapter(make_model(), make_recipe().local.lora)
    model.set_attn_implementation("finetune-packed")
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)
    for rate in (1e-2, 5e-3):  # a cosine of two steps
        from finetune.backends.local.loss import packed_loss

        batch = collate(samples)
        loss = packed_loss(model, batch) / batch["weights"].sum()
        optimizer.param_groups[0]["lr"] = rate
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert len(lines) == 2
    assert lines[-1]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        if name in got:
            torch.testing.assert_close(got[name], parameter.detach(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("killed_at", [1, 2, 3])
def test_a_killed_run_goes_on_exactly(folder, tmp_path, samples, killed_at):
    lora = {"rank": 4, "dropout": 0.1}  # dropout: the random state has to be right too
    whole, wanted = train(tmp_path / "whole", samples, lora=lora)
    train(folder, samples, stop=killed_at, lora=lora)
    rest, got = train(folder, samples, lora=lora)
    assert rest[0]["step"] == 1 + (killed_at - 1) // 2 * 2
    assert rest[-1]["loss"] == whole[-1]["loss"]
    assert same(wanted, got)


def test_a_finished_run_has_nothing_left_to_do(folder, samples):
    lines, wanted = train(folder, samples)
    again, got = train(folder, samples)
    assert lines
    assert again == []
    assert same(wanted, got)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt", "rng_state.pth"])
def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(folder, samples, name):
    lines, wanted = train(folder, samples)
    newest = max(folder.glob("step-*"), key=lambda path: int(path.name.partition("-")[2]))
    data = bytearray((newest / name).read_bytes())
    data[len(data) // 2] ^= 1
    (newest / name).write_bytes(data)
    again, got = train(folder, samples)
    assert again
    assert again[-1]["loss"] == lines[-1]["loss"]
    assert same(wanted, got)


def test_another_identity_is_refused(folder, samples):
    train(folder, samples, stop=3)
    with pytest.raises(RunError, match="`dataset` was abc, is xyz"):
        train(folder, samples, identity={"dataset": "xyz"})


def test_a_loss_that_is_no_number_stops_before_the_weights_change(folder, samples):
    model = add_adapter(make_model(), make_recipe().local.lora)
    poisoned = next(p for n, p in model.named_parameters() if "norm" in n)

    def poison(**values):
        if values["step"] == 3:
            poisoned.data[:] = float("nan")

    with pytest.raises(TrainingError, match="step 4: the loss is nan"):
        go_on(TASK, model, samples, make_recipe(), folder=folder, metric=poison)
    assert [path.name for path in folder.glob("step-*")] == ["step-2"]
    assert all(torch.isfinite(p).all() for p in model.parameters() if p.requires_grad)


def test_validation_leaves_training_as_it_was(folder, tmp_path, samples):
    lora = {"rank": 4, "dropout": 0.1}
    _, without = train(folder, samples, lora=lora)
    _, measured = train(tmp_path / "with", samples, validation=samples[:3], lora=lora)
    assert same(without, measured)


def test_the_mean_loss_is_by_token(samples):
    from finetune.backends.local.attention import register

    model = make_model()
    model.set_attn_implementation(register())

    def loss(items):
        return measure(TASK, model, items, limit=100)["validation_loss"]

    parts = [(loss([sample]), sample.items) for sample in samples]
    assert loss(samples) == pytest.approx(sum(a * n for a, n in parts) / sum(n for _, n in parts))


def test_gradient_checkpointing_changes_nothing_but_memory(folder, tmp_path, samples):
    plain, _ = train(folder, samples, checkpointing=False)
    again, _ = train(tmp_path / "again", samples, checkpointing=True)
    assert [a["loss"] for a in plain] == pytest.approx([b["loss"] for b in again], rel=1e-5)


MANY = [pack(sample) for sample in make_samples(24)]  # what the script trains on


@pytest.fixture
def whole(tmp_path):
    """The last line of the script's run, had it not been disturbed."""
    lines, _ = train(tmp_path / "whole", MANY)
    return lines[-1]["step"], lines[-1]["loss"]


def start(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def wait_for(process, step):
    while not (line := process.stdout.readline()).startswith(f"{step} "):
        assert line, process.stderr.read()


def test_a_signal_saves_and_a_second_call_goes_on(folder, whole):
    process = start(folder)
    wait_for(process, 3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 143, err
    assert re.fullmatch(r".*: interrupted, saved after step \d+ of \d+\n", err)
    rest, _ = train(folder, MANY)
    assert rest[0]["step"] > 3
    assert (rest[-1]["step"], rest[-1]["loss"]) == whole


def test_a_kill_costs_nothing_but_time():
    """Before the run's state, in a checkpoint, at the end; `benchmarks/` has each change of a file."""
    done = subprocess.run(
        [sys.executable, SWEEP, "--first", "71", "--last", "200", "--every", "64"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\n3 kills: .*; 0 failed\n", done.stdout)


@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_on_a_quantized_base_stay_in_float32(folder, tiny_base, quantize, dtype):
    """TRL rounds them to bfloat16, and the updates of a small learning rate are lost."""
    recipe = make_recipe(quantize=quantize, dtype=dtype)
    slow = recipe.training.model_copy(update={"learning_rate": 1e-6})
    recipe = recipe.model_copy(update={"training": slow})
    model = load_model(tiny_base, quantize=quantize, dtype=dtype)
    model = add_adapter(model, recipe.local.lora)
    begun = trained(model)
    few = [pack(sample) for sample in make_samples(8, vocabulary=64)]
    go_on(TASK, model, few, recipe, folder=folder)
    for name, tensor in trained(model).items():
        assert tensor.dtype == torch.float32
        assert not torch.equal(tensor, begun[name]), name


def test_room_is_asked_for_the_checkpoints_that_there_will_be(folder, samples):
    train(folder, samples, save_every=100, keep_checkpoints=10**12)
    assert list_steps(folder)


def test_a_full_disk_leaves_the_old_checkpoints(folder, whole):
    process = start(folder, "--full-after", "3")
    _, err = process.communicate()
    assert process.returncode == 1, err
    assert re.fullmatch(r".*: the checkpoint of step 4 can't be written: .* free\)\n", err)
    assert [path.name for path in folder.glob("step-*")] == ["step-2"]
    assert not (folder / ".saving").exists()
    rest, _ = train(folder, MANY)
    assert (rest[-1]["step"], rest[-1]["loss"]) == whole
