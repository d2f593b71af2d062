"""Models: the bases that are here, and what jobs made of them."""

from __future__ import annotations

import datetime as dt
import shutil
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from finetune.catalog import find_model
from finetune.errors import UsageError
from finetune.files import to_json
from finetune.planning.place import find_place
from finetune.runs import Run
from finetune.server.contract import (
    BaseCard,
    Capabilities,
    Card,
    CardList,
    ClassifierModel,
    CompletionModel,
    Details,
    ModelChange,
    TunedCapabilities,
    TunedCard,
)
from finetune.server.refusal import Refused
from finetune.server.store import Store
from finetune.server.weights import Names

WORKSPACE = "00000000-0000-0000-0000-000000000000"
_NO_JOB = WORKSPACE  # of a model that came by `--alias`
_DEFAULT_CONTEXT = 32768


class Tuned(msgspec.Struct, kw_only=True):
    """What is kept of a tuned model.

    Attributes:
        id: Its id.
        created: Seconds since 1970.
        job: The job that tuned it.
        root: Name of its base.
        root_version: The base's weights: a catalog name, a hub id or a folder.
        adapter: Folder of what was trained.
        whole: It is a model by itself: all its weights were trained.
        context: Longest sequence in tokens.
        fim: It fills in a middle.
        targets: What a classifier answers; None for a model that completes.
        archived: It is put aside.
        name: A name that was given to it.
        description: What it is.
    """

    id: str
    created: int
    job: str
    root: str
    root_version: str
    adapter: str
    whole: bool = False
    context: int = _DEFAULT_CONTEXT
    fim: bool = False
    targets: list[dict[str, Any]] | None = None
    archived: bool = False
    name: str | None = None
    description: str | None = None


class Answerer(msgspec.Struct):
    """Who answers a request.

    Attributes:
        name: As it was asked for.
        model: The base's weights.
        adapter: What is put on it, None for the base alone.
        context: Longest sequence in tokens.
        classifier: It classifies, and does nothing else.
        vllm: Address of the vLLM that answers for it.
    """

    name: str
    model: str
    adapter: str | None
    context: int
    classifier: bool = False
    vllm: str | None = None


class Models:
    """The models of a server.

    Args:
        store: The server's memory.
        names: The bases.
        aliases: Ids that mean a run's adapter (`--alias`).
        tunable: Bases say that they can be tuned.

    Raises:
        UsageError: An alias names no run with an adapter.
    """

    def __init__(
        self, store: Store, names: Names, aliases: Mapping[str, Path], *, tunable: bool = True
    ) -> None:
        self._store, self._names, self._tunable = store, names, tunable
        self._bases = {
            name: _find_base(name, weights.model) for name, weights in names.all().items()
        }
        self._aliases = {name: _read_alias(name, path) for name, path in aliases.items()}

    def add(self, database: sqlite3.Connection, job: Details, model: Tuned) -> None:
        """Note what a job made, in the transaction that ends the job."""
        database.execute(
            "INSERT OR IGNORE INTO model (id, created, job, document) VALUES (?, ?, ?, ?)",
            (model.id, model.created, str(job.id), to_json(model).decode()),
        )

    def describe(self, job: Details, run: Run, method: str) -> Tuned:
        """Return the model that a job made."""
        base = self._names.all().get(job.model)
        return Tuned(
            id=name_model(job),
            created=int(time.time()),
            job=str(job.id),
            root=job.model,
            root_version=base.model if base else job.model,
            adapter=str(run.tuned.resolve()),
            whole=run.tuned == run.whole,
            context=self._context(job.model),
            fim=method == "pretrain",
            targets=[t.model_dump() for t in job.classifier_targets]
            if job.job_type == "classifier"
            else None,
        )

    def answerer(self, name: str) -> Answerer:
        """Return who answers to a name.

        Raises:
            Refused: 404: nobody; 422: it is archived.
        """
        if name in self._bases:
            weights = self._names.find(name)
            return Answerer(name, weights.model, None, self._context(name), vllm=weights.vllm)
        found = self.find(name)
        if found.archived:
            raise Refused(422, f"Model {name} is archived: unarchive it first.")
        classifier = found.targets is not None
        model, adapter = found.root_version, found.adapter
        if found.whole:
            return Answerer(name, adapter, None, found.context, classifier)
        vllm = None if classifier else self.vllm(found)
        return Answerer(name, model, adapter, found.context, classifier, vllm)

    def vllm(self, model: Tuned) -> str | None:
        """Return the address of the vLLM that serves a tuned model's base, if one does."""
        entries = self._names.all().values()
        return next((e.vllm for e in entries if e.vllm and e.model == model.root_version), None)

    def find(self, model_id: str) -> Tuned:
        """Return a tuned model.

        Raises:
            Refused: 404: there is none.
        """
        if model_id in self._aliases:
            return self._aliases[model_id]
        row = self._store.find("SELECT * FROM model WHERE id = ? AND deleted IS NULL", model_id)
        if row is None:
            raise Refused(404, f"Model {model_id[:200]} not found.")
        return _tuned(row)

    def cards(self) -> CardList:
        """Return the cards of all models: bases, then tuned ones, newest first."""
        rows = self._store.read(
            "SELECT * FROM model WHERE deleted IS NULL ORDER BY created DESC, rowid DESC"
        )
        tuned = [*self._aliases.values(), *map(_tuned, rows)]
        cards: list[Card] = [self._base_card(name) for name in self._bases]
        return CardList(data=[*cards, *(_card(model) for model in tuned)])

    def card(self, model_id: str) -> Card:
        """Return one card.

        Raises:
            Refused: 404: there is no such model.
        """
        if model_id in self._bases:
            return self._base_card(model_id)
        return _card(self.find(model_id))

    def change(self, model_id: str, change: ModelChange) -> CompletionModel | ClassifierModel:
        """Give a tuned model a name or a description.

        Raises:
            Refused: 403: it is a base; 404: there is no such tuned model.
        """
        self._require_own(model_id)
        with self._store.write() as database:
            database.execute(
                "UPDATE model SET name = coalesce(?, name),"
                " description = coalesce(?, description) WHERE id = ?",
                (change.name, change.description, model_id),
            )
        return _describe(self.find(model_id))

    def archive(self, model_id: str, *, archived: bool) -> None:
        """Put a tuned model aside, or take it back.

        Raises:
            Refused: 403: it is a base; 404: there is no such tuned model.
        """
        self._require_own(model_id)
        with self._store.write() as database:
            database.execute("UPDATE model SET archived = ? WHERE id = ?", (archived, model_id))

    def delete(self, model_id: str) -> Tuned:
        """Delete a tuned model, its adapter and its checkpoints; return what it was.

        Raises:
            Refused: 403: it is a base, or answers to an alias; 404: there is no such model.
        """
        model = self._require_own(model_id)
        for alias, other in self._aliases.items():
            if other.adapter == model.adapter:
                raise Refused(403, f"Model {model_id} is what `--alias {alias}` means.")
        with self._store.write() as database:
            database.execute(
                "UPDATE model SET deleted = ? WHERE id = ?", (int(time.time()), model_id)
            )
        run = Path(model.adapter).parent
        for name in ("adapter", "model", "checkpoints"):
            shutil.rmtree(run / name, ignore_errors=True)
        return model

    def _require_own(self, model_id: str) -> Tuned:
        if model_id in self._bases:
            raise Refused(403, f"Model {model_id} is a base: only tuned models can be changed.")
        if model_id in self._aliases:
            raise Refused(403, f"Model {model_id} is set by `--alias`: change it there.")
        return self.find(model_id)

    def _context(self, name: str) -> int:
        return self._bases[name].max_context_length if name in self._bases else _DEFAULT_CONTEXT

    def _base_card(self, name: str) -> BaseCard:
        card = self._bases[name]
        can = card.capabilities.model_copy(update={"fine_tuning": self._tunable})
        return card.model_copy(update={"capabilities": can})


