"""Memory, spikes, signals in the middle of a step, and which checkpoint is published."""

import contextlib
import os
import random
import signal
from types import SimpleNamespace

import pytest
import torch

from finetune import files
from finetune.backends.local.checkpoints import find_whole
from finetune.backends.local.history import WINDOW, count_stale, is_spike, rank_steps
from finetune.backends.local.lora import add_adapter
from finetune.backends.local.samples import pack
from finetune.backends.local.sft import TASK
from finetune.errors import Interrupted, RecipeError, RunError, TrainingError
from tests.backends.local.conftest import go_on, make_model, make_recipe, make_samples

LORA = {"rank": 4, "dropout": 0.1}  # dropout: the random state has to be right too


class Stop(Exception):
    """Stands for a kill: nothing of ours runs after it."""


class Trial:
    """One or several calls that train the same thing; `calls` are the trained weights of each."""

    def __init__(self, folder, samples, *, task=TASK, validation=(), epochs=None, **local):
        recipe = make_recipe(**{"lora": LORA, **local})
        if epochs:
            training = recipe.training.model_copy(update={"epochs": epochs})
            recipe = recipe.model_copy(update={"training": training})
        self.recipe, self.folder, self.samples, self.task = recipe, folder, samples, task
        self.validation = validation
        self.lines, self.events, self.weights = [], [], []

    def __call__(self, *, stop=None):
        model = add_adapter(make_model(), self.recipe.local.lora)

        def metric(**values):
            self.lines.append(values)
            self.weights.append(trained(model))
            if values["step"] == stop:
                raise Stop

        def event(name, **facts):
            self.events.append((name, facts))

        told = {"metric": metric, "event": event, "validation": self.validation}
        with contextlib.suppress(Stop):
            self.fitted = go_on(
                self.task, model, self.samples, self.recipe, folder=self.folder, **told
            )
        return trained(model)

    def noted(self, name):
        return [facts for event, facts in self.events if event == name]


def trained(model):
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def make_even(count, *, tokens=25):
    """Samples of one length, so that what fits is the same everywhere."""
    draw = random.Random(1)
    ids = [[draw.randrange(290) for _ in range(tokens)] for _ in range(count)]
    plain = [
        SimpleNamespace(input_ids=i, labels=[-100] * 5 + i[5:], weights=None, images=())
        for i in ids
    ]
    return [pack(sample) for sample in plain]


def short_of_memory(most, *, backward=False):
    """A task whose machine holds `most` tokens at once: more asks for bytes that nobody has."""
    hooks = []

    def take(batch):
        if batch["input_ids"].numel() > most:
            torch.empty(1 << 60, dtype=torch.uint8)

    def loss(model, batch):
        while hooks:
            hooks.pop().remove()
        if backward:  # the first layer's gradient comes last: all others are there by then
            first = next(p for p in model.parameters() if p.requires_grad)
            hooks.append(first.register_hook(lambda _: take(batch)))
        else:
            take(batch)
        return TASK.loss(model, batch)

    return TASK._replace(loss=loss)


@pytest.mark.parametrize("backward", [False, True])
def test_out_of_memory_splits_the_same_step_finer(folder, tmp_path, backward):
    samples = make_even(16)
    task = short_of_memory(70, backward=backward)
    tight = Trial(folder, samples, task=task, micro_batch_tokens=200)
    got = tight()
    noted = [{"step": 1, "micro_batch_tokens": tokens} for tokens in (100, 50)]
    assert tight.noted("out_of_memory") == noted
    assert [line.get("micro_batch_tokens") for line in tight.lines] == [50, None, None, None]

    fine = Trial(tmp_path / "fine", samples, micro_batch_tokens=50)
    assert same(fine(), got)
    assert [line["loss"] for line in fine.lines] == [line["loss"] for line in tight.lines]


def test_a_run_goes_on_with_what_memory_allowed(folder, tmp_path):
    samples = make_even(16)
    whole = Trial(tmp_path / "whole", samples, task=short_of_memory(70), micro_batch_tokens=200)
    wanted = whole()
    broken = Trial(folder, samples, task=short_of_memory(70), micro_batch_tokens=200)
    broken(stop=3)
    broken.events.clear()
    assert same(broken(), wanted)
    assert broken.noted("out_of_memory") == []


def test_one_sample_that_does_not_fit_ends_the_run(folder):
    trial = Trial(folder, make_even(16), task=short_of_memory(20), micro_batch_tokens=200)
    with pytest.raises(TrainingError, match="step 1: out of memory: one sample of 25 tokens") as e:
        trial()
    assert len(trial.noted("out_of_memory")) == 3
    for way_out in ("training.seq_len", "local.gradient_checkpointing: on", "local.quantize"):
        assert way_out in e.value.hint


