"""The dashboards: valid, provisioned, and of metrics that are served."""

import json
import re
from pathlib import Path

import pytest
import yaml

from daemon.publish.metrics import Metrics
from tests.daemon.test_health_and_metrics import STATUS

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))


def test_the_four_are_there_and_provisioned():
    assert [path.stem for path in DASHBOARDS] == ["quartet-learner", "quartet-process", "quartet-risk", "quartet-trading"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "quartet.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_asks_for_what_is_served_and_overlaps_none(path):
    served = set(re.findall(r"^(?:# TYPE )?(quartet_\w+)", Metrics(lambda: STATUS).render().decode(), re.MULTILINE))
    source = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"][0]["uid"]
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(path.read_text())["panels"]:
        asked = {name for target in panel["targets"] for name in re.findall(r"quartet_\w+", target["expr"])}
        assert asked - served == set(), panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {source}
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
