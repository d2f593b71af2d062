"""The record of processing: one page that says what is done with whose data, why and how long.

GDPR, article 30: purposes, categories, recipients, time limits, measures.
"""

from __future__ import annotations

from typing import Any

from finetune.catalog import HOST
from finetune.corpus.privacy.egress import judge_egress
from finetune.recipe import Recipe

Rows = list[list[Any]]
_NOT_SAID = "not stated"


def list_processing(recipe: Recipe, manifest: dict[str, Any] | None) -> Rows:
    """Return `question, answer` of what is done with the data."""
    manifest = manifest or {}
    section = manifest.get("privacy")
    records = manifest.get("records", {}).get("written")
    where = "this machine; nothing of the data leaves it"
    if recipe.backend == "platform":
        where = f"La Plateforme of Mistral AI ({HOST}), and this machine"
    excluded = manifest.get("by_rule", {}).get("excluded", 0)
    rows = [
        ["what", f"{records:,} records" if records is not None else "the dataset is gone"],
        ["done with them", f"{recipe.method} of {recipe.model}"],
        ["where", where],
        ["personal data", judge_egress(recipe.egress.personal_data, section).fact],
        ["may leave this machine", f"egress.personal_data: {recipe.egress.personal_data}"],
        ["other names", section["other_names"] if section else "not searched"],
        ["left out on request", f"{excluded:,} records"],
    ]
    if section and section.get("key"):
        rows.append(["key of the pseudonyms", section["key"]])
    return rows


def list_provenance(recipe: Recipe) -> Rows:
    """Return `source, why, lawful basis, collected, kept` of each source."""
    validation = recipe.data.validation
    sources = [*recipe.data.train, *(validation if isinstance(validation, list) else [])]
    return [
        [
            source.path.name,
            said.purpose or _NOT_SAID,
            said.lawful_basis or _NOT_SAID,
            said.source or _NOT_SAID,
            said.retention or _NOT_SAID,
        ]
        for source in sources
        for said in [source.provenance]
    ]
