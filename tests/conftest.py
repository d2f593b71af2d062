"""Fixtures that several rooms share."""

import fcntl

import pytest


@pytest.fixture(scope="session")
def embedded_model(tmp_path_factory):
    """The folder of the embedded model in the user's cache, built once for all workers."""
    from finetune.backends.local.embedded import provide_model

    lock = tmp_path_factory.getbasetemp().parent / "embedded-model.lock"
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return provide_model()