def name_model(job: Details) -> str:
    """Return the id of what a job makes: `ft:<base>:<suffix>:<YYYYMMDD>:<8 hex>`."""
    start = str(job.id)[:8]
    day = dt.datetime.fromtimestamp(job.created_at, dt.UTC).strftime("%Y%m%d")
    kind = "ft:classifier" if job.job_type == "classifier" else "ft"
    return f"{kind}:{job.model}:{job.suffix or start}:{day}:{start}"


def _find_base(name: str, model: str) -> BaseCard:
    try:
        context = find_place(model).context
    except UsageError:
        context = None
    row = find_model(model)
    version = (row.tokenizer or "") if row else ""
    return BaseCard(
        id=name,
        created=0,
        owned_by="local",
        capabilities=Capabilities(
            completion_chat=True,
            completion_fim=not version.startswith(("v1-", "v2")) and version != "v1",
            function_calling=not version.startswith("v1-") and version != "v1",
        ),
        description=f"{model}: {row.note}" if row and row.note else model,
        max_context_length=context or _DEFAULT_CONTEXT,
        default_model_temperature=0.0,
    )


def _read_alias(name: str, path: Path) -> Tuned:
    if not (path / "run.json").is_file() or not (run := Run(path)).tuned.is_dir():
        raise UsageError(f"--alias {name}: {path}: is not a run that has ended training")
    recipe = run.recipe
    created = dt.datetime.fromisoformat(run.state["created"]).timestamp()
    return Tuned(
        id=name,
        created=int(created),
        job=_NO_JOB,
        root=recipe.model,
        root_version=recipe.model,
        adapter=str(run.tuned.resolve()),
        whole=run.tuned == run.whole,
        context=find_place(recipe.model).context or _DEFAULT_CONTEXT,
        fim=recipe.method == "pretrain",
        description=f"the run {path.name}",
    )


def _tuned(row: sqlite3.Row) -> Tuned:
    model = msgspec.json.decode(row["document"], type=Tuned)
    model.archived, model.name = bool(row["archived"]), row["name"]
    model.description = row["description"]
    return model


def _card(model: Tuned) -> TunedCard:
    classifier = model.targets is not None
    return TunedCard(
        id=model.id,
        created=model.created,
        owned_by="local",
        capabilities=Capabilities(
            completion_chat=not classifier,
            completion_fim=model.fim,
            function_calling=not classifier,
            classification=classifier,
        ),
        name=model.name,
        description=model.description,
        max_context_length=model.context,
        default_model_temperature=0.0,
        job=model.job,
        root=model.root,
        archived=model.archived,
    )


def _describe(model: Tuned) -> CompletionModel | ClassifierModel:
    classifier = model.targets is not None
    facts = {
        "id": model.id,
        "created": model.created,
        "owned_by": "local",
        "workspace_id": WORKSPACE,
        "root": model.root,
        "root_version": model.root_version,
        "archived": model.archived,
        "name": model.name,
        "description": model.description,
        "capabilities": TunedCapabilities(
            completion_chat=not classifier,
            completion_fim=model.fim,
            function_calling=not classifier,
            classification=classifier,
        ),
        "max_context_length": model.context,
        "job": model.job,
    }
    if classifier:
        return ClassifierModel.model_validate(facts | {"classifier_targets": model.targets})
    return CompletionModel.model_validate(facts)
