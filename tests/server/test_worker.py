"""Workers are counted by their ends, whatever their servers live to see."""

import socket
import sys

import pytest

from finetune.server.running import listen
from finetune.server.worker import Worker


@pytest.fixture
def worker(tmp_path):
    return Worker(tmp_path, "validate")


def end_one(worker):
    assert worker.start([sys.executable, "-c", ""], cwd=worker.log.parent)
    worker.wait()


def test_a_death_is_counted_once_however_often_it_is_looked_at(worker):
    assert worker.count_deaths(0) == 0  # none was started: its server was killed before
    end_one(worker)
    assert [worker.count_deaths(0) for _ in range(3)] == [1, 1, 1]
    end_one(worker)
    assert worker.count_deaths(0) == 2


def test_progress_and_a_stop_begin_the_count_anew(worker):
    for _ in range(2):
        end_one(worker)
        deaths = worker.count_deaths(0)
    assert deaths == 2
    end_one(worker)
    assert worker.count_deaths(500) == 1
    worker.forgive_deaths()
    end_one(worker)
    assert worker.count_deaths(500) == 1


def test_an_answer_leaves_at_once_over_a_connection_that_is_kept():
    """Its second packet does not wait for the acknowledgement of the first."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
