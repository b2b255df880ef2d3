import sys, pathlib
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import pytest
from api import Client
from harness import Stack


@pytest.fixture(scope="session")
def stack():
    """One whole system for the tests that leave it as it was."""
    s = Stack(workers=1).start()
    yield s
    s.stop()


@pytest.fixture
def own_stack():
    """Makes systems that a test may break: own_stack(workers=2, env={…})."""
    made = []

    def make(start=True, **kw):
        s = Stack(**kw)
        made.append(s)
        return s.start() if start else s
    yield make
    for s in made:
        s.stop()


@pytest.fixture
def alice(stack):
    return Client(stack).register()


@pytest.fixture
def mallory(stack):
    """Somebody else, who must see nothing of alice's."""
    return Client(stack).register()
