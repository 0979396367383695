"""What explaining asks of a journal and a tape beside what replay and recovery do: one decision, one order, one moment."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from agents.core.codec import decode
from agents.core.errors import DataError
from agents.core.events import BookSnapshot, Event, NewWeights, Quote
from agents.core.orders import Amend, Cancel, Command, Place
from daemon.journal import JournalReader
from daemon.segments import lines, segments_of

_ORDER_KINDS = "('OrderUpdate', 'Adopted')"


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision as it was recorded; `seq` is the fact that it followed, `at` that fact's stamp (ns UTC)."""

    epoch: int
    number: int
    seq: int
    at: int
    record: dict[str, Any]


class Archive(JournalReader):
    """A journal that can be asked for single things. All questions take time in proportion to what they answer, but the marked ones."""

    def decision(self, epoch: int, number: int) -> Decided | None:
        """One decision by its number."""
        return self._decided("WHERE epoch = ? AND number = ?", (epoch, number))

    def decision_at(self, epoch: int, seq: int) -> Decided | None:
        """The decision that followed fact `seq`."""
        return self._decided("WHERE epoch = ? AND seq = ?", (epoch, seq))

    def wished_before(self, epoch: int, number: int, agent: str) -> Decided | None:
        """The newest decision before `number` in which `agent` spoke; looks back until it finds one."""
        where = "WHERE epoch = ? AND number < ? AND instr(body, ?) ORDER BY number DESC LIMIT 1"
        return self._decided(where, (epoch, number, f'"agent":"{agent}"'))

    def _decided(self, where: str, values: Sequence[object]) -> Decided | None:
        for epoch, number, seq, at, body in self._rows(f"SELECT epoch, number, seq, at, body FROM decisions {where}", values):
            return Decided(epoch, number, seq, at, self._json(body))
        return None

    def numbers(self, epoch: int) -> tuple[int, int]:
        """First and last decision of a session; (0, 0) where it made none."""
        query = "SELECT coalesce(min(number), 0), coalesce(max(number), 0) FROM decisions WHERE epoch = ?"
        return next((int(first), int(last)) for first, last in self._rows(query, (epoch,)))

    def commands_at(self, epoch: int, seq: int) -> list[Command]:
        """What was asked for after fact `seq`, by leg."""
        rows = self._rows("SELECT body FROM commands WHERE epoch = ? AND seq = ? ORDER BY leg", (epoch, seq))
        return [self._decode(body) for (body,) in rows]

    def commands_on(self, order_id: str) -> list[tuple[int, int, Command]]:
        """(session, fact, command) of everything that was asked of one order."""
        rows = self._rows("SELECT epoch, seq, body FROM commands WHERE order_id = ? ORDER BY epoch, seq, leg", (order_id,))
        return [(epoch, seq, self._decode(body)) for epoch, seq, body in rows]

    def made_by(self, order_id: str) -> tuple[int, int] | None:
        """(session, fact) of the command that made an order, also of one that an amendment made."""
        for epoch, seq, command in self.commands_on(order_id):
            if isinstance(command, Place):
                return epoch, seq
        query = "SELECT epoch, seq, body FROM commands WHERE instr(body, ?)"  # looks at every command; amendments are rare
        for epoch, seq, body in self._rows(query, (f'"{order_id}"',)):
            command = self._decode(body)
            if isinstance(command, Amend) and command.new_order_id == order_id:
                return epoch, seq
        return None

    def called(self, venue_order_id: str) -> str | None:
        """Our id of the newest order that the exchange calls so; looks at every order update."""
        where = f"WHERE kind IN {_ORDER_KINDS} AND instr(body, ?) ORDER BY epoch DESC, seq DESC"
        for (body,) in self._rows(f"SELECT body FROM facts {where}", (f'"{venue_order_id}"',)):
            event = self._decode(body)
            if event.venue_order_id == venue_order_id:
                return str(event.place.order_id if hasattr(event, "place") else event.order_id)
        return None

    def names(self, most: int = 5000) -> list[str]:
        """The newest orders' ids, ours and the exchange's."""
        ours = self._rows("SELECT order_id FROM commands ORDER BY epoch DESC, seq DESC LIMIT ?", (most,))
        found = {str(name) for (name,) in ours}
        query = f"SELECT body FROM facts WHERE kind IN {_ORDER_KINDS} ORDER BY epoch DESC, seq DESC LIMIT ?"
        found.update(self._decode(body).venue_order_id for (body,) in self._rows(query, (most,)))
        return sorted(found - {""})

    def lesson(self, epoch: int, agent: str, time: int) -> dict[str, Any] | None:
        """What the decision of `agent` at market time `time` was worth: version, elapsed (in cadences), rewards by symbol."""
        if self.schema < 2:
            return None
        query = "SELECT version, body FROM lessons WHERE epoch = ? AND agent = ? AND time = ?"
        for version, body in self._rows(query, (epoch, agent, time)):
            return {"version": version, **self._json(body)}
        return None

    def operator_before(self, epoch: int, seq: int) -> Event | None:
        """The operator's newest word up to fact `seq`."""
        query = (
            "SELECT body FROM facts WHERE epoch = ? AND kind IN ('Halt', 'Flatten', 'Resume', 'CancelAll') AND seq <= ? "
            "ORDER BY seq DESC LIMIT 1"
        )
        for (body,) in self._rows(query, (epoch, seq)):
            event: Event = self._decode(body)
            return event
        return None

    def weights_after(self, epoch: int, seq: int) -> list[NewWeights]:
        """Weights that came in after fact `seq`, without their bytes."""
        query = "SELECT body FROM facts WHERE epoch = ? AND kind = 'NewWeights' AND seq > ? ORDER BY seq"
        return [self._decode(body) for (body,) in self._rows(query, (epoch, seq))]

    def books_at(self, session: str, seq: int, symbols: Iterable[str]) -> dict[str, Quote | BookSnapshot]:
        """The newest book of each symbol up to fact `seq`, from the tape. What the tape does not hold is left out."""
        wanted, found = set(symbols), dict[str, Quote | BookSnapshot]()
        segments = segments_of(self._folder / "tape" / session)
        starts = [int(path.name.split(".")[0]) for path in segments]
        # A segment is named after the last fact of its first write: what precedes that fact may stand in it as well.
        last = next((number for number, start in enumerate(starts) if start > seq), len(starts) - 1)
        for segment in reversed(segments[: last + 1]):
            for symbol, line in _last_books(segment, seq).items():
                if symbol in wanted and symbol not in found:
                    found[symbol] = _book(segment, line)
            if found.keys() >= wanted:
                break
        return found


