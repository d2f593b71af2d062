"""Reports: one HTML file that opens offline, of one run or of two beside each other.

The pages hold no script and load nothing. Every value goes through the template engine's escaping
(pictures too: `charts` returns numbers, the templates draw them), after control characters and
keys were taken out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune.corpus import Dataset
from finetune.errors import UsageError
from finetune.files import slug, write_atomic
from finetune.recipe import Recipe
from finetune.report import page
from finetune.report.labels import list_targets
from finetune.report.lengths import count_lengths
from finetune.report.processing import list_processing, list_provenance
from finetune.runs import Run, describe_speed
from finetune.text import redact, safe

__all__ = ["count_lengths", "write_comparison", "write_data_report", "write_report"]


def write_report(run: Run) -> Path:
    """Write `report.html` into the run's folder and return its path.

    It holds the verdict, the data account, a token histogram, the curves, base beside tuned, the
    recipe with the origin of each value, versions and digests: figures, never records.
    """
    state, metrics = run.state, run.metrics()
    settings = page.list_settings(run)
    html = render(
        "run.html",
        **_describe_data(run.recipe, run.manifest(), _load(run.dataset)),
        name=run.folder.name,
        verdict=page.judge(run),
        state=state,
        model=run.recipe.model,
        charts=page.draw_curves([("", metrics)], page.find_checkpoints(run)),
        curve=page.list_curve(metrics),
        trained=page.describe_training(state),
        bad_losses=page.count_bad_losses(metrics),
        speed=describe_speed(state["speed"]) if state.get("speed") else "",
        basis=page.describe_basis(run.evaluation()),
        measures=page.list_measures(run.evaluation()),
        sides=page.name_sides(run.evaluation()),
        verdicts=page.list_verdicts(run.evaluation()),
        targets=list_targets(run.evaluation()),
        chosen=[row for row in settings if row["origin"] != "default"],
        defaults=[row for row in settings if row["origin"] == "default"],
    )
    return _write(run.folder / "report.html", html)


def write_data_report(recipe: Recipe, dataset: Dataset) -> Path:
    """Write `report.html` into a dataset's folder and return its path.

    It holds the account of rows and records, what was removed and why, token lengths, and what
    the records look like: figures, never records.
    """
    manifest = dataset.manifest
    html = render(
        "dataset.html",
        **_describe_data(recipe, manifest, dataset),
        name=dataset.folder.name,
        verdict=page.judge_data(manifest),
        recipe_name=recipe.name,
        model=recipe.model,
    )
    return _write(dataset.folder / "report.html", html)


def _describe_data(
    recipe: Recipe, manifest: dict[str, Any] | None, dataset: Dataset | None
) -> dict[str, Any]:
    lengths, seq_len = count_lengths(recipe, dataset), recipe.training.seq_len
    histogram, bins = page.draw_lengths(lengths, seq_len)
    return {
        "account": page.list_account(manifest),
        "waterfall": page.list_waterfall(manifest),
        "profile": page.list_profile(manifest),
        "privacy": page.list_privacy(manifest),
        "processing": list_processing(recipe, manifest),
        "provenance": list_provenance(recipe),
        "histogram": histogram,
        "bins": bins,
        "lengths": page.list_lengths(lengths, seq_len),
        "lengths_missing": lengths.missing,
    }


def _load(folder: Path) -> Dataset | None:
    try:
        return Dataset.load(folder)
    except UsageError:
        return None


def write_comparison(first: Run, second: Run) -> Path:
    """Write how two runs differ into the first one's folder and return the file's path."""
    names = [first.folder.name, second.folder.name]
    metrics = [first.metrics(), second.metrics()]
    html = render(
        "comparison.html",
        names=names,
        verdicts=[page.judge(first), page.judge(second)],
        differences=page.list_differences(first, second),
        charts=page.draw_curves(list(zip(("A: ", "B: "), metrics, strict=True))),
        curves=[page.list_curve(lines) for lines in metrics],
        measures=page.compare_measures(first.evaluation(), second.evaluation()),
    )
    return _write(first.folder / f"comparison-{slug(second.folder.name)}.html", html)


def render(template: str, *, folder: Path | None = None, **values: Any) -> str:
    """Return a page of a template.

    Args:
        template: Its name.
        folder: Where it lies, with the templates here behind it; here where absent.
        values: What it shows; all of it is escaped.
    """
    import jinja2

    here = Path(__file__).parent / "templates"

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder or here, here]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["show"] = page.show
    environment.globals["curve_keys"] = page.CURVE_KEYS
    return environment.get_template(template).render(**values)


def _printable(value: Any) -> Any:
    """Take control characters and keys out of a value; what a macro made is left as it is."""
    return value if hasattr(value, "__html__") else redact(safe(str(value), 20_000))


def _write(path: Path, html: str) -> Path:
    write_atomic(path, html.encode())
    return path
