"""Launch: training in several processes, started by `accelerate launch` and followed from here.

The process that starts them keeps the run's lock, its state and the terminal. The ranks read the
recipe and the dataset from the run's folder (see `rank`). What they say comes back as lines of JSON
on their standard output; what libraries say goes into `launch.log`. A byte on their standard
input is a signal, its end means that nobody follows them any more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from finetune import errors
from finetune.backends.local.device import count_devices
from finetune.errors import FinetuneError, Interrupted, RecipeError, RunError, TrainingError
from finetune.progress import Progress, silent
from finetune.text import plural

if TYPE_CHECKING:
    from finetune.recipe import Recipe
    from finetune.recipe.tree import Launch
    from finetune.runs import Run

LOG = "launch.log"
_PORT = 29500  # torch's own, where several nodes have to agree on one
_PATIENCE = 15.0  # seconds in which ranks may end by themselves once one of them has failed
# Where clusters say which node this is and where the first one is: Slurm, SkyPilot, torch.
_NODE_RANK = ("SLURM_NODEID", "SKYPILOT_NODE_RANK", "NODE_RANK", "GROUP_RANK")


class Node(NamedTuple):
    """This machine among those that train together.

    Attributes:
        number: From 0; the first one prepares the data and writes.
        address: Of the first one, None where there is no other.
        port: On which they meet; 0 for a free one.
    """

    number: int = 0
    address: str | None = None
    port: int = 0


def read_node(launch: Launch, environment: Mapping[str, str] = os.environ) -> Node:
    """Return which machine this is, from what the cluster put into the environment.

    Raises:
        RunError: The recipe has several nodes, and the environment does not name this one.
    """
    if launch.nodes == 1:
        return Node()
    number = next((environment[key] for key in _NODE_RANK if environment.get(key)), "")
    listed = environment.get("SKYPILOT_NODE_IPS", "").split()
    address = environment.get("MASTER_ADDR") or next(iter(listed), None)
    if not number.isdigit() or int(number) >= launch.nodes or address is None:
        raise RunError(
            f"local.launch.nodes: {launch.nodes} machines, and nothing says which one this is",
            hint="`finetune launch RECIPE --to slurm` writes what starts them; by hand: set"
            " NODE_RANK (from 0), MASTER_ADDR and MASTER_PORT on each",
        )
    port = environment.get("MASTER_PORT", "")
    return Node(int(number), address, int(port) if port.isdigit() else _PORT)


def check_launch(
    recipe: Recipe,
    environment: Mapping[str, str] = os.environ,
    *,
    devices: tuple[str, int] | None = None,
) -> Node:
    """Return which machine this is; refuse what cannot be started here, before anything is read.

    Args:
        recipe: Its `local.launch` is read.
        environment: Where clusters and launchers say which process this is.
        devices: Kind and number of what processes are put on; those of this machine where absent.

    Raises:
        RecipeError: More processes than devices, or shards where there is no GPU.
        RunError: This is a process of another launcher, or of a node that nobody named.
    """
    launch = recipe.local.launch
    if "LOCAL_RANK" in environment and int(environment.get("WORLD_SIZE") or 1) > 1:
        raise RunError(
            f"WORLD_SIZE: {environment['WORLD_SIZE']} processes were started from outside",
            hint="call `finetune run` once on each machine: it starts what `local.launch` names",
        )
    if launch.processes * launch.nodes == 1:
        return Node()
    kind, count = devices or count_devices()
    if launch.processes > count:
        name = "GPU" if kind == "cuda" else "core"
        raise RecipeError(
            f"local.launch.processes: {launch.processes} is more than the {plural(count, name)}"
            " of this machine",
            hint=f"set it to at most {count}",
        )
    if launch.strategy != "ddp" and kind == "cpu":
        raise RecipeError(
            f"local.launch.strategy: `{launch.strategy}` needs GPUs, this machine has none",
            hint="`ddp` also trains on CPUs",
        )
    return read_node(launch, environment)


def build_command(
    launch: Launch, run: Path, *, kind: str, threads: int, clip: float, node: Node | None = None
) -> list[str]:
    """Return the command that trains a run with `accelerate launch`.

    Args:
        launch: The recipe's section.
        run: The run's folder.
        kind: `cuda` or `cpu`; on a CPU the processes exchange gradients over gloo.
        threads: CPU threads of each process.
        clip: The norm that gradients are clipped to, where the launcher has to know.
        node: This machine among several.
    """
    node = node or Node()
    options: dict[str, object] = {
        "num_processes": launch.processes * launch.nodes,
        "num_machines": launch.nodes,
        "machine_rank": node.number,
        "main_process_port": node.port,
        "mixed_precision": "no",  # the trainer's own arguments say it
        "dynamo_backend": "no",
        "num_cpu_threads_per_process": threads,
    }
    flags = []
    if launch.nodes > 1:
        options |= {"main_process_ip": node.address, "rdzv_backend": "static"}
        flags.append("--same_network")
    if launch.strategy == "fsdp":
        flags.append("--use_fsdp")
        options |= {
            "fsdp_version": 2,
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",  # a shard for each layer
            "fsdp_reshard_after_forward": "true",
            "fsdp_state_dict_type": "SHARDED_STATE_DICT",
            "fsdp_offload_params": "false",
            "fsdp_cpu_ram_efficient_loading": "false",  # adapters are made on each rank, seeded
            "fsdp_activation_checkpointing": "false",  # set on the model where it is wanted
        }
    elif launch.strategy == "deepspeed":
        flags.append("--use_deepspeed")
        options |= {"zero_stage": 2, "deepspeed_multinode_launcher": "standard"}
        options["gradient_clipping"] = clip  # what it does by itself
    else:
        flags.append("--multi_gpu")  # what starts several processes; `--cpu` would ask for MPI
    if kind == "cuda":
        options["gpu_ids"] = "all"
    pairs = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    program = [sys.executable, "-m", "accelerate.commands.launch"]
    return [*program, *flags, *pairs, "--module", "finetune.backends.local.rank", str(run)]


def train_in_ranks(run: Run, recipe: Recipe, *, progress: Progress = silent) -> None:
    """Train a run in the processes that its recipe names, and return when all have ended.

    Raises:
        FinetuneError: What a rank raised.
        Interrupted: A signal came; the state is saved.
        TrainingError: A rank failed otherwise; `launch.log` says how.
    """
    launch = recipe.local.launch
    kind, count = count_devices()
    threads = recipe.local.threads or (1 if kind == "cuda" else max(1, count // launch.processes))
    node = read_node(launch)
    clip = recipe.local.max_grad_norm
    command = build_command(launch, run.folder, kind=kind, threads=threads, clip=clip, node=node)
    log = run.folder / (LOG if node.number == 0 else f"launch-{node.number}.log")
    with (
        open(log, "wb") as words,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            start_new_session=True,  # so that a signal to us reaches them once
        ) as process,
        _passing_signals_to(process) as caught,
        _ended(process),
    ):
        said = _follow(process, progress)
        code = process.wait()
    if said is not None:
        raise said
    if caught:
        raise Interrupted(
            caught[0], f"{run.folder}: interrupted", hint="the same command goes on from there"
        )
    if code:
        raise TrainingError(
            f"{run.folder}: a training process ended with code {code}",
            hint=f"`{log}` holds what the libraries said",
        )


def _follow(process: subprocess.Popen[bytes], progress: Progress) -> FinetuneError | None:
    """Show the progress of the ranks until they end; return what one raised."""
    said: FinetuneError | None = None
    if process.stdout is None:
        return None
    for line in process.stdout:
        message = msgspec.json.decode(line)
        if "progress" in message:
            stage, done, total, facts = message["progress"]
            progress(stage, done, total, **facts)
            continue
        error = _read_error(message["error"])
        if said is None:  # the others may only have missed the one that failed first
            patience = threading.Timer(_PATIENCE, _kill, [process])
            patience.daemon = True
            patience.start()
        if said is None or (said.exit_code == TrainingError.exit_code and not said.hint):
            said = error
    return said


def _read_error(message: Mapping[str, Any]) -> FinetuneError:
    return errors.rebuild(getattr(errors, message["type"]), message["state"])


@contextlib.contextmanager
def _passing_signals_to(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Pass the first SIGINT or SIGTERM on to the ranks; end them and us on the second."""
    caught: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        if caught:
            _kill(process)
            os._exit(128 + number)
        caught.append(number)
        with contextlib.suppress(OSError):
            os.write(process.stdin.fileno(), bytes([number]))  # type: ignore[union-attr]

    if threading.current_thread() is not threading.main_thread():
        yield caught  # only the main thread may set handlers
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave no process behind."""
    try:
        yield
    finally:
        if process.poll() is None:
            _kill(process)
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
