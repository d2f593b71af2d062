"""Keys: made, listed, revoked; limits with a time to come back; what each has used."""

import contextlib
import json
import sqlite3

import httpx2
import pytest

from finetune.server.keys import Gate, create_key, list_keys
from finetune.server.refusal import Refused
from finetune.server.store import Store
from tests.server.conftest import chats, upload


def test_only_a_key_that_holds_lets_in(client, server, finetune):
    assert client.get("/v1/models").status_code == 200
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eA=="}):
        reply = httpx2.get(f"{server.url}/v1/models", headers=headers, trust_env=False)
        assert (reply.status_code, reply.json()) == (401, {"detail": "Unauthorized"})

    with server.client("leaver") as leaver:
        assert leaver.get("/v1/models").status_code == 200
        done = finetune("serve", "keys", "revoke", "leaver", "--folder", server.folder, cwd=".")
        assert done.returncode == 0
        assert leaver.get("/v1/models").status_code == 401


def test_keys_are_kept_as_hashes(server, client):
    key = server.key().encode()
    upload(client, "hash.jsonl", chats(1))

    for path in server.folder.rglob("*"):
        assert not path.is_file() or key not in path.read_bytes(), path


def test_use_is_counted_by_key(serve, finetune, check_document):
    server = serve()
    server.key("counted", "--storage", "500")
    with server.client("counted") as client:
        upload(client, "counted.jsonl", chats(2))
        full = client.post(
            "/v1/files", files={"file": ("b.jsonl", b'{"text": "%s"}' % (b"x" * 400))}
        )
        assert full.status_code == 429
        assert int(full.headers["Retry-After"]) > 0
    server.stop()  # which writes what was counted

    done = finetune("serve", "keys", "list", "--folder", server.folder, "--json", cwd=".")
    document = json.loads(done.stdout)
    check_document("cli/serve", document)
    [found] = document["keys"]
    assert (found["name"], found["requests"]) == ("counted", 2)
    assert 0 < found["storage_bytes"] < 500


def test_a_limit_says_when_to_come_back(tmp_path):
    store, now = Store(tmp_path), [0.0]
    gate = Gate(store, clock=lambda: now[0])
    secret = create_key(store, "slow", requests_per_minute=2)

    def status():
        try:
            gate.admit(secret)
        except Refused as error:
            return error.status, int(error.headers["Retry-After"])
        return 200

    assert [status(), status()] == [200, 200]
    assert status() == (429, 30)
    now[0] += 30
    assert [status(), status()[0]] == [200, 429]
    now[0] += 600
    assert [status(), status(), status()[0]] == [200, 200, 429]
    gate.flush()
    assert list_keys(store)[0]["requests"] == 5


def test_tokens_are_limited_too(tmp_path):
    store, now = Store(tmp_path), [0.0]
    gate = Gate(store, clock=lambda: now[0])
    secret = create_key(store, "wordy", tokens_per_minute=60)

    gate.count(gate.admit(secret), tokens_in=50, tokens_out=40)
    try:
        gate.admit(secret)
    except Refused as error:
        assert (error.status, error.headers["Retry-After"]) == (429, "31")
    else:
        raise AssertionError("let in")
    now[0] += 31
    gate.admit(secret)


def test_use_that_could_not_be_written_is_written_the_next_time(tmp_path):
    store = Store(tmp_path)

    class Full:
        """A store whose disk is full for one write."""

        full = True
        find = store.find

        @contextlib.contextmanager
        def write(self):
            if self.full:
                raise sqlite3.OperationalError("database or disk is full")
            with store.write() as database:
                yield database

    full = Full()
    gate = Gate(full)
    key = gate.admit(create_key(store, "patient"))
    gate.count(key, tokens_in=3)
    with pytest.raises(sqlite3.OperationalError):
        gate.flush()
    gate.admit(create_key(store, "other"))
    full.full = False
    gate.flush()
    gate.flush()
    used = {found["name"]: (found["requests"], found["tokens_in"]) for found in list_keys(store)}
    assert used == {"patient": (1, 3), "other": (1, 0)}
