"""The alerts: promtool's own checks and unit tests, metrics that exist, and a runbook chapter for each."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from daemon.publish.metrics import Metrics
from tests.daemon.test_health_and_metrics import STATUS

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def promtool(*arguments: str) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.fail("promtool is not installed: `make test` installs it where it may, else install Debian's prometheus")
    done = subprocess.run([program, *arguments], cwd=RULES.parent, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_rules_and_their_tests_pass():
    promtool("check", "rules", "rules.yml")
    promtool("check", "config", "--syntax-only", "prometheus.yml")
    promtool("test", "rules", "rules_test.yml")


def test_every_metric_that_an_alert_watches_is_served():
    served = set(re.findall(r"^(?:# TYPE )?(quartet_\w+)", Metrics(lambda: STATUS).render().decode(), re.MULTILINE))
    watched = {name for rule in ALERTS for name in re.findall(r"quartet_\w+", rule["expr"])}
    assert watched - served == set()


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_has_a_chapter(rule):
    page = (ROOT / "docs" / "operations.md").read_text()
    chapter = rule["annotations"]["runbook"]
    assert chapter == f"docs/operations.md#{rule['alert'].lower()}"
    assert f"### {rule['alert']}\n" in page
