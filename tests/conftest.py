"""What holds for every test: Hypothesis judges results, not the speed of a machine that other work may share; and a test that sets up
logging, as every command does, sets it up for itself alone."""

import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

settings.register_profile("quartet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quartet")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    if structlog.is_configured():
        structlog.reset_defaults()
        root.handlers[:], root.level = handlers, level
        logging.captureWarnings(False)
