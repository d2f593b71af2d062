"""Several processes: real ones over gloo; what needs GPUs is held by what is passed on."""

import sys
from pathlib import Path

import mistral_common
import pytest
import torch
from safetensors.torch import load_file

from finetune import pipeline, records, runs
from finetune.backends.local import train
from finetune.backends.local.launch import Node, build_command
from finetune.recipe import Recipe
from finetune.recipe.tree import Launch
from finetune.tokens import load_tokenizer
from tests.backends.local.conftest import make_model

TALK = [
    ("What is the capital of France?", "Paris."),
    ("And of Italy?", "Rome, of course."),
    ("Translate: good morning", "Bonjour !"),
    ("Say something long", "The quick brown fox jumps over the lazy dog, again and again."),
    ("Count to three", "One, two, three."),
]
TOKENIZER = "mistral_instruct_tokenizer_240323.model.v3"


def write(path, talk):
    lines = []
    for number, (question, answer) in enumerate(talk):
        user = {"role": "user", "content": f"{question} ({number})"}
        messages = [user, {"role": "assistant", "content": answer}]
        lines.append(records.encode(records.from_object("chat", {"messages": messages})))
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny model, a real tokenizer and data."""
    folder = tmp_path_factory.mktemp("launch")
    make_model(vocab_size=load_tokenizer("v3").vocab_size).save_pretrained(folder / "model")
    data = Path(mistral_common.__file__).parent / "data"
    (folder / "model" / "tokenizer.model.v3").write_bytes((data / TOKENIZER).read_bytes())
    write(folder / "train.jsonl", TALK * 3)
    write(folder / "validation.jsonl", TALK[:3])
    return folder


def make_recipe(place, *, launch, **local):
    return Recipe.model_validate(
        {
            "name": "capitals",
            "model": str(place / "model"),
            "data": {
                "train": [{"path": str(place / "train.jsonl")}],
                "validation": [{"path": str(place / "validation.jsonl")}],
            },
            "training": {"epochs": 2, "learning_rate": 1e-2, "seq_len": 100},
            "local": {
                "batch_tokens": 100,
                "micro_batch_tokens": 40,
                "dtype": "float32",
                "save_every": 2,
                "launch": launch,
            }
            | local,
        }
    )


def start(place, name, recipe):
    dataset = pipeline.prepare(recipe, folder=place / "datasets")
    facts = {"dataset": dataset.folder, "dataset_digest": dataset.digest}
    return runs.Run.create(place / name, recipe, identity=name, **facts), dataset


def run_alone(place):
    recipe = make_recipe(place, launch={})
    run, dataset = start(place, "alone", recipe)
    train(run, recipe, dataset)
    return run


@pytest.mark.heavy
def test_two_processes_equal_one(place):
    alone = run_alone(place)
    recipe = make_recipe(place, launch={"processes": 2})
    run, dataset = start(place, "two", recipe)
    seen = []
    train(run, recipe, dataset, progress=lambda *told, **facts: seen.append((*told, facts)))
    one, two = alone.metrics(), run.metrics()
    assert [line["step"] for line in two] == [line["step"] for line in one]
    for name in ("loss", "grad_norm", "validation_loss", "tokens", "epoch", "learning_rate"):
        assert [line.get(name) for line in two] == pytest.approx(
            [line.get(name) for line in one], abs=1e-4
        )
    a, b = (load_file(r.adapter / "adapter_model.safetensors") for r in (alone, run))
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4)
    assert [told for told in seen if told[0] == "train"]
    assert [e["event"] for e in run.events()] == [e["event"] for e in alone.events()]
    last = {path.name for path in (run.checkpoints / f"step-{len(one)}").iterdir()}
    assert last >= {"rng_state_0.pth", "rng_state_1.pth"}


def test_the_command_starts_what_accelerate_understands(tmp_path):
    from accelerate.commands.launch import launch_command_parser

    launch = Launch(processes=4, nodes=2)
    node = Node(1, "10.0.0.7", 29500)
    command = build_command(launch, tmp_path, kind="cuda", threads=3, node=node)
    assert command[:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    args = launch_command_parser().parse_args(command[3:])
    assert (args.num_processes, args.num_machines, args.machine_rank) == (8, 2, 1)
    assert (args.main_process_ip, args.main_process_port) == ("10.0.0.7", 29500)
    assert (args.multi_gpu, args.use_fsdp, args.use_deepspeed, args.cpu) == (True, *[False] * 3)
    assert (args.num_cpu_threads_per_process, args.same_network) == (3, True)
    assert args.training_script == "finetune.backends.local.rank"
    assert args.training_script_args == [str(tmp_path)]
