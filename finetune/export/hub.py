"""The Hugging Face hub: the adapter with its card, in a new repository, private unless asked."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finetune.backends.local.quiet import quiet
from finetune.corpus.privacy.egress import allows_host, judge_egress
from finetune.errors import PlatformError, UsageError
from finetune.export import adapter
from finetune.progress import Progress
from finetune.runs import Run

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PersonalData = Literal["none", "masked", "any"]
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HOST = "huggingface.co"
_FILES = [adapter.WEIGHTS, adapter.CONFIG, "README.md"]


def write(
    run: Run,
    folder: Path,
    *,
    repository: str = "",
    public: bool = False,
    personal_data: PersonalData | None = None,
    api: HfApi | None = None,
    progress: Progress,
) -> dict[str, Any]:
    """Write the adapter, and push what was written; the folder shows what left this machine.

    Args:
        run: The run.
        folder: Where the adapter is written.
        repository: `owner/name`; it must not be there yet.
        public: Let everybody read it.
        personal_data: What may leave, instead of the recipe's `egress.personal_data`.
        api: The hub's client; by default with the token of `HF_TOKEN` or `hf auth login`.
        progress: Told about the work.

    Raises:
        UsageError: No such name for a repository, or personal data that must not leave.
        PlatformError: The hub cannot be reached, or says no.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise UsageError(
            f"{repository or 'hub'}: a repository is named owner/name", hint="give `--repository`"
        )
    _require_egress(run, personal_data)
    facts = adapter.write(run, folder, progress=progress)
    progress("push", 0)
    address = _push(api, repository, folder, private=not public)
    return {**facts, "repository": repository, "private": not public, "address": address}


def _require_egress(run: Run, personal_data: PersonalData | None) -> None:
    if personal_data not in (None, "none", "masked", "any"):
        raise UsageError(f"{personal_data}: personal data that may leave: none, masked or any")
    manifest = run.manifest() or {}
    allowed = personal_data or run.recipe.egress.personal_data
    egress = judge_egress(allowed, manifest.get("privacy"))
    if not allows_host(run.recipe.egress.hosts, _HOST):
        raise UsageError(f"{run.folder}: `egress.hosts` of its recipe does not name `{_HOST}`")
    if not egress.allowed:
        raise UsageError(
            f"{run.folder}: must not leave this machine: {egress.fact}, and personal data that may"
            f" leave are `{allowed}`",
            hint="a model repeats its data: look with `data.privacy: report`, or say"
            " `--personal-data any` where you may",
        )


def _push(api: HfApi | None, repository: str, folder: Path, *, private: bool) -> str:
    with quiet():
        import huggingface_hub
        from huggingface_hub import errors

    client = api or huggingface_hub.HfApi()
    try:
        address = client.create_repo(repository, private=private, exist_ok=False)
        client.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=_FILES,
            commit_message="Add the adapter and its card",
        )
    except errors.LocalTokenNotFoundError:
        raise PlatformError("hub: no token", exit_code=4, hint="put one into HF_TOKEN") from None
    except errors.HfHubHTTPError as error:
        raise _refusal(repository, error.response.status_code) from None
    except (OSError, RuntimeError, errors.OfflineModeIsEnabled) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise PlatformError(
            f"hub: cannot be reached: {type(error).__name__}", hint="try again later"
        ) from None
    except Exception as error:
        # The client's transport has errors of its own, with addresses and headers in their texts.
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore"):
            raise
        raise PlatformError(
            f"hub: cannot be reached: {type(error).__name__}", hint="try again later"
        ) from None
    return str(address)


def _refusal(repository: str, status: int) -> PlatformError:
    if status == 409:
        return PlatformError(
            f"{repository}: is there already", exit_code=8, hint="name another repository"
        )
    if status in (401, 403):
        hint = "put a token that may write there into HF_TOKEN"
        return PlatformError(f"{repository}: the hub refuses the token", exit_code=4, hint=hint)
    return PlatformError(f"{repository}: the hub says no: status {status}")
