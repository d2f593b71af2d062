"""A service that keeps the contract in memory, and fails where it is told to.

It stands for La Plateforme where the real server cannot: its state is looked into, its time is
given, and what becomes of a request or of the reply to it is decided for each.
"""

from __future__ import annotations

import email
import email.policy
import hashlib
import json
import threading
import uuid
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2

LIVE = ("QUEUED", "VALIDATING", "VALIDATED", "STARTED", "RUNNING")


class Service:
    """Files, jobs and models of one workspace.

    `fate(method, path, count)` may return the name of what happens to a request: `lose` (it never
    arrives), `drop` (it is done, the reply is lost), `half` (done, half a reply), an HTTP status
    (refused without being done), or `("after", status)` (done, but that status comes back).
    """

    def __init__(self, fate=None, wall=lambda: 1_760_000_000.0):
        self.files, self.jobs, self.models = {}, {}, {}
        self.fate, self.wall = fate or (lambda *_: None), wall
        self.calls = Counter()
        self.requests = []
        self.starts = Counter()
        self.cost = (8.2, "EUR")
        self.offers = True  # cards say `fine_tuning`
        self.create_says = None  # (status, body) of every creation
        self.jobs_say = None  # (status, body) of every request about jobs
        self.fails = None  # (status, events) of a job after validation
        self.lock = threading.RLock()

    # The wire.

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        path = request.url.path
        key = (request.method, path.split("/")[-1] if path.endswith(("start", "cancel")) else path)
        self.calls[key] += 1
        self.requests.append((request.method, path, request.headers.get("authorization")))
        fate = self.fate(request.method, path, self.calls[key])
        if fate == "lose":
            raise httpx2.ConnectError("refused")
        if isinstance(fate, int):
            return httpx2.Response(fate, json={"detail": f"told to answer {fate}"})
        with self.lock:
            status, body = self.answer(request)
        if fate == "drop":
            raise httpx2.ReadError("reset")
        if fate == "half":
            return httpx2.Response(200, content=json.dumps(body).encode()[:-2])
        if isinstance(fate, tuple):
            return httpx2.Response(fate[1], json={"detail": "after"})
        if isinstance(body, bytes):
            return httpx2.Response(status, content=body)
        return httpx2.Response(status, json=body)

    @property
    def transport(self):
        return httpx2.MockTransport(self.handle)

    # The contract.

    def answer(self, request):  # noqa: PLR0912 (a line an endpoint)
        if request.headers.get("authorization") != "Bearer CANARY-key-0123456789":
            return 401, {"detail": "Unauthorized"}
        method, parts = request.method, request.url.path.strip("/").split("/")
        match [method, *parts[1:]]:
            case ["POST", "files"]:
                return 200, self.upload(request)
            case ["GET", "files"]:
                search = request.url.params.get("search", "")
                rows = [f for f in self.files.values() if search in f["filename"]]
                return 200, page(request, [public(f) for f in rows])
            case ["GET", "files", name]:
                return found(self.files.get(name))
            case ["GET", "files", name, "content"]:
                return 200, self.files[name]["content"]
            case ["DELETE", "files", name]:
                if self.files.pop(name, None) is None:
                    return 404, {"detail": "No file."}
                return 200, {"id": name, "object": "file", "deleted": True}
            case [_, "fine_tuning", "jobs", *_] if self.jobs_say:
                return self.jobs_say
            case ["POST", "fine_tuning", "jobs"]:
                return self.create(json.loads(request.content))
            case ["GET", "fine_tuning", "jobs"]:
                suffix = request.url.params.get("suffix")
                rows = [j for j in self.jobs.values() if suffix in (None, j["suffix"])]
                return 200, page(request, [{**j, "events": None} for j in rows])
            case ["GET", "fine_tuning", "jobs", name]:
                if name in self.jobs:
                    self.advance(self.jobs[name])
                return found(self.jobs.get(name), "No fine tuning job matches the given query.")
            case ["POST", "fine_tuning", "jobs", name, "start"]:
                return self.start(self.jobs[name])
            case ["POST", "fine_tuning", "jobs", name, "cancel"]:
                if self.jobs[name]["status"] in LIVE:
                    self.jobs[name]["status"] = "CANCELLED"
                return 200, self.jobs[name]
            case ["GET", "models"]:
                return 200, {"object": "list", "data": [*self.cards(), *self.models.values()]}
            case [_, "models", name]:
                return found(self.models.get(name), "No such model.")
            case [_, "fine_tuning", "models", name, *_]:
                return found(self.models.get(name), "No such model.")
            case ["POST", "chat", "completions"]:
                body = json.loads(request.content)
                text = body["messages"][-1]["content"]
                message = {"role": "assistant", "content": text}
                return 200, {"id": "c", "model": body["model"], "choices": [{"message": message}]}
        return 404, {"detail": "Not Found"}

    def cards(self):
        ability = {"completion_chat": True, "fine_tuning": self.offers}
        return [{"id": "open-mistral-nemo", "object": "model", "capabilities": ability}]

    def upload(self, request):
        kind = request.headers["content-type"].encode()
        whole = b"Content-Type: " + kind + b"\r\n\r\n" + request.content
        parts = email.message_from_bytes(whole, policy=email.policy.HTTP).iter_parts()
        fields = {p.get_param("name", header="content-disposition"): p for p in parts}
        content, name = fields["file"].get_payload(decode=True), fields["file"].get_filename()
        for known in self.files.values():
            if (known["filename"], known["content"]) == (name, content):
                return public(known)
        file = {"id": str(uuid.UUID(int=len(self.files) + 1)), "object": "file", "filename": name,
                "bytes": len(content), "created_at": int(self.wall()), "content": content,
                "purpose": fields["purpose"].get_content().strip(), "num_lines": content.count(b"\n"),
                "sample_type": "instruct", "source": "upload"}  # fmt: skip
        self.files[file["id"]] = file
        return public(file)

    def create(self, body):
        if self.create_says:
            return self.create_says
        assert body["auto_start"] is False
        files = [one["file_id"] for one in body["training_files"]]
        if not all(name in self.files for name in files):
            return 422, {"detail": [{"loc": ["body", "training_files"], "msg": "no such file"}]}
        same = [j for j in self.jobs.values() if j["status"] in LIVE and j["training_files"] == files
                and j["hyperparameters"] == body["hyperparameters"]]  # fmt: skip
        if same:
            return 409, {"detail": "A similar job exists."}
        job = {"id": str(uuid.UUID(int=1000 + len(self.jobs))), "object": "job", "status": "QUEUED",
               "model": body["model"], "suffix": body["suffix"], "job_type": body["job_type"],
               "created_at": int(self.wall()), "modified_at": int(self.wall()), "auto_start": False,
               "training_files": files, "validation_files": body.get("validation_files", []),
               "hyperparameters": body["hyperparameters"], "fine_tuned_model": None,
               "trained_tokens": None, "metadata": {"cost": 0.0, "cost_currency": None},
               "events": [], "checkpoints": []}  # fmt: skip
        self.jobs[job["id"]] = job
        return 200, job

    def start(self, job):
        if job["status"] != "VALIDATED":
            return 400, {"detail": f"The job is {job['status']}."}
        self.starts[job["id"]] += 1
        job["status"] = "STARTED"
        return 200, job

    def advance(self, job):
        """Let a job take one step each time that somebody looks at it."""
        steps = {"QUEUED": "VALIDATING", "VALIDATING": "VALIDATED", "STARTED": "RUNNING"}
        if job["status"] == "VALIDATING" and self.fails and self.fails[0] == "FAILED_VALIDATION":
            job["status"], job["events"] = self.fails
        elif job["status"] == "VALIDATING":
            job["metadata"] = {"cost": self.cost[0], "cost_currency": self.cost[1],
                               "train_tokens_per_step": 65536, "train_tokens": 131072}  # fmt: skip
            job["status"] = "VALIDATED"
        elif job["status"] == "RUNNING" and self.fails:
            job["status"], job["events"] = self.fails
        elif job["status"] == "RUNNING":
            name = f"ft:{job['model']}:{job['suffix']}:20261123:{job['id'][-8:]}"
            job["status"], job["fine_tuned_model"] = "SUCCESS", name
            job["trained_tokens"] = 131072
            job["checkpoints"] = [
                {"step_number": 10, "created_at": 2, "metrics": {
                    "train_loss": 1.5, "valid_loss": 1.0, "valid_mean_token_accuracy": 2.0}},
            ]  # fmt: skip
            self.models[name] = {"id": name, "object": "model", "type": "fine-tuned",
                                 "job": job["id"], "archived": False,
                                 "capabilities": {"completion_chat": True}}  # fmt: skip
        else:
            job["status"] = steps.get(job["status"], job["status"])

    # Over a real socket, for commands in processes of their own.

    def serve(self):
        service = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                size = int(self.headers.get("content-length") or 0)
                request = httpx2.Request(
                    self.command, f"http://here{self.path}", headers=dict(self.headers),
                    content=self.rfile.read(size),
                )  # fmt: skip
                try:
                    response = service.handle(request)
                except httpx2.TransportError:
                    self.connection.close()
                    return
                self.send_response(response.status_code)
                self.send_header("content-length", str(len(response.content)))
                self.end_headers()
                self.wfile.write(response.content)

            do_GET = do_POST = do_DELETE = do_PATCH = answer  # noqa: N815 (the library's names)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server, f"http://127.0.0.1:{server.server_port}"


def public(file):
    return {key: value for key, value in file.items() if key != "content"}


def found(thing, words="Not Found"):
    return (404, {"detail": words}) if thing is None else (200, public(thing))


def page(request, rows):
    size = int(request.url.params.get("page_size", 100))
    start = int(request.url.params.get("page", 0)) * size
    return {"data": rows[start : start + size], "object": "list", "total": len(rows)}


def digest(text):
    return hashlib.sha256(text).hexdigest()
