"""The app of `finetune serve` in this process, and what goes wrong between it and a client.

Files, jobs, keys and the database are the server's own. Its jobs end at once: what validation and a
training leave behind was made once, and is copied. Time passes for it where a test lets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import functools
import json
import shutil
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2

from finetune.backends.platform.access import Key, read_address
from finetune.backends.platform.api import Client
from finetune.backends.platform.jobs import make_body
from finetune.backends.platform.uploads import list_parts
from finetune.files import read_json, to_json
from finetune.recipe import load_recipe
from finetune.runs import Run
from finetune.server import app as server
from finetune.server import validation
from finetune.server.keys import create_key
from finetune.server.worker import Worker
from finetune.tokens.embedded import provide_tokenizer

MODEL = "open-mistral-nemo"
# What these are given: a folder of what was made once, then what the server puts behind a command.
_VALIDATOR = """
cp "$0/recipe.yaml" "$1"
[ -e verdict.json ] && found=verdict.json || found=$0/validation.json
cp "$found" "$1/new" && mv "$1/new" "$1/validation.json"
"""
_TRAINER = """
echo "${3##*/}" >> trained.log
while [ -e hold ]; do sleep 0.05; done
cp -r "$0" "$3.new" && mv "$3.new" "$3"
"""


class Site:
    """What all services of a session share: a model without weights, a verdict, a training.

    Args:
        folder: Where it is made.
        recipe: Whose job is validated once, by the server's own validation.
        dataset: The data of that job.
    """

    def __init__(self, folder, recipe, dataset):
        self.model, self.verdict, self.run = (folder / n for n in ("model", "verdict", "run"))
        shutil.copytree(provide_tokenizer(), self.model)
        config = {"model_type": "mistral", "max_position_embeddings": 4096}
        (self.model / "config.json").write_text(json.dumps(config))
        self.verdict.mkdir()
        self.tokens, self.app = 0, None
        first = Service(self, folder / "first")
        job = first.order(recipe, dataset)
        validation.main(first.server.jobs.folder(job))
        for name in ("recipe.yaml", "validation.json"):
            shutil.copy(first.server.jobs.folder(job) / name, self.verdict)
        facts = read_json(self.verdict / "validation.json")
        assert not facts["faults"], facts
        self.tokens = facts["steps"] * round(facts["tokens_seen"] / facts["steps"])
        made = Run.create(
            self.run, load_recipe(self.verdict / "recipe.yaml"), identity="0" * 16,
            dataset=dataset.folder, dataset_digest=dataset.digest,
        )  # fmt: skip
        for step in range(1, facts["steps"] + 1):
            loss = 1 + 1 / step
            made.metric(step=step, epoch=1, tokens=10 * step, loss=loss, validation_loss=1.0)
        made.adapter.mkdir()
        made.set_state("done")


class Service:
    """One server and its folder.

    `fate(method, path, count)` may return the name of what happens to a request: `lose` (it never
    arrives), `kill` (the server is killed before it is heard, and started again), `drop` (it is
    done, the reply is lost), `half` (done, half a reply), an HTTP status (refused without being
    done), `("after", status)` (done, but that status comes back), or a function of the reply.

    Args:
        site: What it shares with others.
        folder: Its folder.
        fate: See above.
        cost: What the job of the site's recipe costs there.
        refuse: As `finetune serve --refuse`.

    Attributes:
        key: A key of it.
        requests: What came: method, path, authorization, content.
        calls: How often a method and path came.
    """

    def __init__(self, site, folder, fate=None, *, cost=(8.2, "EUR"), refuse=None):
        folder.mkdir(parents=True)
        self.site, self.folder, self.fate = site, folder, fate or (lambda *_: None)
        self.calls, self.requests = Counter(), []
        price = cost[0] * 1e6 / site.tokens if site.tokens else 0.0
        names = {
            name: {"model": str(site.model), "price": price, "currency": cost[1]}
            for name in (MODEL, "mistral-nemo", "codestral-latest")
        }
        (folder / "names.yaml").write_text(json.dumps(names))
        self.settings = server.Settings(
            folder, folder / "names.yaml", refuse=refuse,
            trainer=("sh", "-c", _TRAINER, str(site.run)),
            validator=("sh", "-c", _VALIDATOR, str(site.verdict)),
        )  # fmt: skip
        self.server = server.Service(self.settings)
        self.key = create_key(self.server.store, "tests")

    def client(self, **options):
        """Return a client with the key, of a host that is Mistral's by its name."""
        address = read_address("api.mistral.ai")
        return Client(address, Key(self.key), transport=self.transport, **options)

    @property
    def transport(self):
        return httpx2.MockTransport(self.handle)

    def handle(self, request):
        """Answer a request as its fate will have it."""
        content, path = request.read(), request.url.path
        name = path.split("/")[-1] if path.endswith(("start", "cancel")) else path
        self.calls[request.method, name] += 1
        key = request.headers.get("authorization")
        self.requests.append((request.method, path, key, content))
        fate = self.fate(request.method, path, self.calls[request.method, name])
        if fate == "lose":
            raise httpx2.ConnectError("refused")
        if fate == "kill":
            self.server = server.Service(self.settings)
            raise httpx2.ReadError("reset")
        if isinstance(fate, int):
            return httpx2.Response(fate, json={"detail": f"told to answer {fate}"})
        reply = _repeat(content) if path.endswith("/completions") else self._answer(request)
        if fate == "drop":
            raise httpx2.ReadError("reset")
        if fate == "half":
            return httpx2.Response(200, content=reply.content[:-2])
        if isinstance(fate, tuple):
            return httpx2.Response(fate[1], json={"detail": "after"})
        return fate(reply) if callable(fate) else reply

    def _answer(self, request):
        app = self.site.app = self.site.app or server.create_app(self.server)  # for all of them
        app.state.service = self.server
        return asyncio.run_coroutine_threadsafe(_ask(app, request), _loop()).result()

    # Its work.

    def step(self):
        """Let it look at its jobs, and their workers end."""
        self.server.supervisor.step()
        for job in self.server.jobs.live():
            for kind in ("validate", "train"):
                Worker(self.server.jobs.folder(str(job.id)), kind).wait()

    def order(self, recipe, dataset, **changes):
        """Make a job as somebody else would, and return its id."""
        with contextlib.closing(self.client()) as client:
            parts = list_parts(dataset)
            files = [client.upload(part.name, part.size, part.open).id for part in parts]
            return client.create_job(make_body(recipe, parts, files, "other") | changes).id

    def find(self, verdict):
        """Let validation find this from now on."""
        (self.folder / "verdict.json").write_bytes(to_json(verdict))

    def hold(self):
        """Let no training end until `release`."""
        (self.folder / "hold").touch()

    def release(self):
        (self.folder / "hold").unlink()

    def refuse(self, how):
        """Say no from now on, as `finetune serve --refuse`."""
        self.settings = self.settings._replace(refuse=how)
        self.server = server.Service(self.settings)

    # What became of it.

    @property
    def trained(self):
        """The jobs that were trained, once for each time."""
        log = self.folder / "trained.log"
        return log.read_text().split() if log.is_file() else []

    @property
    def jobs(self):
        """Its jobs by id."""
        rows = self.server.store.read("SELECT id, document FROM job ORDER BY rowid")
        return {row["id"]: json.loads(row["document"]) for row in rows}

    @property
    def files(self):
        """The contents of its files by id."""
        rows = self.server.store.read("SELECT id FROM file ORDER BY rowid")
        return {row["id"]: self.server.files.path(row["id"]).read_bytes() for row in rows}

    # Over a real socket, for commands in processes of their own.

    @contextlib.contextmanager
    def serve(self):
        """Give the address of a port where it answers, and works by itself."""
        over = threading.Event()

        def work():
            while not over.wait(0.05):
                self.server.supervisor.step()

        listener = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, self))
        threads = [threading.Thread(target=one) for one in (work, listener.serve_forever)]
        for thread in threads:
            thread.start()
        try:
            yield f"http://127.0.0.1:{listener.server_port}"
        finally:
            over.set()
            listener.shutdown()
            for thread in threads:
                thread.join()
            listener.server_close()
            self.server.supervisor.stop()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, service, *arguments):
        self.service = service
        super().__init__(*arguments)

    def answer(self):
        size = int(self.headers.get("content-length") or 0)
        url = f"http://{self.headers['host']}{self.path}"
        content = self.rfile.read(size)
        request = httpx2.Request(self.command, url, headers=dict(self.headers), content=content)
        try:
            reply = self.service.handle(request)
        except httpx2.TransportError:
            self.connection.close()
            return
        self.send_response(reply.status_code)
        self.send_header("content-length", str(len(reply.content)))
        self.end_headers()
        self.wfile.write(reply.content)

    do_GET = do_POST = do_DELETE = do_PATCH = answer  # noqa: N815 (the library's names)

    def log_message(self, *_):
        pass


async def _ask(app, request):
    content = {"content": request.content} if request.content else {}
    asked = httpx2.Request(request.method, request.url, headers=request.headers, **content)
    reply = await httpx2.ASGITransport(app).handle_async_request(asked)
    headers = {"date": email.utils.formatdate(usegmt=True), **reply.headers}
    return httpx2.Response(reply.status_code, headers=headers, content=await reply.aread())


def _repeat(content):
    """Return what a model says that repeats what it is told: none has weights here."""
    asked = json.loads(content)
    message = {"role": "assistant", "content": asked["messages"][-1]["content"]}
    return httpx2.Response(200, json={"id": "a", "choices": [{"message": message}]})


@functools.cache
def _loop():
    """Return the event loop in which the apps run, in a thread of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop
