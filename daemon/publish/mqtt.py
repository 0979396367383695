"""What happens, mirrored to an MQTT broker, and the operator's words from there. MQTT 5, by aiomqtt (the present name of asyncio-mqtt).

Topics are `{namespace}/{instance}/{kind}`; words come on `{namespace}/{instance}/command/{word}` as a JSON object with an `id`, and are
answered on the response topic, else on `{namespace}/{instance}/reply`. A word is carried out once for each id, however often it
comes. Who may say it is the broker's to decide (user, ACL, TLS), and the token's where one is set.
"""

import asyncio
import hmac
import logging
import ssl
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiomqtt
import orjson
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agents.core.errors import TradingError
from daemon.publish.outbox import Fact, encode
from daemon.publish.outlet import Pump, unless_cancelled

QOS = {"decision": 0, "order": 1, "fill": 1, "risk": 0, "equity": 0, "learner": 0, "log": 0, "notify": 1}
"""What must arrive is asked to be confirmed; what is soon told again is not."""
WORDS = ("halt", "resume", "flatten", "cancel-all", "reload", "status")
LARGEST_PACKET = 64 * 1024
"""Bytes of the largest packet that the broker may send us; it drops larger ones itself."""
REMEMBERED = 1024
"""Ids of words that were carried out."""

_log = structlog.get_logger()
_theirs = logging.getLogger("aiomqtt.quartet")
_theirs.setLevel(logging.ERROR)
"""A flood of words is dropped by the queue; a line for each would flood the log, and every stream that it is mirrored to."""
_ANY: tuple[type[Exception], ...] = (aiomqtt.MqttError, OSError, TimeoutError)
_TOPIC_OF = {"decisions": "decision", "orders": "order", "fills": "fill"}


@dataclass(frozen=True, slots=True)
class MqttOptions:
    """Where, as whom, and under which topics."""

    host: str
    port: int
    namespace: str
    instance: str
    session: str
    username: str | None = None
    password: str | None = None
    tls: bool = False
    ca_file: Path | None = None
    commands: bool = False
    """Whether words are taken from the broker at all."""
    token: str | None = None
    """What a word must carry as its `token`, beside whatever the broker asks."""
    timeout_s: float = 5.0
    home_assistant: str | None = None
    """Discovery prefix of Home Assistant."""

    def topic(self, name: str) -> str:
        """The full name of one of our topics."""
        return f"{self.namespace}/{self.instance}/{name}"


Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class Words:
    """Carries out each word once. The outcome of an id that comes again is told again, and nothing is done."""

    def __init__(self, answers: Mapping[str, Answer], token: str | None) -> None:
        self._answers, self._token = answers, token
        self._outcomes: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.refused = 0
        """Words without the token since the last one with it; the first is said in the log."""

    def carry_out(self, word: str, payload: bytes, retained: bool) -> dict[str, Any]:
        """What to answer: `ok`, and either the session's own answer or the `error` in a sentence."""
        if retained:  # the broker would say it again at every start
            return {"ok": False, "error": "a retained word is not carried out; publish it without retain"}
        try:
            request = orjson.loads(payload) if payload else {}
        except orjson.JSONDecodeError:
            return {"ok": False, "error": "the payload is not JSON"}
        if not isinstance(request, dict) or not isinstance(identity := request.get("id"), str) or not 0 < len(identity) <= 128:
            return {"ok": False, "error": 'send a JSON object with an "id" of 1 to 128 characters, new for each word'}
        if self._token is not None and not hmac.compare_digest(str(request.get("token", "")).encode(), self._token.encode()):
            if not self.refused:
                _log.warning("word_refused", word=word[:32], reason="token")
            self.refused += 1
            return {"ok": False, "id": identity, "error": "the token is missing or wrong"}
        self.refused = 0
        if identity in self._outcomes:
            return {**self._outcomes[identity], "repeated": True}
        outcome = {"id": identity, **self._do(word, {k: v for k, v in request.items() if k not in ("id", "token")})}
        if word != "status":
            self._outcomes[identity] = outcome
            if len(self._outcomes) > REMEMBERED:
                self._outcomes.popitem(last=False)
        return outcome

    def _do(self, word: str, request: Mapping[str, Any]) -> dict[str, Any]:
        if word not in WORDS or (answer := self._answers.get(word)) is None:
            return {"ok": False, "error": f"no word {word!r}: say {', '.join(w for w in WORDS if w in self._answers)}"}
        try:
            return {"ok": True, **answer(request)}
        except TradingError as error:
            return {"ok": False, "error": str(error)}


