"""Base models: from a name to a folder, and from a folder to a model in memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finetune.backends.local import embedded
from finetune.backends.local.device import cpu_has_bf16, is_out_of_memory
from finetune.backends.local.quiet import quiet
from finetune.catalog import find_model, find_obstacle, suggest_model
from finetune.errors import MissingExtra, TrainingError, UsageError
from finetune.files import read_json
from finetune.progress import Progress, silent

if TYPE_CHECKING:
    from finetune.tokens import Tokenizer

Dtype = Literal["auto", "bfloat16", "float32"]
Quantize = Literal["none", "4bit", "8bit"]

_UNLOADABLE = (OSError, ValueError, KeyError, RuntimeError, MemoryError)
_OTHER_BASE = "it was trained on another base, which its `adapter_config.json` names"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# What training and generation read. Mistral's repositories hold the weights a second time, in
# `consolidated*.safetensors`, which is left out.
_FILES = [
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tekken.json",
    "tokenizer*",
    "special_tokens_map.json",
    "chat_template*",
    "*processor_config.json",
    "README.md",
    "LICENSE*",
]


def resolve_model(
    ref: str,
    *,
    cache: Path | None = None,
    endpoint: str | None = None,
    progress: Progress = silent,
) -> Path:
    """Return the folder of a model, fetched or built first where needed.

    Args:
        ref: A folder, a catalog name, or a hub id.
        cache: Where the embedded model is built; the user's cache folder where absent.
        endpoint: Address of the hub; Hugging Face's own where absent.
        progress: Told of the work.

    Raises:
        UsageError: There is no such model, or it cannot be fetched.
    """
    if ref == embedded.NAME:
        return embedded.provide_model(cache, progress=progress)
    if Path(ref).expanduser().is_dir():
        return _require_checkpoint(Path(ref).expanduser(), ref)
    model = find_model(ref)
    if model is not None and model.hub_id is None:
        raise UsageError(f"{ref}: has no open weights", hint="`finetune models` lists the others")
    if model is not None and model.fp8:
        twin = f"`model: {model.bf16}` is the same in bfloat16" if model.bf16 else None
        raise UsageError(f"{ref}: holds 8-bit floats, which cannot be tuned", hint=twin)
    if model is not None and model.obstacle:
        raise UsageError(f"{ref}: cannot be tuned on this machine: {model.obstacle}")
    hub_id = model.hub_id if model is not None else ref
    if not hub_id or not _HUB_ID.fullmatch(hub_id):
        raise UsageError(
            f"{ref}: no such folder, catalog name or hub id",
            hint=suggest_model(ref) or "`finetune models` lists the catalog",
        )
    return _require_checkpoint(_download(hub_id, endpoint, progress), ref)


def check_vocabulary(folder: Path, tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer that is not the one of a model's weights.

    More ids than rows of the embedding cannot be computed, and no model leaves half of its rows
    to nobody. Some unused rows are common: they fill the number up.

    Raises:
        UsageError: It is not.
    """
    config = read_json(folder / "config.json")
    rows = (config.get("text_config") or config).get("vocab_size")
    count = tokenizer.vocab_size
    if isinstance(rows, int) and not rows / 2 <= count <= rows:
        raise UsageError(
            f"{folder}: the tokenizer does not match the weights: it has {count:,} tokens, they"
            f" have {rows:,} rows",
            hint="the model's own tokenizer file must lie beside its weights",
        )


