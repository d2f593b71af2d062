"""The API: its calls. All URLs stand here.

From the published specification (2026-07-06, the last with jobs).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import IO, Any
from urllib.parse import quote

from finetune.backends.platform.caller import Caller
from finetune.backends.platform.replies import Card, File, Job, R, read, read_page

_FILES = "/files"
_JOBS = "/fine_tuning/jobs"
_TUNED = "/fine_tuning/models"
_MODELS = "/models"
_PAGE = 100  # objects of a list that are asked for at once


class Client(Caller):
    """La Plateforme, or a server that speaks its API; see `Caller` for its arguments."""

    # Files.

    def upload(self, name: str, size: int, open_file: Callable[[], IO[bytes]]) -> File:
        """Upload a training or validation file.

        Args:
            name: Its name there.
            size: In bytes.
            open_file: Opens it at its beginning; called for every try.
        """

        def content() -> Mapping[str, Any]:
            return {
                "data": {"purpose": "fine-tune"},
                "files": {"file": (name, open_file(), "application/jsonl")},
            }

        deadline = self.pace.upload + size / self.pace.upload_rate
        return self.ask("POST", _FILES, _as(File), content=content, deadline=deadline, repeat=False)

    def list_files(self, **filters: str) -> list[File]:
        """Return the files; `search` and `purpose` filter."""
        return self._list(File, _FILES, filters)

    def get_file(self, file_id: str) -> File:
        """Return a file's description."""
        return self.ask("GET", _at(_FILES, file_id), _as(File))

    def delete_file(self, file_id: str) -> None:
        """Delete a file."""
        self.ask("DELETE", _at(_FILES, file_id), None)

    def download(self, file_id: str, sink: IO[bytes], size: int | None = None) -> int:
        """Write a file's content into `sink` and return how many bytes it has.

        Args:
            file_id: The file.
            sink: Open for writing, at its beginning.
            size: What the service declares it to have.
        """
        most = (size or 2 * 10**9) + 1
        deadline = self.pace.upload + most / self.pace.upload_rate
        path = _at(_FILES, file_id, "content")
        self.ask("GET", path, None, deadline=deadline, most=most, sink=sink)
        return sink.tell()

    # Jobs.

    def create_job(self, body: Mapping[str, Any]) -> Job:
        """Make a job."""
        content = {"json": body}
        return self.ask("POST", _JOBS, _as(Job), content=lambda: content, repeat=False)

    def list_jobs(self, **filters: str) -> list[Job]:
        """Return the jobs; `suffix`, `status`, `model`, `created_after` … filter."""
        return self._list(Job, _JOBS, filters)

    def probe_jobs(self) -> list[Job]:
        """Return the newest job, if there is one: whether jobs are offered at all."""
        return self._get_page(Job, _JOBS, {"page": 0, "page_size": 1})

    def get_job(self, job_id: str) -> Job:
        """Return a job with its events and checkpoints."""
        return self.ask("GET", _at(_JOBS, job_id), _as(Job))

    def start_job(self, job_id: str) -> Job:
        """Start a validated job: this spends money."""
        return self.ask("POST", _at(_JOBS, job_id, "start"), _as(Job), repeat=False)

    def cancel_job(self, job_id: str) -> Job:
        """Ask a job to stop."""
        return self.ask("POST", _at(_JOBS, job_id, "cancel"), _as(Job))

    # Models.

    def list_models(self) -> list[Card]:
        """Return the models that this key may use."""
        return self.ask("GET", _MODELS, _page(Card))

    def get_model(self, model_id: str) -> Card:
        """Return a model's card."""
        return self.ask("GET", _at(_MODELS, model_id), _as(Card))

    def update_model(self, model_id: str, **facts: str) -> Card:
        """Change the `name` or `description` of a tuned model."""
        content = {"json": facts}
        return self.ask("PATCH", _at(_TUNED, model_id), _as(Card), content=lambda: content)

    def archive_model(self, model_id: str) -> None:
        """Put a tuned model away."""
        self.ask("POST", _at(_TUNED, model_id, "archive"), None)

    def unarchive_model(self, model_id: str) -> None:
        """Bring a tuned model back."""
        self.ask("DELETE", _at(_TUNED, model_id, "archive"), None)

    def delete_model(self, model_id: str) -> None:
        """Delete a tuned model for ever."""
        self.ask("DELETE", _at(_MODELS, model_id), None)

    # What a model answers.

    def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a chat completion."""
        return self._compute("/chat/completions", body)

    def fill(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the middle between `prompt` and `suffix`."""
        return self._compute("/fim/completions", body)

    def classify(self, body: Mapping[str, Any], *, chat: bool) -> dict[str, Any]:
        """Return the scores of the labels of texts, or of conversations with `chat`."""
        return self._compute("/chat/classifications" if chat else "/classifications", body)

    def close(self) -> None:
        """Let go of what is held open."""
        self._wire.close()

    # How a call is made.

    def _compute(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        content = {"json": body}
        return self.ask("POST", path, _document, content=lambda: content, deadline=self.pace.answer)

    def _list(self, kind: type[R], path: str, filters: Mapping[str, str]) -> list[R]:
        """Return all pages; what moved to another page while they were read counts once."""
        found: dict[str, R] = {}
        page = 0
        while True:
            rows = self._get_page(kind, path, {**filters, "page": page, "page_size": _PAGE})
            before = len(found)
            found.update((row.id, row) for row in rows)
            if len(rows) < _PAGE or len(found) == before:
                return list(found.values())
            page += 1

    def _get_page(self, kind: type[R], path: str, params: Mapping[str, Any]) -> list[R]:
        content = {"params": params}
        return self.ask("GET", path, _page(kind), content=lambda: content)


def _at(collection: str, name: str, action: str = "") -> str:
    path = f"{collection}/{quote(name, safe=':')}"
    return f"{path}/{action}" if action else path


def _as(kind: type[R]) -> Callable[[Any], R]:
    return lambda value: read(kind, value)


def _page(kind: type[R]) -> Callable[[Any], list[R]]:
    return lambda value: read_page(kind, value)


def _document(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("no object")  # noqa: TRY004 (a fault of the reply)
    return value
