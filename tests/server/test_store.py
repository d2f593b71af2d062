"""The server's memory: a write is there as a whole, or not at all, and the next one is free."""

import sqlite3

import pytest

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
