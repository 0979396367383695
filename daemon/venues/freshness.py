"""Which stream has been silent for too long, and when to ask the exchange whether there was anything to say. Pure.

Silence alone proves nothing: quiet markets exist. A stream is dead when REST shows news that the stream did not bring.
"""

from dataclasses import dataclass

from agents.core.instruments import Symbol


@dataclass(slots=True)
class _Stream:
    heard: float
    asked: float
    pause: float


class Freshness:
    """Keeps, for each (channel, symbol), when it was last heard. Times are the loop's seconds."""

    def __init__(self, patience_s: dict[str, float], longest_s: float = 8.0) -> None:
        self._patience, self._longest = patience_s, longest_s
        self._streams: dict[tuple[str, Symbol], _Stream] = {}

    def watch(self, channel: str, symbol: Symbol, now: float) -> None:
        """Begin, or begin again, to expect this stream."""
        self._streams[channel, symbol] = _Stream(now, now, self._patience[channel])

    def heard(self, channel: str, symbol: Symbol, now: float) -> None:
        """The stream brought something."""
        if (stream := self._streams.get((channel, symbol))) is not None:
            stream.heard = now
            stream.pause = self._patience[channel]

    def asked(self, channel: str, symbol: Symbol, now: float) -> None:
        """The exchange confirmed that there is no news: ask again later, each time a little later."""
        if (stream := self._streams.get((channel, symbol))) is not None:
            stream.asked = now
            stream.pause = min(stream.pause * 2, max(self._longest, self._patience[channel]))

    def silence(self, channel: str, symbol: Symbol, now: float) -> float:
        """Seconds since the stream last brought something."""
        stream = self._streams.get((channel, symbol))
        return 0.0 if stream is None else now - stream.heard

    def due(self, now: float) -> list[tuple[str, Symbol]]:
        """Streams to ask about, the longest silent first."""
        late = [
            (max(stream.heard, stream.asked), key)
            for key, stream in self._streams.items()
            if now - max(stream.heard, stream.asked) >= stream.pause
        ]
        return [key for _, key in sorted(late, key=lambda item: item[0])]
