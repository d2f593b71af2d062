"""Validation: a job's data → its recipe and its bill, in a process of its own.

`python -m finetune.server.validation FOLDER` reads `request.json` in a job's folder and writes
`recipe.yaml` and, last, `validation.json`: the bill, or what is wrong with the data.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from finetune import checks, pipeline
from finetune.corpus.dataset import Dataset
from finetune.corpus.labels import fill_targets
from finetune.errors import FinetuneError
from finetune.files import read_json, to_json, write_atomic
from finetune.planning.place import find_place
from finetune.recipe import load_recipe
from finetune.records import kind_of

_MOST_ERRORS = 20
_DEFAULT_SEQ_LEN = 4096
_METHODS = {"chat": "sft", "text": "pretrain", "classifier": "classifier"}


class Input(msgspec.Struct):
    """A file of a job.

    Attributes:
        path: Where its content lies.
        file_id: Its number.
        filename: Its name.
        weight: How often its records are seen.
    """

    path: str
    file_id: str
    filename: str
    weight: float = 1.0


class Order(msgspec.Struct, kw_only=True):
    """A job's request, with all that its names mean.

    Attributes:
        name: Name of the recipe.
        model: The base: a catalog name, a hub id or a folder.
        local: The recipe's section `local`.
        seed: The recipe's seed.
        job_type: What is trained; by the data where None.
        hyperparameters: As in the request.
        skip: Fraction of the samples that may be left out.
        train: What it is trained on.
        validation: What is measured.
        targets: What a classifier answers; by the data where None.
    """

    name: str
    model: str
    local: dict[str, Any]
    seed: int = 0
    job_type: str | None
    hyperparameters: dict[str, Any]
    skip: float
    train: list[Input]
    validation: list[Input]
    targets: list[dict[str, Any]] | None = None


class Fault(msgspec.Struct, omit_defaults=True):
    """One thing that is wrong with the data: where, which rule, in words."""

    message: str
    file_id: str | None = None
    filename: str | None = None
    line: int | None = None
    path: str | None = None
    rule: str | None = None


class Verdict(msgspec.Struct, kw_only=True):
    """What validation found: `validation.json`.

    Attributes:
        faults: What is wrong; none where the job can be trained.
        message: The same in one sentence.
        job_type: What is trained.
        method: The recipe's method.
        steps: Optimizer steps.
        tokens_seen: Tokens of all steps.
        data_tokens: Tokens of the training data, once.
        seconds: How long it takes, where an earlier job has measured it.
        seq_len: The longest sample.
        skipped: Samples left out as invalid.
        targets: What a classifier answers.
    """

    faults: list[Fault] = []
    message: str | None = None
    job_type: str = "completion"
    method: str = "sft"
    steps: int = 0
    tokens_seen: int = 0
    data_tokens: int = 0
    seconds: float | None = None
    seq_len: int = _DEFAULT_SEQ_LEN
    skipped: int = 0
    targets: list[dict[str, Any]] = []


class Unfit(Exception):
    """The data can't be used."""

    def __init__(self, faults: list[Fault], message: str) -> None:
        super().__init__(message)
        self.faults, self.message = faults, message


def examine(folder: Path, root: Path) -> Verdict:
    """Check a job's data, write its recipe, and return the bill.

    Args:
        folder: The job's folder, with `request.json`.
        root: The server's folder.
    """
    order = msgspec.convert(read_json(folder / "request.json"), Order)
    try:
        method = _find_method(order)
        skipped = _check(order, method)
        return _plan(order, method, folder, root, skipped)
    except Unfit as error:
        return Verdict(faults=error.faults, message=error.message)
    except FinetuneError as error:
        hint = f" ({error.hint})" if error.hint else ""
        return Verdict(faults=[Fault(f"{error.message}{hint}")], message=error.message)


def _find_method(order: Order) -> str:
    kinds: dict[str, str] = {}
    for file in [*order.train, *order.validation]:
        with open(file.path, "rb") as stream:
            line = stream.readline()
        try:
            kind = kind_of(msgspec.json.decode(line))
        except msgspec.DecodeError:
            kind = None
        if kind not in _METHODS:
            words = "neither a conversation, a document nor a labelled text"
            raise _unfit(file, 1, f"the first line is {words}")
        kinds.setdefault(kind, file.filename)
    if len(kinds) > 1:
        found = ", ".join(f"{name} ({kind})" for kind, name in kinds.items())
        raise Unfit([Fault(f"files of several kinds: {found}")], "files of several kinds")
    kind = next(iter(kinds))
    if order.job_type and (order.job_type == "classifier") != (kind == "classifier"):
        fact = f"a {order.job_type} job is not trained on {kind} data"
        raise Unfit([Fault(fact)], fact)
    return _METHODS[kind]


