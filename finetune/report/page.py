"""What a report says, as plain values for the templates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from finetune.checks.profile import PERCENTILES, bins, percentile
from finetune.report.charts import Chart, Point, Series, draw_bars, draw_lines, smooth
from finetune.report.lengths import Lengths
from finetune.runs import Run
from finetune.text import plural

LOWER_IS_BETTER = ("loss", "perplexity", "general_loss", "ece")
TABLE_ROWS = 24

Rows = list[list[Any]]


def judge(run: Run) -> str:
    """Return the verdict on a run in one line."""
    state, evaluation = run.state, run.evaluation()
    if state.get("error"):
        return f"{state['state'].capitalize()}: {state['error']}"
    if not evaluation or not evaluation.get("tuned"):
        losses = _points(run.metrics(), "loss")
        reached = f", step {losses[-1][0]:,}, loss {losses[-1][1]:.3f}" if losses else ""
        return f"{state['state'].capitalize()}{reached}; not evaluated yet"
    names = list(evaluation["tuned"])
    headline = next((name for name in names if name not in LOWER_IS_BETTER), names[0])
    tuned, base = evaluation["tuned"][headline], evaluation.get("base", {}).get(headline)
    records = plural(evaluation["records"], "held-out record")
    if base is None:
        return f"{_title(headline)} {_number(tuned['value'])} on {records}"
    change = f"{_number(base['value'])} → {_number(tuned['value'])} on {records}"
    return f"{_compare(headline, base, tuned)}: {_words(headline)} {change}"


def judge_data(manifest: dict[str, Any]) -> str:
    """Return what became of the rows in one line."""
    rows, records = manifest["rows"], manifest["records"]
    return (
        f"{plural(records['written'], 'record')} of {plural(rows['read'], 'row')};"
        f" {plural(rows['rejected'], 'row')} and {plural(records['rejected'], 'record')} rejected,"
        f" {records['removed']:,} removed"
    )


def _compare(name: str, base: dict[str, Any], tuned: dict[str, Any]) -> str:
    low, high = _interval(tuned)
    base_low, base_high = _interval(base)
    if low <= base_high and base_low <= high:
        return "No clear difference from the base model"
    better = (low > base_high) != (name in LOWER_IS_BETTER)
    return "Better than the base model" if better else "Worse than the base model"


def _interval(measure: dict[str, Any]) -> tuple[float, float]:
    value = measure["value"]
    return measure.get("low", value), measure.get("high", value)


def describe_basis(evaluation: dict[str, Any] | None) -> str:
    """Return what the measures were taken on."""
    if not evaluation:
        return ""
    intervals = any("low" in measure for measure in evaluation["tuned"].values())
    notes = [evaluation.get("label"), intervals and "intervals are 95 %", evaluation.get("note")]
    records = plural(evaluation["records"], "held-out record")
    return "; ".join([records, *(note for note in notes if note)])


def list_measures(evaluation: dict[str, Any] | None) -> Rows:
    """Return `measure, base, its interval, tuned, its interval` for each measure.

    The two of another model follow where one was measured beside them.
    """
    if not evaluation:
        return []
    sides = [evaluation.get(side, {}) for side in ("base", "tuned", "against")]
    sides = sides if sides[2] else sides[:2]
    return [
        [_words(name), *(cell for side in sides for cell in _cells(side.get(name)))]
        for name in dict.fromkeys([*sides[1], *sides[0]])
    ]


def name_sides(evaluation: dict[str, Any] | None) -> list[str]:
    """Return the heads of `list_measures`."""
    heads = ["measure", "base", "", "tuned", ""]
    if evaluation and evaluation.get("against"):
        heads += [evaluation["against_name"], ""]
    return heads


def list_verdicts(evaluation: dict[str, Any] | None) -> Rows:
    """Return who judged and what was decided how often, or why nobody did."""
    return [
        [_words(key), show(value)] for key, value in (evaluation or {}).get("judge", {}).items()
    ]


def compare_measures(first: dict[str, Any] | None, second: dict[str, Any] | None) -> Rows:
    """Return `measure` and then base, tuned and its interval, of one run and of the other."""
    tables = [
        {row[0]: [row[1], *row[3:5]] for row in list_measures(one)} for one in (first, second)
    ]
    missing = ["–", "–", ""]
    names = dict.fromkeys([*tables[0], *tables[1]])
    return [
        [name, *(cell for table in tables for cell in table.get(name, missing))] for name in names
    ]


def _cells(measure: dict[str, Any] | None) -> list[str]:
    if measure is None:
        return ["–", ""]
    interval = f"{_number(measure['low'])} … {_number(measure['high'])}" if "low" in measure else ""
    return [_number(measure["value"]), interval]


def list_account(manifest: dict[str, Any] | None) -> list[tuple[str, Rows]]:
    """Return the data account as tables: rows, records, reasons, files."""
    if manifest is None:
        return []
    tables: list[tuple[str, Rows]] = [
        (name, [[key, f"{count:,}"] for key, count in manifest.get(name, {}).items()])
        for name in ("rows", "records", "by_rule", "warnings")
    ]
    files = [
        [name, f"{facts['records']:,}" if "records" in facts else "", facts["sha256"][:12]]
        for name, facts in manifest.get("files", {}).items()
    ]
    return [(name, rows) for name, rows in [*tables, ("files", files)] if rows]


def list_profile(manifest: dict[str, Any] | None) -> list[tuple[str, Rows]]:
    """Return what the training records hold as tables: lengths, turns, tools, labels."""
    profile = (manifest or {}).get("profile", {})
    tables = [
        ("characters a record", profile.get("characters", {})),
        ("messages by role", profile.get("roles", {})),
        ("answers a conversation", profile.get("turns", {})),
        (f"languages of {profile.get('sampled', 0):,} records", profile.get("languages", {})),
        ("calls by function", profile.get("calls", {})),
        *((f"labels of {target}", counts) for target, counts in profile.get("labels", {}).items()),
    ]
    more = {name: profile.get(name) for name in ("tools", "images", "reasoning")}
    tables.append(("records with tools, images, reasoning", {k: v for k, v in more.items() if v}))
    return [
        (name, [[key, f"{n:,}"] for key, n in counts.items()]) for name, counts in tables if counts
    ]


def list_privacy(manifest: dict[str, Any] | None) -> Rows:
    """Return `kind, field, how many` of the personal data that were found."""
    found = (manifest or {}).get("privacy", {}).get("counts", {})
    return [[kind, field, f"{n:,}"] for kind, by in found.items() for field, n in by.items()]


def list_waterfall(manifest: dict[str, Any] | None) -> Rows:
    """Return `step, reason, records` of what was removed, in the order of the steps."""
    steps = (manifest or {}).get("waterfall", [])
    return [[step["step"], step["rule"], f"{step['records']:,}"] for step in steps]


def draw_lengths(lengths: Lengths, seq_len: int | None) -> tuple[Chart | None, Rows]:
    """Return the histogram of tokens a record, and its numbers."""
    if not lengths.counts:
        return None, []
    parts = bins(lengths.counts)
    cut = next((number for number, (low, _, _) in enumerate(parts) if low > (seq_len or 0)), None)
    chart = draw_bars(
        "Training records by length",
        [(f"{low:,}", count) for low, _, count in parts],
        x_label="tokens",
        cut=cut if seq_len else None,
        cut_name=f"seq_len {seq_len}",
    )
    return chart, [[f"{low:,} – {high:,}", f"{count:,}"] for low, high, count in parts]


def list_lengths(lengths: Lengths, seq_len: int | None) -> Rows:
    """Return the figures beside the histogram."""
    if not lengths.counts:
        return []
    total = sum(lengths.counts)
    rows = [[name, f"{percentile(lengths.counts, share):,}"] for name, share in PERCENTILES]
    rows.append(["trained tokens", f"{lengths.trained / total:.0%}"])
    if seq_len:
        longer, lost = lengths.cut(seq_len)
        rows.append([f"longer than seq_len {seq_len:,}", f"{longer:,}"])
        if longer:
            rows.append(["tokens beyond it", f"{lost:,} ({lost / total:.1%})"])
    counted, records = len(lengths.counts), plural(lengths.records, "record")
    rows.append(["counted", records if counted == lengths.records else f"{counted:,} of {records}"])
    return rows


def draw_curves(
    metrics: Sequence[tuple[str, list[dict[str, Any]]]], checkpoints: Iterable[int] = ()
) -> list[Chart]:
    """Return loss, learning rate and speed over the steps, of one run or of several by name."""
    losses = []
    for number, (name, lines) in enumerate(metrics):
        train, validation = _points(lines, "loss"), _points(lines, "validation_loss")
        mean = smooth(train)
        losses += [
            Series(f"{name}training loss", f"raw{number}" if mean else f"train{number}", train),
            Series(f"{name}training loss, mean", f"train{number}", mean),
            Series(f"{name}validation loss", f"validation{number}", validation),
        ]
    charts = [draw_lines("Loss", losses, marks=checkpoints, mark_name="checkpoint")]
    for title, key in (("Learning rate", "learning_rate"), ("Speed", "tokens_per_second")):
        series = [
            Series(f"{name}{_words(key)}", f"train{number}", _points(lines, key))
            for number, (name, lines) in enumerate(metrics)
        ]
        charts.append(draw_lines(title, series))
    return [chart for chart in charts if chart]


def find_checkpoints(run: Run) -> list[int]:
    """Return the steps at which the run was saved, as its folder and its journal say."""
    steps = {path.name.removeprefix("step-") for path in run.checkpoints.glob("step-*")}
    noted = {event.get("step") for event in run.events() if event.get("event") == "checkpoint"}
    whole = {int(step) for step in steps if step.isdigit()}
    return sorted(whole | {step for step in noted if isinstance(step, int)})


CURVE_KEYS = ("step", "epoch", "tokens", "loss", "validation_loss", "learning_rate")


def list_curve(metrics: list[dict[str, Any]]) -> Rows:
    """Return the numbers behind the curves at evenly spaced steps and at each validation."""
    validated = [number for number, line in enumerate(metrics) if "validation_loss" in line]
    chosen = _spread(range(len(metrics)), TABLE_ROWS) | _spread(validated, TABLE_ROWS)
    return [[_cell(metrics[place].get(key)) for key in CURVE_KEYS] for place in sorted(chosen)]


def count_bad_losses(metrics: Iterable[dict[str, Any]]) -> int:
    """Return at how many steps the loss was not a number."""
    return sum("loss" in line and not _finite(line["loss"]) for line in metrics)


def describe_training(state: dict[str, Any]) -> str:
    """Return which step's weights are published and what was skipped; "" if all went as planned."""
    trained = state.get("trained")
    if not trained:
        return ""
    notes = []
    if trained["last"] < trained["steps"]:
        notes.append(f"stopped early after step {trained['last']} of {trained['steps']}")
    if trained["step"] < trained["last"]:
        figures = ", ".join(f"{_words(k)} {v:.4g}" for k, v in trained["figures"].items())
        notes.append(f"the best checkpoint is published: step {trained['step']} ({figures})")
    if trained["skipped"]:
        notes.append(f"{plural(trained['skipped'], 'step')} skipped as spikes")
    return "; ".join(notes)


