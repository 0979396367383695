"""What holds for every test: Hypothesis judges results, not the speed of a machine that other work may share."""

from hypothesis import HealthCheck, settings

settings.register_profile("quartet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quartet")
