"""A prepared dataset and a fresh run of it."""

import pytest

from tests.backends.platform import simulation


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A recipe for the platform, and its dataset."""
    return simulation.make_dataset(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def run(prepared, tmp_path):
    return simulation.make_run(tmp_path / "run", *prepared)


@pytest.fixture(scope="session")
def steps(prepared, tmp_path_factory):
    """The steps that an unbroken submission takes."""
    return simulation.list_steps(tmp_path_factory.mktemp("unbroken") / "run", *prepared)