def _last_books(segment: Path, seq: int) -> dict[str, bytes]:
    """The last row up to `seq` of each symbol's quotes and books, unread: of a million rows a few are wanted."""
    last: dict[str, bytes] = {}
    for line in lines(segment):
        if line.startswith((b'["Quote",[', b'["BookSnapshot",[')):
            _, stamp, rest = line.split(b"[", 2)[0], *line.split(b"[", 2)[2].split(b"]", 1)
            if int(stamp.split(b",")[1]) > seq:
                break
            last[rest.split(b'"', 2)[1].decode()] = line
    return last


def _book(segment: Path, line: bytes) -> Quote | BookSnapshot:
    try:
        return decode(orjson.loads(line))  # type: ignore[return-value]  # the row's own name says which
    except (orjson.JSONDecodeError, DataError) as error:
        raise DataError(f"{segment} cannot be read ({error}): the tape is damaged there, restore the file") from error


def created(commands: Iterable[Command]) -> Iterator[tuple[str, Command]]:
    """(order id, command) of the orders that these commands make."""
    for command in commands:
        if isinstance(command, Place):
            yield command.order_id, command
        elif isinstance(command, Amend):
            yield command.new_order_id, command


def cancelled(commands: Iterable[Command]) -> list[str]:
    """The orders that these commands take away."""
    return [command.order_id for command in commands if isinstance(command, Cancel | Amend)]
