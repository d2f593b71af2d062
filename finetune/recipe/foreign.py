"""Foreign: a job of La Plateforme, or a config of mistral-finetune, as a recipe.

What has no equal here is named, never dropped in silence. Sources: the published specification
(2026-07-06) and mistral-finetune's README, archived (read 2026-11-22).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from finetune.catalog import MODELS, find_model
from finetune.errors import UsageError

_JOB_RESULTS = {
    *("id", "object", "status", "created_at", "modified_at", "auto_start", "fine_tuned_model"),
    *("trained_tokens", "metadata", "events", "checkpoints"),
}
_DEFAULT = {"learning_rate", "weight_decay", "warmup_fraction", "seq_len"}


class Imported(NamedTuple):
    """A recipe made of something else.

    Attributes:
        settings: The recipe's settings.
        notes: What has no equal, and what is to be filled in.
    """

    settings: dict[str, Any]
    notes: list[str]


def import_settings(
    values: Mapping[str, Any], files: Mapping[str, str], host: str | None = None
) -> Imported:
    """Return the recipe that a job's body or a config of mistral-finetune amounts to.

    Args:
        values: The document.
        files: Paths of files of the platform that are here, by their ids.
        host: The service that has the job, where it is not Mistral's.

    Raises:
        UsageError: It is neither.
    """
    if "hyperparameters" in values and "model" in values:
        return _import_job(values, files, host)
    if "model_id_or_path" in values and isinstance(values.get("data"), Mapping):
        return _import_config(values)
    raise UsageError(
        "neither a job of La Plateforme nor a config of mistral-finetune",
        hint="a job has `model` and `hyperparameters`, a config `model_id_or_path` and `data`",
    )


def _import_job(job: Mapping[str, Any], files: Mapping[str, str], host: str | None) -> Imported:
    asked, notes = dict(job["hyperparameters"] or {}), []
    classifier = job.get("job_type") == "classifier"
    name = str(job["model"])
    own = find_model(name)  # as a server of one's own calls it
    model = next((one.name for one in MODELS if one.platform == name), own and own.name)
    if model is None:
        notes.append(f"model: `{name}` is no name of the catalog: set `model` to its weights")
    training = {key: asked.pop(key) for key in sorted(_DEFAULT) if asked.get(key) is not None}
    steps, epochs = asked.pop("training_steps", None), asked.pop("epochs", None)
    if epochs is not None:
        training["epochs"] = epochs
        if steps is not None:
            notes.append(f"training_steps: {steps}: not taken beside `epochs`, which say the same")
    elif steps is not None:
        training["steps"] = steps
    ratio = asked.pop("fim_ratio", None)
    if ratio is not None:
        notes.append(f"fim_ratio: {ratio}: for documents set `method: pretrain` and fim_ratio")
    if job.get("classifier_targets"):
        training["classifier_targets"] = job["classifier_targets"]
    notes += [f"hyperparameters.{key}: {value}: no equal" for key, value in asked.items() if value]
    train = [_find(one, files, host, notes) for one in job.get("training_files") or []]
    validation = [_find(one, files, host, notes) for one in job.get("validation_files") or []]
    if len(train) > 1 and not any("weight" in one for one in train):
        notes.append("training_files: a job does not tell the weights of its files")
    suffix = re.sub(r"-[0-9a-f]{6}$", "", str(job.get("suffix") or ""))[:11]
    known = {"model", "hyperparameters", "training_files", "validation_files", "suffix"}
    known |= {"job_type", "classifier_targets", "integrations", "repositories", *_JOB_RESULTS}
    known |= {"invalid_sample_skip_percentage"}
    notes += [f"{key}: no equal" for key, value in job.items() if key not in known and value]
    for key in ("integrations", "repositories"):
        if job.get(key):
            notes.append(f"{key}: write them under `platform.{key}`")
    platform = {"model": name} | ({"suffix": suffix} if suffix else {})
    platform |= {"host": host} if host else {}
    share = job.get("invalid_sample_skip_percentage")
    return Imported(
        {
            "model": model or name,
            "method": "classifier" if classifier else "sft",
            "data": {
                "train": train or [{"path": "train.jsonl"}],
                "validation": validation or 0.0,
            },
            "training": training,
            "backend": "platform",
            "platform": platform | ({"invalid_sample_skip_percentage": share} if share else {}),
        },
        notes,
    )


def _find(
    file: Any, files: Mapping[str, str], host: str | None, notes: list[str]
) -> dict[str, Any]:
    """Return the source that a file of a job is."""
    entry = file if isinstance(file, Mapping) else {"file_id": file}
    identifier = str(entry.get("file_id"))
    source: dict[str, Any] = {"path": files.get(identifier, f"{identifier}.jsonl")}
    if identifier not in files:
        where = f" --host {shlex.quote(host)}" if host else ""
        command = f"finetune platform files download {identifier} -o {identifier}.jsonl{where}"
        notes.append(f"`{command}`")
    return source | ({"weight": entry["weight"]} if "weight" in entry else {})


def _import_config(config: Mapping[str, Any]) -> Imported:
    notes: list[str] = []
    left = {key: value for key, value in config.items() if value not in (None, "")}
    path = str(left.pop("model_id_or_path"))
    notes.append(f"model: `{path}`: a folder in Mistral's layout; name the model of the catalog")
    data, optim, lora = (dict(left.pop(key, None) or {}) for key in ("data", "optim", "lora"))
    instruct, plain = data.pop("instruct_data", ""), data.pop("data", "")
    train = [*_sources(instruct or plain)]
    if instruct and plain:
        notes.append(f"data.data: `{plain}`: documents take a run of their own")
    held_out = [*_sources(data.pop("eval_instruct_data", ""))]
    seq_len = left.pop("seq_len", None)
    batch = left.pop("batch_size", 1) * left.pop("num_microbatches", 1)
    names = {"lr": "learning_rate", "weight_decay": "weight_decay", "pct_start": "warmup_fraction"}
    training = {ours: optim.pop(theirs) for theirs, ours in names.items() if theirs in optim}
    if seq_len:
        training["seq_len"] = seq_len
    if "max_steps" in left:
        training["steps"] = left.pop("max_steps")
    local: dict[str, Any] = {"batch_tokens": seq_len * batch} if seq_len else {}
    if "rank" in lora:
        # Its adapter is scaled by `scaling`, 2 where absent; here by alpha / rank.
        rank, scaling = lora.pop("rank"), lora.pop("scaling", 2.0)
        local["lora"] = {"rank": rank, "alpha": float(rank) * scaling}
    for theirs, ours in (("ckpt_freq", "save_every"), ("num_ckpt_keep", "keep_checkpoints")):
        if left.get(theirs):
            local[ours] = left.pop(theirs)
    for section, values in (("", left), ("data.", data), ("optim.", optim), ("lora.", lora)):
        taken = {"seed", "run_dir"} if not section else set()
        notes += [f"{section}{key}: no equal" for key in values if key not in taken]
    return Imported(
        {
            "model": path,
            "method": "sft" if instruct else "pretrain",
            "seed": left.get("seed", 0),
            "data": {"train": train or [{"path": "train.jsonl"}], "validation": held_out or 0.0},
            "training": training,
            "local": local,
        },
        notes,
    )


def _sources(text: Any) -> Sequence[dict[str, Any]]:
    """Return the sources of `a.jsonl:5,b.jsonl:2`: paths with weights."""
    sources: list[dict[str, Any]] = []
    for entry in filter(None, (part.strip() for part in str(text or "").split(","))):
        path, colon, weight = entry.rpartition(":")
        if colon and re.fullmatch(r"\d+(\.\d+)?", weight):
            sources.append({"path": path, "weight": float(weight)})
        else:
            sources.append({"path": entry})
    return sources