class MqttMirror:
    """A service for an outlet."""

    name = "mqtt"
    failures: tuple[type[Exception], ...] = (aiomqtt.MqttError, ssl.SSLError)

    def __init__(self, options: MqttOptions, words: Words, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        self._options, self._words, self._snapshot = options, words, snapshot

    async def session(self, pump: Pump) -> None:
        topic, client = self._options.topic, self._client()
        async with client:
            await client.publish(topic("status"), self._state("online"), qos=1, retain=True)
            for where, sensor in discovery(self._options):
                await client.publish(where, encode(sensor), qos=1, retain=True)

            async def deliver(facts: Sequence[Fact]) -> None:
                if not facts:
                    await client.publish(topic("hb"), encode(self._heartbeat()))
                async with asyncio.TaskGroup() as group:  # tasks start in order, so messages leave in order
                    for fact in facts:
                        group.create_task(_publish(client, topic, fact))

            try:
                async with asyncio.TaskGroup() as group:
                    if self._options.commands:
                        await client.subscribe(topic("command/+"), qos=1)
                        group.create_task(self._listen(client))
                    group.create_task(pump(deliver))
            except asyncio.CancelledError:
                await self._part(client)
                raise

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            payload = message.payload if isinstance(message.payload, bytes) else b""
            word = message.topic.value.rsplit("/", 1)[-1]
            answer = self._words.carry_out(word, payload, bool(message.retain))
            properties = message.properties
            reply = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            if (correlation := getattr(properties, "CorrelationData", None)) is not None:
                reply.CorrelationData = correlation
            where = str(getattr(properties, "ResponseTopic", None) or self._options.topic("reply"))
            if self._may_answer(where):
                await client.publish(where, encode(answer), qos=1, properties=reply)
            unless_cancelled()

    def _may_answer(self, topic: str) -> bool:
        """Whether an answer there is an answer: not a word to any daemon, not a fact of ours, and to one topic alone."""
        ours, reply = self._options.topic(""), self._options.topic("reply")
        misused = "/command/" in topic or any(sign in topic for sign in "+#\0") or topic.startswith("$")
        return not misused and (not topic.startswith(ours) or topic == reply or topic.startswith(f"{reply}/"))

    async def _part(self, client: aiomqtt.Client) -> None:
        """An orderly end: the last will would stay unsaid."""
        try:
            async with asyncio.timeout(1.0):
                await client.publish(self._options.topic("status"), self._state("stopped"), qos=1, retain=True)
        except _ANY as error:
            _log.info("outlet_left_without_a_word", outlet=self.name, error=str(error))

    def _client(self) -> aiomqtt.Client:
        o = self._options
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = LARGEST_PACKET
        context = ssl.create_default_context(cafile=None if o.ca_file is None else str(o.ca_file)) if o.tls else None
        will = aiomqtt.Will(o.topic("status"), self._state("offline"), qos=1, retain=True)
        return aiomqtt.Client(
            o.host, o.port, logger=_theirs, username=o.username, password=o.password, identifier=f"quartet-{o.namespace}-{o.instance}",
            protocol=aiomqtt.ProtocolVersion.V5, will=will, timeout=o.timeout_s, keepalive=15, tls_context=context,
            properties=properties, max_queued_incoming_messages=64, max_queued_outgoing_messages=1024, max_concurrent_outgoing_calls=8,
        )  # fmt: skip

    def _state(self, state: str) -> bytes:
        return encode({"state": state, "instance": self._options.instance, "session": self._options.session})

    def _heartbeat(self) -> dict[str, Any]:
        names = ("ready", "halted", "data_age_s", "decision_age_s", "equity", "drawdown", "market_time")
        status = self._snapshot()
        return {"session": self._options.session, **{name: status.get(name) for name in names}}


async def _publish(client: aiomqtt.Client, topic: Callable[[str], str], fact: Fact) -> None:
    kind = _TOPIC_OF.get(fact.kind, fact.kind)
    await client.publish(topic(kind), encode({"at": fact.at, **fact.body}), qos=QOS[kind])


SENSORS = (
    ("equity", "Equity", None, "{{ value_json.equity }}"),
    ("drawdown", "Drawdown", "%", "{{ (value_json.drawdown or 0) * 100 }}"),
    ("data_age", "Data age", "s", "{{ value_json.data_age_s }}"),
    ("decision_age", "Decision age", "s", "{{ value_json.decision_age_s }}"),
    ("halted", "Halted", None, "{{ value_json.halted }}"),
)
"""Name, title, unit and where in a heartbeat it stands."""


def discovery(options: MqttOptions) -> list[tuple[str, dict[str, Any]]]:
    """(topic, body) of Home Assistant's MQTT discovery, a sensor each; none where no prefix is set."""
    if options.home_assistant is None:
        return []
    one = f"quartet_{options.instance}"
    device = {"identifiers": [f"{options.namespace}_{one}"], "name": f"Quartet {options.instance}", "manufacturer": "Quartet"}
    available = {"topic": options.topic("status"), "value_template": "{{ value_json.state }}", "payload_available": "online"}
    return [
        (
            f"{options.home_assistant}/sensor/{one}/{name}/config",
            {
                "name": title, "unique_id": f"{options.namespace}_{one}_{name}", "state_topic": options.topic("hb"), "value_template": template,
                "device": device, "availability": [available], **({} if unit is None else {"unit_of_measurement": unit}),
            },
        )
        for name, title, unit, template in SENSORS
    ]  # fmt: skip
