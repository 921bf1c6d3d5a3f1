"""Fixtures of the manifests' tests: each service's Deployment in each kustomization, rendered as a test asks for it."""

from itertools import product

import pytest

from tests.manifests.rendered import REPOSITORY, Workload, kustomizations, workload_of
from tests.manifests.services import SERVICES

_PAIRS = list(product(kustomizations(), SERVICES))


@pytest.fixture(params=_PAIRS, ids=[f"{folder.relative_to(REPOSITORY)}-{name}" for folder, name in _PAIRS])
def workload(request: pytest.FixtureRequest) -> Workload:
    folder, name = request.param
    return workload_of(folder, name)
