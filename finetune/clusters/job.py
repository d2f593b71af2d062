"""Job: what every task file says, whoever runs it: files, GPUs, installation, the command."""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from finetune import __version__
from finetune.backends.local.device import Device
from finetune.backends.local.memory import Memory, choose_memory
from finetune.catalog import Shape
from finetune.errors import UsageError
from finetune.recipe import Recipe
from finetune.recipe.source import read_document
from finetune.text import size


class Gpu(NamedTuple):
    """A kind of GPU that clusters offer, by SkyPilot's name for it."""

    name: str
    memory: int


# Memory as the makers state it; SkyPilot's names for them (0.14.1). The smallest that suffices is
# asked for. A twentieth is left free for what the driver keeps.
GPUS = (
    Gpu("L4", 24_000_000_000),
    Gpu("A100", 40_000_000_000),
    Gpu("L40S", 48_000_000_000),
    Gpu("A100-80GB", 80_000_000_000),
    Gpu("H100", 80_000_000_000),
    Gpu("H200", 141_000_000_000),
    Gpu("B200", 180_000_000_000),
)
_USABLE = 0.95
_EXTRAS = ("clean", "data", "evaluate", "gpu", "local")
_FOLDER_SPACE = 20_000_000_000  # libraries, and a base in the hub's cache beside what it says


class Job(NamedTuple):
    """A recipe that is to run elsewhere.

    Attributes:
        name: Of the job and of its run folder; another recipe or other data have another.
        recipe: The recipe, as loaded.
        overrides: `key=value` given beside it.
        gpu: What each process needs.
        memory: The estimate behind that, None where the GPU was named by hand.
        disk: Bytes for download, checkpoints and adapter.
        gated: Whether the hub may ask who downloads the model.
        here: The folder that the command was called in.
        bucket: Where the run folder lies, of clusters without a common file system.
    """

    name: str
    recipe: Recipe
    overrides: tuple[str, ...]
    gpu: Gpu
    memory: Memory | None
    disk: int
    gated: bool
    here: Path
    bucket: str | None = None

    @property
    def file(self) -> Path:
        """The recipe's own file."""
        if self.recipe.file is None:
            raise UsageError("launch: needs a recipe that was loaded from a file")
        return self.recipe.file

    @property
    def packages(self) -> list[str]:
        """What is installed, as pip names it."""
        local = self.recipe.local
        extras = [*_EXTRAS, *(["quantize"] if local.quantize != "none" else [])]
        wanted = [f"mistral-finetune-kit[{','.join(extras)}]=={__version__}"]
        return wanted + (["deepspeed"] if local.launch.strategy == "deepspeed" else [])

    @property
    def arguments(self) -> str:
        """What stands behind `finetune run RECIPE`, quoted for a shell."""
        parts = [part for override in self.overrides for part in ("-s", override)]
        return shlex.join(["--backend", "local", *parts])

    @property
    def files(self) -> dict[Path, str]:
        """Every file that is read, with its path as the recipe has it.

        A glob counts as the folder that it looks into.
        """
        folder = self.file.parent
        names = [self.file.name]
        if base := read_document(self.file).values.get("extends"):
            names.append(base)
        for key, value, _ in self.recipe.origins:
            if key == "model" and str(value).startswith((".", "/", "~")):
                names.append(str(value))
            elif key == "data.clean.decontaminate":
                names += [str(path) for path in value]
            elif key.startswith("data.") and key.endswith(".path") and "hub:" not in str(value):
                names.append(_without_glob(str(value)))
        places = {
            Path(os.path.normpath(folder / Path(name).expanduser())): name
            for name in dict.fromkeys(names)
        }
        return {path: name for path, name in places.items() if not places.keys() & {*path.parents}}

    @property
    def root(self) -> Path:
        """The folder that holds the recipe and all that it names by relative paths."""
        relative = [path for path, name in self.files.items() if not name.startswith(("/", "~"))]
        return Path(os.path.commonpath([path.parent for path in relative]))


def describe_job(
    recipe: Recipe,
    *,
    identity: str,
    longest: int,
    shape: Shape | None,
    disk: int,
    gated: bool = False,
    overrides: Sequence[str] = (),
    gpu: str | None = None,
    bucket: str | None = None,
    here: Path | None = None,
) -> Job:
    """Return the job of a recipe.

    Args:
        recipe: The recipe.
        identity: Of its run, see `runs.identify`.
        longest: Tokens of the longest sample.
        shape: The model's, None where it is not known.
        disk: Bytes that the run writes and downloads.
        gated: Whether the hub may ask who downloads the model.
        overrides: `key=value` given beside the recipe.
        gpu: Name of a GPU, instead of the smallest that suffices.
        bucket: Where the run folder lies.
        here: The folder of the run folders; the working folder where absent.

    Raises:
        UsageError: It is not for the local backend, or no GPU holds it.
    """
    if recipe.backend != "local":
        raise UsageError(
            "backend: `platform` trains on La Plateforme itself",
            hint="`--backend local` writes a task that trains the open weights",
        )
    chosen, memory = choose_gpu(recipe, shape, longest, gpu)
    name = f"{recipe.name}-{identity[:8]}".lower().replace("_", "-").replace(".", "-")
    return Job(
        name=name,
        recipe=recipe,
        overrides=tuple(overrides),
        gpu=chosen,
        memory=memory,
        disk=disk + _FOLDER_SPACE,
        gated=gated,
        here=here or Path.cwd(),
        bucket=bucket,
    )


def choose_gpu(
    recipe: Recipe, shape: Shape | None, longest: int, name: str | None = None
) -> tuple[Gpu, Memory | None]:
    """Return the smallest GPU that holds a process, or the one that was named.

    Raises:
        UsageError: There is none, or nobody knows how large the model is.
    """
    known = {gpu.name: gpu for gpu in GPUS}
    if name is not None and name not in known:
        return Gpu(name, 0), None  # a cluster has others: their memory is not known here
    if shape is None:
        if name is not None:
            return known[name], None
        raise UsageError(
            f"{recipe.model}: its shape is not known here before its download",
            hint="name a GPU: `--gpu H100`",
        )
    for gpu in [known[name]] if name else GPUS:
        budget = round(gpu.memory * _USABLE)
        device = Device(kind="cuda", name=gpu.name, total=budget, free=budget, bf16=True)
        memory = choose_memory(shape, recipe, device, [longest], budget=budget)
        if memory.total <= budget:
            return gpu, memory
    raise UsageError(
        f"{recipe.model}: a process needs about {size(memory.total)}, a {gpu.name} has"
        f" {size(gpu.memory)}",
        hint="`local.quantize: 4bit`, or `local.launch.strategy: fsdp` over more processes",
    )


def _without_glob(name: str) -> str:
    """Return the path up to the first part that is a pattern."""
    plain = itertools.takewhile(lambda part: not set(part) & set("*?["), Path(name).parts)
    return str(Path(*plain))
