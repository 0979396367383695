"""Reads the configuration again and applies what may change while running; the rest is refused by name, and nothing of it is half applied."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import structlog

from agents.core.errors import ConfigError, TradingError
from agents.core.events import UNSTAMPED, Event, Reload
from agents.desk.limits import Limits
from daemon import logs
from daemon.service import Service
from daemon.settings import Settings

log = structlog.get_logger()

MAY_CHANGE = ("risk.", "log.level", "http.max_data_age_s", "http.max_decision_age_s", "http.max_reconcile_age_s")
"""Dotted names, or their beginnings, of what a running session can take over."""


class Reloader:
    """Answers `reload`. `settings` are those in force; `limits` makes the risk layer's numbers of settings."""

    def __init__(
        self, settings: Settings, reread: Callable[[], Settings], push: Callable[[Event], None], limits: Callable[[Settings], Limits], service: Service
    ) -> None:
        self.settings = settings
        self._reread, self._push, self._limits, self._service = reread, push, limits, service

    def reload(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What was applied and what was refused, by dotted name. Raises TradingError, and changes nothing, where it cannot be read."""
        self._service.reloading()
        try:
            wanted = self._reread()
            changed = differing(self.settings.public(), wanted.public())
            applied = [name for name in changed if name.startswith(MAY_CHANGE)]
            refused = [name for name in changed if name not in applied]
            merged = _take_over(self.settings, wanted, applied)
            limits = self._limits(merged)
        except ConfigError as error:
            log.error("reload_failed", error=str(error))
            raise TradingError(f"not reloaded, the old configuration stays in force: {error}") from error
        finally:
            self._service.reloaded()
        if any(name.startswith("risk.") for name in applied):
            self._push(Reload(UNSTAMPED, str(request.get("reason", "operator")), json.dumps(asdict(limits))))
        if "log.level" in applied:
            logs.configure(merged.log.level, merged.log.format, merged.secrets())
        self.settings = merged
        log.info("reloaded", applied=applied, refused=refused)
        return {"accepted": "reload", "applied": applied, "refused": refused, **({"note": "refused ones need a restart"} if refused else {})}

    def on_hangup(self) -> None:
        """SIGHUP: nobody waits for an answer, and the log says why nothing was applied."""
        with suppress(TradingError):
            self.reload({"reason": "SIGHUP"})


def differing(old: Mapping[str, Any], new: Mapping[str, Any], above: str = "") -> list[str]:
    """Dotted names of the leaves that differ, in the new tree's order."""
    names: list[str] = []
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            names += differing(before, after, f"{above}{key}.")
        elif before != after:
            names.append(f"{above}{key}")
    return names


def _take_over(old: Settings, new: Settings, names: list[str]) -> Settings:
    sections: dict[str, dict[str, Any]] = {}
    for name in names:
        section, key = name.split(".")[:2]
        sections.setdefault(section, {})[key] = getattr(getattr(new, section), key)
    return old.model_copy(update={section: getattr(old, section).model_copy(update=values) for section, values in sections.items()})
