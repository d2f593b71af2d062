"""Several processes: real ones over gloo; what needs GPUs is held by what is passed on."""

import sys
from pathlib import Path
from types import SimpleNamespace

import mistral_common
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from finetune import pipeline, records, runs
from finetune.backends.local import train
from finetune.backends.local.launch import Node, build_command, check_launch, read_node
from finetune.backends.local.ranks import read_ranks
from finetune.backends.local.schedule import plan_steps, share_step
from finetune.errors import FinetuneError, RunError
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
    command = build_command(launch, tmp_path, kind="cuda", threads=3, clip=0.5, node=node)
    assert command[:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    args = launch_command_parser().parse_args(command[3:])
    assert (args.num_processes, args.num_machines, args.machine_rank) == (8, 2, 1)
    assert (args.main_process_ip, args.main_process_port) == ("10.0.0.7", 29500)
    assert (args.multi_gpu, args.use_fsdp, args.use_deepspeed, args.cpu) == (True, *[False] * 3)
    assert (args.num_cpu_threads_per_process, args.same_network) == (3, True)
    assert args.training_script == "finetune.backends.local.rank"
    assert args.training_script_args == [str(tmp_path)]


def test_shards_are_what_accelerate_reads_from_the_command(tmp_path, monkeypatch):
    from accelerate.commands.launch import launch_command_parser
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env

    launch = Launch(processes=8, strategy="fsdp")
    command = build_command(launch, tmp_path, kind="cuda", threads=1, clip=0.5)
    args = launch_command_parser().parse_args(command[3:])
    assert (args.use_fsdp, args.multi_gpu) == (True, False)
    for key, value in prepare_multi_gpu_env(args).items():
        if "FSDP" in key:
            monkeypatch.setenv(key, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.state_dict_type.name == "SHARDED_STATE_DICT"
    assert plugin.auto_wrap_policy.__name__ == "transformer_auto_wrap_policy"
    assert not plugin.cpu_ram_efficient_loading
    assert not plugin.activation_checkpointing


def test_deepspeed_is_zero_2_without_ssh_between_nodes(tmp_path):
    from accelerate.commands.launch import launch_command_parser

    launch = Launch(processes=2, nodes=2, strategy="deepspeed")
    node = Node(0, "10.0.0.7", 1234)
    command = build_command(launch, tmp_path, kind="cuda", threads=1, clip=0.5, node=node)
    args = launch_command_parser().parse_args(command[3:])
    assert (args.use_deepspeed, args.zero_stage) == (True, 2)
    assert args.deepspeed_multinode_launcher == "standard"
    assert args.gradient_clipping == 0.5


def test_deepspeed_goes_one_step_for_all_micro_batches_of_a_step():
    """A stand-in for its engine, behind what accelerate calls it with."""
    import torch
    from accelerate import Accelerator
    from accelerate.state import GradientState
    from accelerate.utils import DistributedType
    from accelerate.utils.deepspeed import DeepSpeedEngineWrapper

    from finetune.backends.local.trainer import exchange

    done = []
    engine = SimpleNamespace(
        set_gradient_accumulation_boundary=lambda **given: done.extend(given.values()),
        backward=lambda loss, **_: done.append(float(loss)),
        step=lambda: done.append("step"),
    )

    class Deepspeed:
        distributed_type = DistributedType.DEEPSPEED
        gradient_accumulation_steps = 1
        gradient_state = GradientState()
        deepspeed_engine_wrapped = DeepSpeedEngineWrapper(engine)
        sync_gradients = Accelerator.sync_gradients
        backward = Accelerator.backward

    accelerator = Deepspeed()
    for number in (1, 2, 3):
        with exchange(accelerator, None, last=number == 3):
            accelerator.backward(torch.tensor(float(number)))
    assert done == [False, 1.0, False, 2.0, True, 3.0, "step"]
    assert accelerator.sync_gradients


@pytest.mark.parametrize(
    ("launch", "environment", "message"),
    [
        ({"processes": 10_000}, {}, "local.launch.processes: 10000 is more than the"),
        (
            {"processes": 2, "strategy": "fsdp"},
            {},
            "local.launch.strategy: `fsdp` needs GPUs, this machine has none",
        ),
        ({"nodes": 2}, {}, "local.launch.nodes: 2 machines, and nothing says which one this is"),
        (
            {"nodes": 2},
            {"NODE_RANK": "2", "MASTER_ADDR": "x"},
            "local.launch.nodes: 2 machines, and nothing says",
        ),
        (
            {},
            {"LOCAL_RANK": "1", "WORLD_SIZE": "4"},
            "WORLD_SIZE: 4 processes were started from outside",
        ),
    ],
    ids=["devices", "shards", "no node", "node", "torchrun"],
)
def test_what_cannot_be_started_is_refused_before_anything_is_read(launch, environment, message):
    recipe = make_recipe(Path("nowhere"), launch=launch)
    with pytest.raises(FinetuneError) as caught:
        check_launch(recipe, environment, devices=("cpu", 2))
    assert caught.value.message.startswith(message)
    assert caught.value.hint


def test_more_processes_than_rank_says_is_an_error():
    launch = Launch(processes=2)
    with pytest.raises(RunError, match="2 x 1 processes are to train, 3 were started"):
        read_ranks(launch, {"WORLD_SIZE": "3", "RANK": "0"})
    ranks = read_ranks(launch, {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"})
    assert (ranks.number, ranks.total, ranks.first) == (1, 2, False)


@pytest.mark.parametrize(
    ("environment", "node"),
    [
        ({"SLURM_NODEID": "1", "MASTER_ADDR": "n1", "MASTER_PORT": "20007"}, Node(1, "n1", 20007)),
        (
            {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2"},
            Node(1, "10.0.0.1", 29500),
        ),
        ({"NODE_RANK": "0", "MASTER_ADDR": "a"}, Node(0, "a", 29500)),
    ],
    ids=["slurm", "skypilot", "torch"],
)
def test_a_node_is_known_by_what_its_cluster_says(environment, node):
    assert read_node(Launch(nodes=2), environment) == node


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=30),
    st.integers(20, 200),
    st.integers(10, 100),
    st.integers(1, 5),
)
def test_ranks_share_each_step_out_whole_and_compute_equally_often(lengths, batch, micro, ranks):
    alone = plan_steps(lengths, epochs=1, batch_tokens=batch, micro_batch_tokens=micro)
    steps = plan_steps(lengths, epochs=1, batch_tokens=batch, micro_batch_tokens=micro, ranks=ranks)
    assert [step.tokens for step in steps] == [step.tokens for step in alone]
    for step, same in zip(steps, alone, strict=True):
        shares = [share_step(step.micro_batches, rank, ranks) for rank in range(ranks)]
        assert len({len(share) for share in shares}) == 1
        counted = [group for share in shares for group, counts in share if counts]
        samples = sorted(index for group in counted for index in group)
        assert samples == sorted(index for group in same.micro_batches for index in group)