def list_settings(run: Run) -> list[dict[str, Any]]:
    """Return every setting as `{"key", "value", "origin"}`."""
    if run.recipe_resolved:
        return run.recipe_resolved
    settings = flatten(run.recipe.settings)  # a recipe that was built in Python has no origins
    return [{"key": key, "value": value, "origin": "Python"} for key, value in settings.items()]


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted key; lists stay whole."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def list_differences(first: Run, second: Run) -> Rows:
    """Return `key, value here, value there` for each setting that differs."""
    left, right = (flatten(run.recipe.settings) for run in (first, second))
    rows = [
        [key, show(left.get(key)), show(right.get(key))]
        for key in dict.fromkeys([*left, *right])
        if left.get(key) != right.get(key)
    ]
    for key in ("dataset_digest", "versions"):
        values = [show(run.state.get(key)) for run in (first, second)]
        if values[0] != values[1]:
            rows.append([_words(key), *values])
    return rows


def show(value: Any) -> str:
    """Return a setting as a recipe would write it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {show(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(show(item) for item in value)}]"
    return str(value)


def _points(metrics: Iterable[dict[str, Any]], key: str) -> list[Point]:
    return [(line["step"], line[key]) for line in metrics if key in line and _finite(line[key])]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _spread(places: Sequence[int], count: int) -> set[int]:
    if len(places) <= count:
        return set(places)
    return {places[round(number * (len(places) - 1) / (count - 1))] for number in range(count)}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _number(value: float) -> str:
    return f"{value:.3f}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _title(name: str) -> str:
    return _words(name).capitalize()
