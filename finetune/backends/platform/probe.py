"""Probe: whether jobs are offered at all, found out before anything is uploaded."""

from __future__ import annotations

import datetime as dt
import shlex

from finetune.backends.platform.api import Client
from finetune.backends.platform.jobs import name_model
from finetune.backends.platform.replies import Card
from finetune.backends.platform.retry import Refused
from finetune.catalog import LICENCES, MODELS, Model, find_model
from finetune.errors import PlatformError
from finetune.recipe import Recipe
from finetune.text import safe


def probe(client: Client, recipe: Recipe | None = None) -> list[Card]:
    """Return the models that can be tuned, if the service offers that.

    Args:
        client: The service.
        recipe: Its model must be one of them, as far as the cards tell.

    Raises:
        PlatformError: Jobs are not offered (exit code 8), or the key is refused (4).
    """
    host = client.address.host
    try:
        cards = client.list_models()
    except Refused as error:
        if error.status not in (404, 410):
            raise
        cards = []
    tunable = [card for card in cards if card.can_be_tuned]
    if cards and not tunable:
        raise refuse(recipe, f"{host}: none of {len(cards)} model cards says `fine_tuning`")
    if recipe is not None:
        name = name_model(recipe)
        own = [card for card in cards if name == card.id or name in (card.aliases or [])]
        if own and not any(card.can_be_tuned for card in own):
            known = ", ".join(safe(card.id, 60) for card in tunable[:8])
            raise refuse(recipe, f"{host}: `{safe(name)}` cannot be tuned; these can: {known}")
        if not own:
            _refuse_retired(client, recipe)
    try:
        client.probe_jobs()
    except Refused as error:
        if is_no_access(error):
            raise refuse(recipe, f"{error.message}: jobs are not offered") from None
        raise
    return tunable


def _refuse_retired(client: Client, recipe: Recipe) -> None:
    """Refuse a model that the service does not list and that was announced to be retired by now."""
    model = find_model(recipe.model)
    today = dt.datetime.fromtimestamp(client.wall(), dt.UTC).date().isoformat()
    if not client.address.own or model is None or not model.retired or model.retired > today:
        return
    near = find_nearest(model)
    licence = LICENCES[near.licence]
    raise refuse(
        recipe,
        f"{client.address.host}: `{name_model(recipe)}` is not listed, and was announced to retire"
        f" on {model.retired} ({model.date}); the nearest open weights are `{near.name}`"
        f" ({licence.name}: {licence.note})",
    )


def find_nearest(model: Model) -> Model:
    """Return the model with open weights that is nearest to one: itself, or one of its size."""
    if model.hub_id is not None:
        return model
    free = [m for m in MODELS if m.hub_id and not m.fp8 and LICENCES[m.licence].commercial]
    return min(free, key=lambda other: abs(other.billions - model.billions))


def is_no_access(error: Refused) -> bool:
    """Tell whether a refusal by the jobs' endpoints means that they are not for this key.

    Users without access were answered 422 with one sentence about the model (2026-03-27); a
    request with a fault is answered 422 with a list of what is wrong where.
    """
    if error.status in (403, 404, 405, 410):
        return True
    detail = error.detail.lower()
    return error.status == 422 and "model" in detail and not detail.startswith("body")


def refuse(recipe: Recipe | None, fact: str) -> PlatformError:
    """Return the error of a service that offers no jobs, with the two ways on."""
    file = shlex.quote(str(recipe.file)) if recipe is not None and recipe.file else "RECIPE"
    return PlatformError(
        fact,
        exit_code=8,
        hint=f"train here: `finetune run {file} --backend local`; or on a server of your own:"
        f" `finetune serve`, then `finetune run {file} -s platform.host=http://127.0.0.1:8000`",
    )
