import io
import json
import logging
import sys
import warnings

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from daemon import logs
from daemon.logs import MASK, Redactor

SECRET = "hunter2-hunter2"
SENTENCE = f"x {SECRET}"


@pytest.fixture(autouse=True)
def _as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level


def written(monkeypatch, say, *, level="info", form="json", secrets=(SECRET,)):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure(level, form, secrets)
    say(structlog.get_logger())
    return stream.getvalue()


def test_json_lines_on_standard_error_with_what_was_bound(monkeypatch, capsys):
    structlog.contextvars.bind_contextvars(session="s1")
    line = json.loads(written(monkeypatch, lambda log: log.info("order_refused", symbol="BTC/USDT", reason="collar")))
    assert {**line, "timestamp": ""} == {
        "event": "order_refused", "symbol": "BTC/USDT", "reason": "collar", "session": "s1", "level": "info", "timestamp": "",
    }  # fmt: skip
    assert line["timestamp"].endswith("Z")
    assert capsys.readouterr().out == ""


def test_levels(monkeypatch):
    assert written(monkeypatch, lambda log: log.debug("x")) == ""
    assert written(monkeypatch, lambda log: log.debug("x"), level="debug") != ""
    assert written(monkeypatch, lambda log: log.info("x"), level="error") == ""


def test_console_where_asked(monkeypatch):
    text = written(monkeypatch, lambda log: log.info("started", key=SECRET), form="console")
    assert "started" in text
    assert SECRET not in text
    assert not text.startswith("{")


@pytest.mark.parametrize(
    "say",
    [
        lambda log: log.info("x", api_key=SECRET),
        lambda log: log.info("x", other=SecretStr(SECRET)),
        lambda log: log.info(SENTENCE),
        lambda log: log.info("x", url=f"https://h/p?signature={SECRET}&a=1"),
        lambda log: log.info("x", nested=[{"deep": ({"k": SECRET},)}]),
        lambda log: log.info("x", thing=ValueError(SECRET)),
        lambda log: logging.getLogger("aiohttp").error("x %s", SECRET),
        lambda log: warnings.warn(f"x {SECRET}", stacklevel=1),
    ],
)
@pytest.mark.parametrize("form", ["json", "console"])
def test_no_way_out_for_a_secret(monkeypatch, say, form):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        text = written(monkeypatch, say, form=form)
    assert "x" in text
    assert SECRET not in text


def test_no_secret_in_a_trace(monkeypatch):
    def say(log):
        try:
            raise ValueError(f"refused {SECRET}")
        except ValueError:
            log.exception("failed")

    for form in ("json", "console"):
        text = written(monkeypatch, say, form=form)
        assert "ValueError" in text
        assert SECRET not in text


@pytest.mark.parametrize("key", ["api_key", "apiKey", "apikey", "API-KEY", "secret", "secretKey", "password", "access_token", "authorization", "x.signature", "private_key", "exchange_secret"])  # fmt: skip
def test_masks_by_key_whatever_the_value(key):
    assert Redactor().clean({key: "abc"}) == {key: MASK}
    assert Redactor().clean({key: ["abc"]}) == {key: MASK}


@pytest.mark.parametrize("key", ["symbol", "monkey", "key", "secretary", "tokenized", "passwords_checked"])
def test_leaves_other_keys(key):
    assert Redactor().clean({key: "abc"}) == {key: "abc"}


def test_masks_pairs_in_texts():
    text = 'binance POST https://api/order?symbol=X&apiKey=k1&signature=s1 {"secret": "s2", "a": 1} password: p1'
    clean = Redactor().clean(text)
    assert all(secret not in clean for secret in ("k1", "s1", "s2", "p1"))
    assert "symbol=X" in clean


def test_a_short_value_does_not_blot_out_words():
    assert Redactor(["a", ""]).clean("a day") == "a day"


def test_absent_values_stay_absent():
    assert Redactor().clean({"password": None, "secret": ""}) == {"password": None, "secret": ""}


nested = st.recursive(
    st.text() | st.integers() | st.none() | st.just(f"a{SECRET}b"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(nested)
def test_a_known_value_is_found_however_deep(value):
    assert SECRET not in json.dumps(Redactor([SECRET]).clean(value))


def test_a_listener_hears_each_line_masked_and_no_more_once_it_left():
    heard = []
    logs.configure("info", "json", ["sesame-open"])
    with logs.listening(heard.append):
        structlog.get_logger().info("door", word="sesame-open")
    structlog.get_logger().info("later")
    assert [(line["event"], line["word"]) for line in heard] == [("door", logs.MASK)]
    assert logs.recent(1)[0]["event"] == "later"
