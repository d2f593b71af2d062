"""A server under load that is killed again and again, and what must have outlived it."""

import contextlib
import itertools
import json
import sqlite3
import threading
import time

import httpx2

from tests.server.conftest import PATIENCE, chats


class Load:
    """Clients that upload, make jobs and poll, and write down what was acknowledged.

    Args:
        server: A `Running`.
    """

    def __init__(self, server):
        self.server = server
        self.files, self.jobs = {}, []
        self.acknowledged = 0
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._stop = False
        self._threads = [threading.Thread(target=self._work) for _ in range(3)]

    def __enter__(self):
        self.server.key()  # before anything is killed
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop = True
        for thread in self._threads:
            thread.join()

    def wait_for(self, count, *, jobs=0):
        """Return when so many calls were acknowledged in all, and so many jobs among them."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: self.acknowledged >= count and len(self.jobs) >= jobs, PATIENCE
            )

    def _work(self):
        while not self._stop:
            with contextlib.suppress(httpx2.HTTPError), self.server.client() as client:
                while not self._stop:
                    self._once(client, next(self._numbers))
            time.sleep(0.2)  # it is down: leave it the processor

    def _once(self, client, number):
        rows = [json.dumps(row) for row in chats(12, number * 100)]
        content = "\n".join(rows).encode()
        files = {"file": (f"load-{number}.jsonl", content)}
        reply = client.post("/v1/files", files=files, data={"purpose": "fine-tune"})
        file = reply.json()["id"]
        self._note(self.files.__setitem__, file, content)
        if number % 8 == 0 and len(self.jobs) < 40:
            body = {
                "model": "small",
                "training_files": [{"file_id": file}],
                "hyperparameters": {"training_steps": 5},
                "auto_start": True,
            }
            job = client.post("/v1/fine_tuning/jobs", json=body).json()["id"]
            self._note(self.jobs.append, job)
        client.get("/v1/fine_tuning/jobs").json()
        time.sleep(0.02)

    def _note(self, what, *values):
        with self._changed:
            what(*values)
            self.acknowledged += 1
            self._changed.notify_all()


def check_nothing_is_lost(load):
    """Check that what was acknowledged is there, and the database is consistent."""
    files, jobs = dict(load.files), list(load.jobs)
    with load.server.client() as client:  # with the key from before the kill
        for file, content in files.items():
            assert client.get(f"/v1/files/{file}/content").content == content
        for job in jobs:
            assert client.get(f"/v1/fine_tuning/jobs/{job}").status_code == 200
    database = sqlite3.connect(load.server.folder / "server.sqlite3")
    with contextlib.closing(database):
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        kept = {row[0] for row in database.execute("SELECT id FROM file")}
    assert kept >= files.keys()


def check_each_was_trained_once(load):
    """Wait until every acknowledged job has ended well, and count how often it was trained."""
    end = time.monotonic() + PATIENCE * 10
    with load.server.client() as client:
        for job in load.jobs:
            while True:
                found = client.get(f"/v1/fine_tuning/jobs/{job}").json()
                if found["status"] == "SUCCESS":
                    break
                assert time.monotonic() < end, found["status"]
                assert not found["status"].startswith(("FAILED", "CANCELLED")), found["events"]
                time.sleep(0.2)
    trained = (load.server.folder / "trained.log").read_text().split()
    counts = {job: trained.count(job) for job in load.jobs}
    assert set(counts.values()) <= {1}, counts