def load_model(
    folder: Path, *, dtype: Dtype = "auto", quantize: Quantize = "none", device: str | None = None
) -> Any:
    """Return the model in a folder, in evaluation mode.

    Args:
        folder: A checkpoint in transformers' layout, in safetensors.
        dtype: `auto` is bfloat16 where the hardware computes in it, else float32.
        quantize: Hold the linears in 4 bits (NF4) or 8 bits.
        device: Such as `cuda:0`; the first GPU, else the CPU where absent.

    Raises:
        UsageError: It cannot be loaded: weights missing, code of its own, 8-bit floats.
        TrainingError: It does not fit into memory.
        MissingExtra: `quantize` without bitsandbytes, or no torch.
    """
    config = _require_plain(folder)
    torch, transformers = _libraries()
    from safetensors import SafetensorError

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    # transformers lists Mistral 4's decoder among the models that take images.
    images = "ForConditionalGeneration" in str(config.get("architectures"))
    images = images or config.get("model_type") == "mistral4"
    loader = (
        transformers.AutoModelForImageTextToText if images else transformers.AutoModelForCausalLM
    )
    numbers = getattr(torch, choose_dtype(dtype, device))
    try:
        with quiet():
            model, facts = loader.from_pretrained(
                folder,
                dtype=numbers,
                device_map=device if quantize != "none" or device != "cpu" else None,
                quantization_config=_quantization(quantize, numbers),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (*_UNLOADABLE, SafetensorError) as error:
        _require_memory(error, folder)
        raise UsageError(
            f"{folder}: transformers {transformers.__version__} cannot load this model:"
            f" {type(error).__name__}",
            hint="it must be a complete checkpoint in safetensors, of a class that it knows",
        ) from error
    if facts["missing_keys"]:
        missing = sorted(facts["missing_keys"])
        raise UsageError(
            f"{folder}: weights are missing: {len(missing)} tensors such as `{missing[0]}`",
            hint="fetch the checkpoint again",
        )
    return model.eval()


def load_adapter(model: Any, adapter: Path, *, name: str = "default") -> Any:
    """Return the model with a trained adapter on it, ready to answer.

    `with tuned.disable_adapter():` gives the base again. Adapters are held in the base's own
    numbers, which is what training computes with (but for the row lengths of DoRA).

    Args:
        model: The base, as `load_model` gives it, or one that has adapters already; of no use
            any more where this fails.
        adapter: Folder with `adapter_config.json` and `adapter_model.safetensors`.
        name: What PEFT calls it.

    Raises:
        UsageError: There is no adapter, or it belongs to another model.
    """
    if not (adapter / "adapter_model.safetensors").is_file():
        raise UsageError(f"{adapter}: no adapter here", hint="the run has not ended training yet")
    with quiet():
        import peft
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
                saved = set(file.keys())
            if isinstance(model, peft.PeftModel):
                tuned = model
                tuned.load_adapter(adapter, adapter_name=name, autocast_adapter_dtype=False)
            else:
                tuned = peft.PeftModel.from_pretrained(
                    model, adapter, adapter_name=name, autocast_adapter_dtype=False
                )
            # PEFT leaves out what has no place in the model, and takes zeros for what is missing.
            expected = set(
                peft.get_peft_model_state_dict(
                    tuned, adapter_name=name, save_embedding_layers=False
                )
            )
        except (AttributeError, TypeError, *_UNLOADABLE, SafetensorError) as error:
            _require_memory(error, adapter)
            raise UsageError(
                f"{adapter}: this adapter does not fit the model: {type(error).__name__}",
                hint=_OTHER_BASE,
            ) from error
    if saved != expected:
        odd = saved ^ expected
        raise UsageError(
            f"{adapter}: this adapter does not fit the model: {len(odd)} tensors such as"
            f" `{min(odd)}` are in one of them only",
            hint=_OTHER_BASE,
        )
    for weight, parameter in tuned.named_parameters():
        if ".lora_A." in weight or ".lora_B." in weight:
            parameter.data = parameter.data.to(model.dtype)
    return tuned.eval()


def load_tuned(
    base: Path,
    tuned: Path,
    *,
    dtype: Dtype = "auto",
    quantize: Quantize = "none",
) -> Any:
    """Return what a run has trained, ready to answer.

    Args:
        base: The base's folder.
        tuned: An adapter for it, or a model all of whose weights were trained.
        dtype: See `load_model`.
        quantize: See `load_model`.

    Raises:
        UsageError: See `load_model` and `load_adapter`.
    """
    if is_adapter(tuned):
        return load_adapter(load_model(base, dtype=dtype, quantize=quantize), tuned)
    return load_model(tuned, dtype=dtype, quantize=quantize)


def is_adapter(tuned: Path) -> bool:
    """Tell whether a folder holds an adapter, and not a whole model."""
    return (tuned / "adapter_config.json").is_file()


def choose_dtype(dtype: Dtype, device: str) -> Literal["bfloat16", "float32"]:
    """Return the numbers to compute in: bfloat16 only where the hardware has it."""
    if dtype != "auto":
        return dtype
    if device.startswith("cuda"):
        import torch

        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = cpu_has_bf16()
    return "bfloat16" if fast else "float32"


def _require_memory(error: Exception, folder: Path) -> None:
    if is_out_of_memory(error):
        raise TrainingError(
            f"{folder}: out of memory: the model does not fit",
            hint="`finetune plan` shows what it takes; `local.quantize: 4bit` takes a quarter",
        ) from error


def _libraries() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtra("local", error.name or "torch") from None
    return torch, transformers


def _quantization(quantize: Quantize, numbers: Any) -> Any:
    if quantize == "none":
        return None
    try:
        import bitsandbytes  # noqa: F401 (transformers only says that something is missing)
    except ImportError:
        raise MissingExtra("quantize", "bitsandbytes") from None
    from transformers import BitsAndBytesConfig

    if quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=numbers,
    )


