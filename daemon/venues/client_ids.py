"""Our client order ids in the spelling that an exchange takes: shorter alphabets, prefixes, UUIDs. Bijective and pure.

Inside the house an id is always `q-<instance>-<epoch>-<decision>-<leg>`; only the borders to an exchange spell.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agents.core.orders import base36

_OURS = re.compile(r"q-([a-z0-9]{1,8})-(0|[1-9a-z][0-9a-z]*)-(0|[1-9a-z][0-9a-z]*)-(0|[1-9a-z][0-9a-z]*)")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_MARK = 0b110001
"""Six bits that open a UUID of ours; then 42 for the name, 24 for the epoch, 44 for the decision and 12 for the leg."""
_NAME, _EPOCH, _DECISION, _LEG = 1 << 42, 1 << 24, 1 << 44, 1 << 12


class Unspellable(ValueError):
    """This id does not fit into what the exchange takes."""


@dataclass(frozen=True, slots=True)
class IdRule:
    """One spelling: its name, the longest text that it makes, and the two ways."""

    name: str
    max_length: int
    alphabet: str
    """A regular expression's character class."""
    _spell: Callable[[str], str]
    _unspell: Callable[[str], str | None]

    def spell(self, order_id: str) -> str:
        """The text to send. Raises Unspellable when it would break the exchange's rules."""
        text = self._spell(order_id)
        if len(text) > self.max_length or not re.fullmatch(f"{self.alphabet}+", text):
            raise Unspellable(f"client order id {order_id!r} cannot be spelled for this exchange as {self.name}")
        return text

    def unspell(self, text: str) -> str:
        """The id that a text stands for; a text that is not ours comes back as it is."""
        return self._unspell(text) or text


def _as_it_is(text: str) -> str | None:
    return text if _OURS.fullmatch(text) else None


def _letters(order_id: str) -> str:
    _parts(order_id)
    return order_id.replace("-", "Z")  # our ids have no capitals of their own


def _of_letters(text: str) -> str | None:
    return None if "-" in text else _as_it_is(text.replace("Z", "-"))


def _of_prefixed(text: str) -> str | None:
    return _as_it_is(text.removeprefix("t-"))


def _uuid(order_id: str) -> str:
    name, *numbers = _parts(order_id)
    epoch, decision, leg = (int(number, 36) for number in numbers)
    if epoch >= _EPOCH or decision >= _DECISION or leg >= _LEG:
        raise Unspellable(f"client order id {order_id!r} does not fit into a UUID: epoch, decision or leg is too large")
    number = (((_MARK * _NAME + _number(name)) * _EPOCH + epoch) * _DECISION + decision) * _LEG + leg
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _of_uuid(text: str) -> str | None:
    digits = text.replace("-", "")
    if not re.fullmatch(r"[0-9a-f]{32}", digits):
        return None
    number, leg = divmod(int(digits, 16), _LEG)
    number, decision = divmod(number, _DECISION)
    number, epoch = divmod(number, _EPOCH)
    mark, name = divmod(number, _NAME)
    if mark != _MARK or not 1 <= len(_name(name)) <= 8:
        return None
    return f"q-{_name(name)}-{base36(epoch)}-{base36(decision)}-{base36(leg)}"


def _parts(order_id: str) -> tuple[str, ...]:
    found = _OURS.fullmatch(order_id)
    if found is None:
        raise Unspellable(f"{order_id!r} is no client order id of ours")
    return found.groups()


def _number(name: str) -> int:
    """Bijective base 36, so that `a` and `0a` are two numbers."""
    number = 0
    for letter in name:
        number = number * 36 + _DIGITS.index(letter) + 1
    return number


def _name(number: int) -> str:
    text = ""
    while number > 0:
        number, digit = divmod(number - 1, 36)
        text = _DIGITS[digit] + text
    return text


_DASHED = "[A-Za-z0-9_-]"


def _plain(length: int) -> IdRule:
    return IdRule(f"plain{length}", length, _DASHED, str, _as_it_is)


PLAIN = _plain(36)
"""As it is: what most exchanges take."""
NAMED = {
    rule.name: rule
    for rule in (
        PLAIN, _plain(32), _plain(40),
        IdRule("letters32", 32, "[A-Za-z0-9]", _letters, _of_letters),
        IdRule("t-28", 28, _DASHED, str, _of_prefixed),
        IdRule("uuid", 36, "[0-9a-f-]", _uuid, _of_uuid),
    )
}  # fmt: skip
"""Every spelling, by the name that settings and tables use. The prefix of `t-28` is put on by ccxt and taken off here."""


def teach(exchange: Any, rule: IdRule) -> None:
    """Have a ccxt object speak the exchange's spelling outward and ours inward, wherever it reads or names an order.

    Every order that ccxt parses, from REST or a stream, goes through its `safe_order`; every call that names an order takes
    `clientOrderId` among its parameters.
    """
    if rule.name.startswith("plain"):
        return
    safe_order = exchange.safe_order

    def understood(order: Any, market: Any = None) -> Any:
        found = safe_order(order, market)
        if found.get("clientOrderId"):
            found["clientOrderId"] = rule.unspell(str(found["clientOrderId"]))
        return found

    exchange.safe_order = understood
    for name in ("create_order", "create_order_ws", "cancel_order", "cancel_order_ws", "fetch_order"):
        if (method := getattr(exchange, name, None)) is not None:
            setattr(exchange, name, _spelling(method, rule))


def _spelling(method: Callable[..., Any], rule: IdRule) -> Callable[..., Any]:
    def spelled(given: Any) -> Any:
        if not isinstance(given, dict) or not given.get("clientOrderId"):
            return given
        return {**given, "clientOrderId": rule.spell(rule.unspell(str(given["clientOrderId"])))}

    async def call(*arguments: Any, **named: Any) -> Any:
        return await method(*(spelled(value) for value in arguments), **{name: spelled(value) for name, value in named.items()})

    return call
