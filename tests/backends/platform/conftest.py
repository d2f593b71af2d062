"""A prepared dataset, a service that trains it in no time, and a fresh run of it."""

import pytest

from tests.backends.platform import simulation
from tests.backends.platform.service import Service, Site


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A recipe for the platform, and its dataset."""
    return simulation.make_dataset(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="session")
def site(tmp_path_factory, prepared):
    """What all services share."""
    return Site(tmp_path_factory.mktemp("site"), *prepared)


@pytest.fixture
def serve(site, tmp_path):
    """Make services: `serve(fate, cost=…, refuse=…)`."""
    return lambda *fate, **options: Service(site, tmp_path / "server", *fate, **options)


@pytest.fixture
def service(serve):
    return serve()


@pytest.fixture
def run(prepared, tmp_path):
    return simulation.make_run(tmp_path / "run", *prepared)


@pytest.fixture(scope="session")
def steps(prepared, site, tmp_path_factory):
    """The steps that an unbroken submission takes."""
    return simulation.list_steps(tmp_path_factory.mktemp("unbroken"), *prepared, site)