def _require_checkpoint(folder: Path, ref: str) -> Path:
    for needed, pattern in (("config.json", "config.json"), ("weights", "*.safetensors")):
        if not any(folder.glob(pattern)):
            raise UsageError(
                f"{ref}: no {needed} in {folder}",
                hint="a model folder holds `config.json` and `model*.safetensors`",
            )
    return folder


def _require_plain(folder: Path) -> dict[str, Any]:
    """Return the config of a model that may be loaded: no code of its own, no 8-bit floats."""
    config: dict[str, Any] = read_json(folder / "config.json")
    if "auto_map" in config:
        raise UsageError(f"{folder}: this model brings its own code, which is never run")
    if obstacle := find_obstacle(config):
        raise UsageError(f"{folder}: cannot be tuned on this machine: {obstacle}")
    method = (config.get("quantization_config") or {}).get("quant_method")
    if method in ("fp8", "compressed-tensors"):
        raise UsageError(
            f"{folder}: holds 8-bit floats (`{method}`), which cannot be tuned",
            hint="use the same model's repository in bfloat16",
        )
    return config


def _download(hub_id: str, endpoint: str | None, progress: Progress) -> Path:
    with quiet():
        import huggingface_hub
        from huggingface_hub import errors

    progress("download", 0)
    page = f"https://huggingface.co/{hub_id}"
    try:
        folder = huggingface_hub.snapshot_download(
            hub_id, allow_patterns=_FILES, endpoint=endpoint, tqdm_class=None
        )
    except errors.GatedRepoError:
        raise UsageError(
            f"{hub_id}: gated: its owner asks to accept terms first",
            hint=f"accept them on {page}, then put a read token into HF_TOKEN",
        ) from None
    except errors.RepositoryNotFoundError:
        raise UsageError(
            f"{hub_id}: no such model on the hub, or a private one",
            hint="check the spelling; for a private model put a read token into HF_TOKEN",
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError) as error:
        if isinstance(error, OSError) and error.errno == 28:
            raise
        raise UsageError(
            f"{hub_id}: not on this machine, and the hub cannot be reached",
            hint=f"`hf download {hub_id}` where there is a network, then give that folder as"
            f" `model`; `model: {embedded.NAME}` needs no download",
        ) from None
    return Path(folder)
