"""Pages for people: what the server knows, as plain values for its templates."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import report
from finetune.report.charts import Chart
from finetune.report.page import draw_curves
from finetune.runs import Run
from finetune.server.contract import LIVE, Details
from finetune.server.jobs import parse
from finetune.server.keys import list_keys
from finetune.text import plural, size

if TYPE_CHECKING:
    from finetune.server.app import Service

_TEMPLATES = Path(__file__).parent / "templates"
_MOST = 50  # rows of a table


def show_overview(service: Service) -> str:
    """Return the page of all jobs, models, files and keys; it looks again while a job lives."""
    rows = service.store.read(f"SELECT document FROM job ORDER BY rowid DESC LIMIT {_MOST}")  # noqa: S608
    jobs = [parse(row["document"]) for row in rows]
    live = [job for job in jobs if job.status in LIVE]
    training = [job for job in live if job.status == "RUNNING"]
    cards = service.models.cards().data
    files = service.store.read(
        f"SELECT filename, bytes, document ->> 'num_lines' AS lines, created FROM file"  # noqa: S608
        f" ORDER BY rowid DESC LIMIT {_MOST}"
    )
    return report.render(
        "overview.html",
        folder=_TEMPLATES,
        live=bool(live),
        verdict=f"{plural(len(live), 'job')} under way, {plural(len(cards), 'model')}",
        jobs=[_row(job) for job in jobs],
        charts=[chart for job in training for chart in _charts(service, job)],
        models=[
            [card.id, getattr(card, "root", "–"), f"{card.max_context_length:,}", _note(card)]
            for card in cards
        ],
        files=[[f["filename"], size(f["bytes"]), f["lines"], _time(f["created"])] for f in files],
        usage=[
            [
                key["name"],
                *(f"{key[name]:,}" for name in ("requests", "tokens_in", "tokens_out")),
                f"{key['trained_tokens']:,}",
                size(key["storage_bytes"]),
            ]
            for key in list_keys(service.store)
        ],
    )


def show_job(service: Service, job_id: str) -> str:
    """Return the page of one job.

    Raises:
        Refused: 404: there is none.
    """
    job = service.jobs.find(job_id)
    bill = job.metadata.model_dump(exclude_none=True) if job.metadata else {}
    return report.render(
        "job.html",
        folder=_TEMPLATES,
        live=job.status in LIVE,
        job=_row(job),
        charts=_charts(service, job),
        bill=[[_words(name), _figure(value)] for name, value in bill.items()],
        settings=[
            [_words(name), _figure(value)]
            for name, value in job.hyperparameters.model_dump().items()
        ],
        checkpoints=[
            [point.step_number, *(_figure(value) for value in point.metrics.model_dump().values())]
            for point in job.checkpoints
        ],
        events=[
            [_time(event.created_at), data.get("status"), data.get("message", "")]
            for event in job.events
            if (data := event.data or {})
        ],
    )


def _row(job: Details) -> dict[str, Any]:
    last = job.checkpoints[-1] if job.checkpoints else None
    loss = last.metrics.train_loss if last else None
    return {
        "id": str(job.id),
        "suffix": job.suffix,
        "model": job.model,
        "status": job.status,
        "step": f"{last.step_number if last else 0} of {job.hyperparameters.training_steps or '?'}",
        "loss": _figure(loss),
        "tuned": job.fine_tuned_model or "",
    }


def _charts(service: Service, job: Details) -> list[Chart]:
    folder = service.jobs.run_folder(str(job.id))
    if not (folder / "run.json").is_file():
        return []
    name = f"{job.suffix or str(job.id)[:8]}: "
    return draw_curves([(name, Run(folder).metrics())])[:1]


def _note(card: Any) -> str:
    parts = [card.name, "archived" if getattr(card, "archived", False) else "", card.description]
    return "; ".join(part for part in parts if part)


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _time(seconds: int) -> str:
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