def _check(order: Order, method: str) -> int:
    """Hold every line against the rules; return how many samples are left out.

    Raises:
        Unfit: More are invalid than may be.
    """
    kind = next(kind for kind, name in _METHODS.items() if name == method)
    files = {file.path: file for file in [*order.train, *order.validation]}
    report = checks.validate([Path(path) for path in files], kind=kind)
    if report.invalid <= order.skip * report.records:
        return report.invalid
    errors = [finding for finding in report.findings if finding.severity == "error"]
    faults = [
        Fault(
            finding.message,
            file_id=files[finding.file].file_id,
            filename=files[finding.file].filename,
            line=finding.line or None,
            path=finding.path or None,
            rule=finding.rule,
        )
        for finding in errors[:_MOST_ERRORS]
    ]
    first = faults[0]
    place = f"{first.filename}, line {first.line}" if first.line else first.filename
    where = f" {first.path}:" if first.path else ""
    of = f"{report.invalid:,} of {report.records:,} samples are invalid"
    raise Unfit(faults, f"{of}; {place}:{where} {first.message} [{first.rule}]")


def _unfit(file: Input, line: int, fact: str) -> Unfit:
    fault = Fault(fact, file_id=file.file_id, filename=file.filename, line=line)
    return Unfit([fault], f"{file.filename}, line {line}: {fact}")


def _plan(order: Order, method: str, folder: Path, root: Path, skipped: int) -> Verdict:
    path = folder / "recipe.yaml"
    recipe = _write_recipe(order, method)
    seq_len = recipe["training"]["seq_len"]
    write_atomic(path, to_json(recipe, indent=True))
    loaded = load_recipe(path)
    plan = pipeline.plan(loaded, folder=root / "runs", datasets=root / "datasets")
    targets = fill_targets(loaded, Dataset.load(plan.dataset)).training.classifier_targets
    dropped = sum(source.dropped for source in plan.sources)
    problems = list(plan.problems)
    if skipped + dropped > order.skip * (plan.records + skipped):
        problems.append(f"{dropped:,} of {plan.records:,} samples are longer than {seq_len} tokens")
    if problems:
        raise Unfit([Fault(problem) for problem in problems], "; ".join(problems))
    steps = plan.steps or 0
    if "save_every" not in recipe["local"]:  # a checkpoint each tenth, 10 steps apart at least
        recipe["local"]["save_every"] = spacing(steps)
        write_atomic(path, to_json(recipe, indent=True))
    return Verdict(
        job_type="classifier" if method == "classifier" else "completion",
        method=method,
        steps=steps,
        tokens_seen=plan.tokens_seen or 0,
        data_tokens=plan.tokens,
        seconds=plan.seconds,
        seq_len=seq_len,
        skipped=skipped + dropped,
        targets=[target.model_dump(mode="json") for target in targets],
    )


def spacing(steps: int) -> int:
    """Return how many steps lie between two checkpoints that are told of."""
    return max(10, -(-steps // 10))


def _write_recipe(order: Order, method: str) -> dict[str, Any]:
    asked = order.hyperparameters
    context = find_place(order.model).context or _DEFAULT_SEQ_LEN
    seq_len = asked.get("seq_len") or min(_DEFAULT_SEQ_LEN, context)
    training: dict[str, Any] = {
        "learning_rate": asked["learning_rate"],
        "weight_decay": asked["weight_decay"] or 0.0,
        "warmup_fraction": asked["warmup_fraction"] or 0.0,
        "seq_len": seq_len,
    }
    if asked.get("training_steps"):
        training["steps"] = asked["training_steps"]
    elif asked.get("epochs"):
        training["epochs"] = asked["epochs"]
    if order.targets:
        training["classifier_targets"] = order.targets
    source: dict[str, Any] = {"format": "laplateforme"}
    if method == "pretrain":
        training["fim_ratio"] = asked.get("fim_ratio") or 0.0
        source["chunks"] = {"by": "window", "tokens": seq_len}  # nothing is cut off
    return {
        "name": order.name,
        "model": order.model,
        "method": method,
        "seed": order.seed,
        "data": {
            "train": [{"path": f.path, "weight": f.weight, **source} for f in order.train],
            "validation": [{"path": f.path, **source} for f in order.validation] or 0.0,
            "clean": {"deduplicate": "off"},
            "max_rejected": order.skip,
            "too_long": "drop" if order.skip else "error",
        },
        "training": training,
        "evaluation": {"measure": False},
        "local": dict(order.local),
    }


def main(folder: Path) -> None:
    """Examine a job; what comes of it is in `validation.json`."""
    try:
        verdict = examine(folder, folder.parents[1])
    except Exception as error:  # noqa: BLE001 (the server has to learn of it; its text may be data)
        fact = f"validation failed: unexpected {type(error).__name__}"
        verdict = Verdict(faults=[Fault(fact)], message=fact)
    write_atomic(folder / "validation.json", to_json(verdict, indent=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
