"""SIGKILL under load: nothing acknowledged is lost, nothing is trained twice."""

import pytest

from tests.server.killing import Load, check_each_was_trained_once, check_nothing_is_lost


@pytest.mark.heavy
def test_a_server_that_is_killed_under_load_loses_nothing(serve):
    """Three kills; `benchmarks/serve.py kills` makes a hundred at random moments."""
    server = serve("--workers", "2")
    with Load(server) as load:
        for count, jobs in ((1, 0), (6, 0), (14, 1)):
            load.wait_for(count, jobs=jobs)
            server.kill()
            server.start()
    check_nothing_is_lost(load)
    check_each_was_trained_once(load)
