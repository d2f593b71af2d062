"""The server's memory: a write is there as a whole, or not at all, and the next one is free."""

import sqlite3

import pytest

from finetune.errors import RunError, UsageError
from finetune.server.running import listen, open_settings
from finetune.server.store import Store


def test_a_write_that_fails_leaves_nothing_and_lets_the_next_one_be(tmp_path):
    store = Store(tmp_path)
    store.read("PRAGMA foreign_keys = ON")
    with store.write() as database:
        database.execute("CREATE TABLE one (id INTEGER PRIMARY KEY)")
        deferred = "one INTEGER REFERENCES one DEFERRABLE INITIALLY DEFERRED"
        database.execute(f"CREATE TABLE many ({deferred})")

    with pytest.raises(sqlite3.IntegrityError), store.write() as database:
        database.execute("INSERT INTO many VALUES (1)")  # found out at the end
    with pytest.raises(ValueError, match="ours"), store.write() as database:
        database.execute("INSERT INTO one VALUES (1)")
        database.execute("ROLLBACK")  # as SQLite does by itself where the disk is full
        raise ValueError("ours")
    with store.write() as database:
        database.execute("INSERT INTO one VALUES (2)")
    assert [row["id"] for row in store.read("SELECT id FROM one")] == [2]
    assert store.read("SELECT * FROM many") == []


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path):
    (tmp_path / "server.sqlite3").write_text("not a database, but long enough to be looked at")
    with pytest.raises(RunError, match=r"server.sqlite3: can't be used: file is not a database"):
        Store(tmp_path)


@pytest.mark.parametrize(
    ("host", "fact", "hint"),
    [("127.0.0.1", "already in use", "--port 0"), ("192.0.2.1", "cannot assign", "--host")],
)
def test_an_address_that_cannot_be_had_is_said_with_the_way_on(host, fact, hint):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=fact) as caught, listen(host, port):
            pass
    assert "attempting" not in caught.value.message
    assert hint in caught.value.hint


def test_a_trainer_that_is_no_command_is_refused(tmp_path):
    options = {"models": None, "aliases": {}, "workers": 1, "share": True, "refuse": None}
    with pytest.raises(UsageError, match="--trainer: no closing quotation"):
        open_settings(tmp_path, trainer="srun 'a", **options)