def spiking(places):
    """A task whose gradients explode at the steps in `places`."""
    calls = iter(range(1, 1000))

    def loss(model, batch):
        total, figures = TASK.loss(model, batch)
        return total * (1e5 if next(calls) in places else 1), figures

    return TASK._replace(loss=loss)


STEADY = {"batch_tokens": 25, "micro_batch_tokens": 25, "save_every": 5}


def test_a_spike_is_skipped_and_counted(folder):
    trial = Trial(folder, make_even(15), task=spiking({24}), **STEADY)
    trial()
    assert [line["step"] for line in trial.lines if "skipped" in line] == [24]
    (noted,) = trial.noted("spike")
    assert noted["step"] == 24
    assert noted["grad_norm"] == trial.lines[23]["grad_norm"] > 10
    assert same(trial.weights[22], trial.weights[23])
    assert not same(trial.weights[23], trial.weights[24])
    assert trial.fitted.skipped == 1


def test_a_run_that_goes_on_knows_the_steps_before(folder, tmp_path):
    whole = Trial(tmp_path / "whole", make_even(15), task=spiking({24}), **STEADY)
    wanted = whole()
    Trial(folder, make_even(15), **STEADY)(stop=22)
    rest = Trial(folder, make_even(15), task=spiking({4}), **STEADY)  # goes on at step 21
    assert same(rest(), wanted)
    assert rest.noted("spike") == whole.noted("spike")


def test_spikes_without_end_stop_the_run(folder):
    trial = Trial(folder, make_even(15), task=spiking(range(23, 99)), **STEADY)
    with pytest.raises(TrainingError, match="step 27: the 5th spike in a row: gradient norm"):
        trial()
    assert len(trial.noted("spike")) == 4
    assert find_whole(folder, {"dataset": "abc"}).step == 25


def test_nothing_is_skipped_where_the_recipe_says_so(folder):
    trial = Trial(folder, make_even(15), task=spiking({24}), spike_factor=None, **STEADY)
    trial()
    assert trial.noted("spike") == []


def test_what_a_spike_is():
    steps = [{"grad_norm": 2.0}] * 20
    assert is_spike(steps, 20.1, factor=10, clip=1.0)
    assert not is_spike(steps, 20.0, factor=10, clip=1.0)
    assert not is_spike(steps, 20.1, factor=10, clip=5.0)
    assert not is_spike(steps[1:], 20.1, factor=10, clip=1.0)
    assert not is_spike([{"grad_norm": 0.01}] * 20, 5.0, factor=10, clip=1.0)
    skipped = [{"grad_norm": 1e9, "skipped": 1}] * 30
    assert is_spike(steps + skipped, 20.1, factor=10, clip=1.0)
    assert not is_spike(steps + [{"grad_norm": 3.0}] * WINDOW, 20.1, factor=10, clip=1.0)


def test_steps_are_ranked_by_a_figure():
    losses = [(5, 2.0), (6, None), (10, 1.0), (15, 1.0), (20, 3.0)]
    history = [{"step": s} | ({"validation_loss": v} if v else {}) for s, v in losses]
    assert rank_steps(history, "validation_loss") == [10, 15, 5, 20]
    assert count_stale(history, "validation_loss") == 2
    better = [{"step": s, "validation_accuracy": v} for s, v in ((1, 0.5), (2, 0.9), (3, 0.7))]
    assert rank_steps(better, "validation_accuracy") == [2, 3, 1]
    assert rank_steps([], "validation_loss") == []


@pytest.fixture
def other():
    """Validation data that training makes worse: they are of another kind."""
    return [pack(sample) for sample in make_samples(4, seed=9)]


EARLY = {"early_stopping": 2, "save_every": 1, "keep_checkpoints": 1}


def test_training_stops_early_and_gives_the_best(folder, samples, other):
    trial = Trial(folder, samples, validation=other, epochs=9, **EARLY)
    got = trial()
    losses = [line["validation_loss"] for line in trial.lines]
    best = losses.index(min(losses)) + 1
    assert (trial.fitted.step, trial.fitted.last) == (best, best + 2)
    assert len(losses) == best + 2
    assert trial.fitted.figures == {"validation_loss": min(losses)}
    assert trial.noted("early_stop") == [{"step": best + 2, "best_step": best}]
    assert same(got, trial.weights[best - 1])
    assert sorted(p.name for p in folder.glob("step-*")) == [f"step-{best}", f"step-{best + 2}"]
    events = len(trial.events)
    again = trial()  # as after a kill before the adapter was written
    assert same(again, got)
    assert len(trial.lines) == len(losses)
    assert trial.events[events:] == [("best_checkpoint", {"step": best})]


def test_a_killed_run_stops_as_early(folder, tmp_path, samples, other):
    whole = Trial(tmp_path / "whole", samples, validation=other, epochs=9, **EARLY)
    wanted = whole()
    broken = Trial(folder, samples, validation=other, epochs=9, **EARLY)
    broken(stop=whole.fitted.last - 1)
    assert same(broken(), wanted)
    assert broken.fitted == whole.fitted


def test_the_best_by_name_without_stopping(folder, samples, other):
    trial = Trial(folder, samples, validation=other, epochs=9, best_by="validation_loss")
    trial()
    measured = {
        line["step"]: line["validation_loss"] for line in trial.lines if "validation_loss" in line
    }
    assert trial.fitted.last == len(trial.lines)
    assert trial.fitted.step == min(measured, key=measured.get) < trial.fitted.last


def test_a_damaged_best_checkpoint_is_said(folder, samples, other):
    trial = Trial(folder, samples, validation=other, epochs=9, **EARLY)
    trial()
    best, last = trial.fitted.step, trial.fitted.last
    (folder / f"step-{best}" / "adapter_model.safetensors").write_bytes(b"")
    trial.events.clear()
    trial()
    assert trial.fitted.step == last
    assert trial.noted("damaged_checkpoint") == [{"checkpoint": f"step-{best}"}]


def test_the_best_needs_something_to_measure_on(folder, samples, other):
    with pytest.raises(RecipeError, match="nothing to validate on"):
        Trial(folder, samples, **EARLY)()
    with pytest.raises(RecipeError, match="`validation_los` is not measured: validation_loss"):
        Trial(folder, samples, validation=other, best_by="validation_los")()


def interrupting(call, *, training=True):
    """A task in which a signal comes while the loss is computed for the `call`th time."""
    calls = iter(range(1, 1000))

    def loss(model, batch):
        if model.training == training and next(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return TASK.loss(model, batch)

    return TASK._replace(loss=loss)


FOUR = {"batch_tokens": 100, "micro_batch_tokens": 25, "save_every": 3}  # micro-batches a step


@pytest.mark.parametrize(("call", "step"), [(2, 0), (10, 2), (12, 3), (32, 8)])
def test_a_signal_is_answered_within_the_step(folder, tmp_path, call, step):
    wanted = Trial(tmp_path / "whole", make_even(16), **FOUR)()
    trial = Trial(folder, make_even(16), task=interrupting(call), **FOUR)
    said = f"saved after step {step} of 8" if step else "before the first step of 8"
    with pytest.raises(Interrupted, match=said):
        trial()
    assert len(trial.lines) == step
    trial.task = TASK
    assert same(trial(), wanted)
    assert [line["step"] for line in trial.lines] == list(range(1, 9))


def test_validation_that_a_signal_broke_off_is_made_up_for(folder, tmp_path, samples, other):
    whole = Trial(tmp_path / "whole", samples, validation=other * 5)
    wanted = whole()
    trial = Trial(folder, samples, validation=other * 5, task=interrupting(1, training=False))
    with pytest.raises(Interrupted, match="saved after step 2"):
        trial()
    assert "validation_loss" not in trial.lines[1]
    trial.task = TASK
    assert same(trial(), wanted)
    made_up = {"step": 2, "validation_loss": whole.lines[1]["validation_loss"]}
    assert trial.lines[2] == made_up


class Evil:
    """A pickle that does something when it is loaded."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return (os.mkdir, (str(self.place),))


def replace(checkpoint, name, data):
    """Put a file into a checkpoint whose hashes are right."""
    (checkpoint / name).write_bytes(data)
    manifest = files.read_json(checkpoint / "MANIFEST.json")
    path = checkpoint / name
    manifest["files"][name] = {"sha256": files.digest(path), "size": path.stat().st_size}
    (checkpoint / "MANIFEST.json").write_bytes(files.to_json(manifest))
    (checkpoint / "COMMITTED").write_text(files.digest(checkpoint / "MANIFEST.json"))


def test_no_pickle_is_run_even_where_its_hash_is_right(folder, tmp_path, samples):
    trial = Trial(folder, samples)
    trial(stop=3)
    (checkpoint,) = folder.glob("step-*")
    torch.save(Evil(tmp_path / "touched"), tmp_path / "evil")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        good = (checkpoint / name).read_bytes()
        replace(checkpoint, name, (tmp_path / "evil").read_bytes())
        with pytest.raises(RunError, match=r"step-2: can't be read"):
            trial()
        replace(checkpoint, name, good)
    assert not (tmp_path / "touched").exists()
    torch.load(tmp_path / "evil", weights_only=False)
    assert (tmp_path / "touched").exists()  # it would have done it
