import json
import re
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from agents.core.errors import ConfigError
from agents.desk.limits import Limits
from daemon.logs import Redactor
from daemon.settings import KEYS as KEY_NAMES
from daemon.settings import Risk, Settings, known_exchanges
from daemon.sources import load

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no config.yaml of the repository


def given_file(tmp_path, text):
    path = tmp_path / "given.yaml"
    path.write_text(text)
    return path


def loaded(tmp_path, text="", flags=None, **environ):
    return load(given_file(tmp_path, text), flags or {}, {f"QUARTET__{name}": value for name, value in environ.items()}, tmp_path / "none")


def refused(tmp_path, text="", flags=None, **environ):
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text, flags, **environ)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_seed_keys_keep_their_names_and_defaults():
    learning = Settings().reinforcement_learning
    expected = {
        "learning_rate": 3e-4, "batch_size": 256, "replay_buffer_size": 1_000_000, "gamma": 0.99, "tau": 0.005, "alpha": 0.2,
        "automatic_entropy_tuning": True, "reward_scale": 5.0, "hidden_sizes": (256, 256),
    }  # fmt: skip
    assert {name: getattr(learning, name) for name in expected} == expected


def test_risk_defaults_are_the_limits_own():
    limits, renamed = Limits(), {"max_open_orders": "max_order_count"}
    assert Risk().max_orders_per_second <= limits.max_orders_per_second  # lower: what real exchanges bear
    guards = {"cvar", "cluster_cap", "herfindahl"}  # on for whoever trades, off where only the bare limits were asked for
    assert all(getattr(limits, name) is None and getattr(Risk(), name) is not None for name in guards)
    for name in Risk.model_fields.keys() - guards - {"max_orders_per_second"}:
        assert getattr(Risk(), name) == getattr(limits, renamed.get(name, name)), name


def test_a_default_makes_room_for_a_position_cap_that_was_asked_for():
    wide = Risk(position_cap=0.8)
    assert (wide.cluster_cap, wide.herfindahl) == (0.8, pytest.approx(0.64))
    Limits(position_cap=wide.position_cap, cluster_cap=wide.cluster_cap, herfindahl=wide.herfindahl)
    assert (Risk(position_cap=0.8, cluster_cap=0.3).cluster_cap, Risk(position_cap=0.8, herfindahl=None).herfindahl) == (0.3, None)
    assert (Risk(gross=0.3).cluster_cap, Risk(gross=0.3).herfindahl) == (0.6, pytest.approx(0.4444, rel=1e-3))


def test_layers_file_under_environment_under_flags(tmp_path):
    text = "capital: {allocation: 1000}\nrisk: {position_cap: 0.1, gross: 0.5, net: 0.4}\n"
    settings = loaded(tmp_path, text, {"risk": {"position_cap": 0.3}}, RISK__POSITION_CAP="0.15", RISK__GROSS="0.6")
    assert (settings.risk.position_cap, settings.risk.gross, settings.risk.net) == (0.3, 0.6, 0.4)
    assert settings.capital.allocation == Decimal(1000)


def test_config_yaml_of_the_working_folder_is_read(tmp_path):
    (tmp_path / "config.yaml").write_text("instance: mine\n")
    assert load(None, {}, {}).instance == "mine"


def test_the_shipped_file_says_what_the_defaults_say():
    shipped = load(ROOT / "config.yaml", {}, {})
    assert shipped.public() == Settings().public()


@pytest.mark.parametrize("text", ["3e-4", "'3e-4'", "3.0E-4", "0.0003"])
def test_a_learning_rate_may_be_written_as_people_write_it(tmp_path, text):
    assert loaded(tmp_path, f"reinforcement_learning: {{learning_rate: {text}}}").reinforcement_learning.learning_rate == 3e-4


def test_yaml_words_stay_words(tmp_path):
    assert loaded(tmp_path, "http: {port: off}").http.port == "off"
    assert loaded(tmp_path, "http: {port: 8088}").http.port == 8088
    assert loaded(tmp_path, "exchange:\npaper: {maker_fee_bps: null}").paper.maker_fee_bps is None


def test_environment_lists_are_json_or_words(tmp_path):
    assert loaded(tmp_path, EXCHANGE__SYMBOLS='["BTC/USDT", "ETH/USDT"]').exchange.symbols == ("BTC/USDT", "ETH/USDT")
    assert loaded(tmp_path, EXCHANGE__SYMBOLS="BTC/USDT, ETH/USDT").exchange.symbols == ("BTC/USDT", "ETH/USDT")
    assert loaded(tmp_path, REINFORCEMENT_LEARNING__HIDDEN_SIZES="[64, 64]").reinforcement_learning.hidden_sizes == (64, 64)
    assert loaded(tmp_path, REHEARSAL__BALANCES__USDT="50000").rehearsal.balances == {"USDT": Decimal(50000)}


def test_an_empty_variable_is_not_set(tmp_path):
    assert loaded(tmp_path, RISK__POSITION_CAP="", INSTANCE=" ").risk.position_cap == 0.2


def test_null_takes_a_value_back(tmp_path):
    assert loaded(tmp_path, "paper: {maker_fee_bps: 3}", PAPER__MAKER_FEE_BPS="null").paper.maker_fee_bps is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("risk: {positon_cap: .3}", ["given.yaml", "risk.positon_cap", "nearest is risk.position_cap"]),
        ("risk: {alpha: .3}", ["risk.alpha", "reinforcement_learning.alpha"]),
        ("riks: {position_cap: .3}", ["no setting riks", "nearest is risk"]),
        ("qqq: 1", ["no setting qqq", "exchange"]),
        ("risk: {position_cap: 1.5}", ["risk.position_cap 1.5", "less than or equal to 1", "given.yaml"]),
        ("risk: {position_cap: .nan}", ["risk.position_cap"]),
        ("risk: {position_cap: -0.1}", ["risk.position_cap -0.1"]),
        ("capital: {allocation: nan}", ["capital.allocation"]),
        ("capital: {allocation: 0}", ["capital.allocation", "greater than 0"]),
        ("capital: {allocation: 1e6}", ["capital.allocation", "rehearsal.balances"]),
        ("exchange: binance", ["exchange is a section", "exchange.id"]),
        ("exchange: {id: binanse}", ["exchange.id", "'binanse'", "nearest is binance"]),
        ("exchange: {symbols: []}", ["exchange.symbols"]),
        ("exchange: {symbols: [BTCUSDT]}", ["'BTCUSDT'", "BASE/QUOTE"]),
        ("exchange: {symbols: ['BTC/USDT:USDT']}", ["derivative", "BTC/USDT"]),
        ("exchange: {symbols: [BTC/EUR]}", ["exchange.symbols", "BTC/EUR", "capital.quote"]),
        ("exchange: {symbols: [BTC/USDT, BTC/USDT]}", ["listed twice"]),
        ("exchange: {base_url: 'http://10.0.0.1'}", ["exchange.base_url", "loopback", "https"]),
        ("exchange: {base_url: 'ftp://localhost'}", ["exchange.base_url", "not the address"]),
        ("exchange: {base_url: 'https://me:pw@host'}", ["must not carry"]),
        ("exchange: {ca_file: /no/such.pem}", ["exchange.ca_file", "/no/such.pem"]),
        ("rehearsal: {data: /no/such}", ["rehearsal.data", "/no/such"]),
        ("risk: {drawdown_warn: .5}", ["drawdown_warn", "drawdown_stop"]),
        ("reinforcement_learning: {update_to_data: 5}", ["update_to_data", "less than or equal to 4"]),
        ("reinforcement_learning: {hidden_sizes: [0]}", ["hidden_sizes"]),
        ("agents: {enabled: [long_term, fast]}", ["agents.enabled.1 'fast'", "market_making"]),
        ("http: {host: 0.0.0.0}", ["http", "0.0.0.0 is not loopback", "QUARTET__HTTP__TOKEN"]),
        ("http: {tls_key: key.pem}", ["tls_certificate and tls_key belong together"]),
        ("http: {port: 70000}", ["http.port 70000", "65535"]),
        ("instance: UPPER", ["instance 'UPPER'"]),
        ("mode: dream", ["mode 'dream'", "'paper' or 'live'"]),
        ("a: 1\na: 2", ["line 2", "stands twice"]),
        ("risk: [1", ["not valid YAML"]),
        ("- risk", ["must hold sections"]),
        ("exchange: {secret: abc}", ["exchange.secret", "QUARTET__EXCHANGE__SECRET", "_FILE"]),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_with_the_field_and_the_mend(tmp_path, text, parts):
    sentence = refused(tmp_path, text)
    assert [part for part in parts if part not in sentence] == [], sentence


def test_a_secret_in_a_file_is_never_repeated(tmp_path):
    assert "hunter2" not in refused(tmp_path, "exchange: {password: hunter2}")


def test_errors_name_the_variable_or_the_command_line(tmp_path):
    assert "(from QUARTET__RISK__POSITION_CAP)" in refused(tmp_path, RISK__POSITION_CAP="two")
    assert "QUARTET__RISK__POSITON_CAP: there is no setting" in refused(tmp_path, RISK__POSITON_CAP="0.1")
    assert "QUARTET__EXCHANGE__SYMBOLS: is not valid JSON" in refused(tmp_path, EXCHANGE__SYMBOLS='["BTC/USDT"')
    assert "(from the command line)" in refused(tmp_path, flags={"risk": {"position_cap": 7}})
    assert "only one of the two" in refused(tmp_path, RISK="5", RISK__POSITION_CAP="0.1")


def test_more_than_one_mistake_is_counted(tmp_path):
    assert refused(tmp_path, "risk: {position_cap: 7, gross: 9}").endswith("(and 1 more)")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "broken.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load(path, {}, {})


KEYS = {f"QUARTET__EXCHANGE__{name}": f"value-of-{name}" for name in ("API_KEY", "SECRET", "PASSWORD")}


def test_keys_are_read_in_live_mode_only(tmp_path):
    paper = load(given_file(tmp_path, ""), {}, KEYS, tmp_path)
    assert [getattr(paper.exchange, name) for name in KEY_NAMES] == [None, None, None]
    assert "value-of" not in repr(vars(paper))
    live = load(given_file(tmp_path, ""), {"mode": "live"}, KEYS, tmp_path)
    assert live.secrets() == ("value-of-API_KEY", "value-of-SECRET", "value-of-PASSWORD")


def test_keys_come_from_variables_before_files_before_the_platform(tmp_path):
    named, systemd, docker = tmp_path / "named", tmp_path / "systemd", tmp_path / "docker"
    for folder in (systemd, docker):
        folder.mkdir()
        for name in KEY_NAMES:
            (folder / f"exchange_{name}").write_text(f"{folder.name}-{name}\n")
    (systemd / "exchange_password").unlink()
    named.write_text(" from-named \n")
    environ = {"QUARTET__EXCHANGE__API_KEY_FILE": str(named), "CREDENTIALS_DIRECTORY": str(systemd)}
    settings = load(given_file(tmp_path, ""), {"mode": "live"}, environ, docker)
    assert settings.secrets() == ("from-named", "systemd-secret", "docker-password")
    settings = load(given_file(tmp_path, ""), {"mode": "live"}, environ | {"QUARTET__EXCHANGE__API_KEY": "direct"}, docker)
    assert settings.secrets()[0] == "direct"


@pytest.mark.parametrize("content", [None, "", "  \n"])
def test_a_secret_file_must_hold_one(tmp_path, content):
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match="QUARTET__EXCHANGE__SECRET_FILE"):
        load(given_file(tmp_path, ""), {"mode": "live"}, {"QUARTET__EXCHANGE__SECRET_FILE": str(path)}, tmp_path)


def test_a_folder_of_secrets_that_may_not_be_looked_into_has_none(tmp_path, monkeypatch):
    file = given_file(tmp_path, "")

    def denied(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_file", denied)  # root, who runs tests in containers, may look everywhere
    settings = load(file, {"mode": "live"}, {"CREDENTIALS_DIRECTORY": str(tmp_path)}, tmp_path / "docker")
    assert settings.exchange.api_key is None


def test_secrets_show_nowhere(tmp_path):
    settings = load(given_file(tmp_path, ""), {"mode": "live"}, KEYS, tmp_path)
    assert isinstance(settings.exchange.secret, SecretStr)
    shown = repr(settings) + str(settings) + json.dumps(settings.public()) + settings.model_dump_json()
    assert "value-of" not in shown


def test_secrets_of_outlets_are_read_in_every_mode_and_never_from_a_file(tmp_path):
    given = {"QUARTET__REDIS__PASSWORD": "value-of-redis", "QUARTET__MQTT__TOKEN": "value-of-token"}
    settings = load(given_file(tmp_path, ""), {}, given, tmp_path)
    assert settings.secrets() == ("value-of-redis", "value-of-token")
    assert "value-of" not in repr(settings) + json.dumps(settings.public())
    with pytest.raises(ConfigError, match=r"redis.password is a secret .* QUARTET__REDIS__PASSWORD_FILE"):
        load(given_file(tmp_path, "redis: {password: x}"), {}, {}, tmp_path)
    with pytest.raises(ConfigError, match=r"redis\.password"):
        load(given_file(tmp_path, "redis: {url: 'redis://:secret@127.0.0.1'}"), {}, {}, tmp_path)


def test_what_needs_a_secret_is_judged_with_it(tmp_path):
    public = loaded(tmp_path, "http: {host: 0.0.0.0, insecure_public: true}", HTTP__TOKEN="a-token-of-some-length")
    assert public.http.token is not None
    assert loaded(tmp_path, "mqtt: {host: broker, commands: true}", MQTT__TOKEN="some-token").mqtt.commands
    with pytest.raises(ConfigError, match="set QUARTET__HTTP__TOKEN"):
        loaded(tmp_path, "http: {host: 0.0.0.0, insecure_public: true}")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("redis: {url: 'http://x'}", "redis://HOST:PORT"),
        ("mqtt: {namespace: 'a/#'}", "mqtt.namespace"),
        ("mqtt: {namespace: 'a/+/b'}", "mqtt.namespace"),
        ("instance: 'a+'", "instance"),
        ("mqtt: {host: broker, commands: true}", "mqtt.token"),
        ("reinforcement_learning: {where: redis}", "redis.url"),
        ("notify: {quiet_hours: '9-17'}", "notify.quiet_hours"),
    ],
)
def test_outlets_that_cannot_be_are_refused(tmp_path, text, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        loaded(tmp_path, text)


def test_the_tree_is_frozen():
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.risk.position_cap = 1.0  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.mode = "live"  # type: ignore[misc]


def test_public_is_itself_a_configuration(tmp_path):
    assert loaded(tmp_path, json.dumps(Settings().public())).public() == Settings().public()


def test_no_setting_is_dead():
    """Each leaf is read by the code that makes objects of settings."""
    code = "".join((ROOT / "daemon" / f"{name}.py").read_text() for name in ("session", "marketplace", "wiring", "offline", "outlets", "interface", "cli/app", "cli/care"))
    leaves = [(section, name) for section, field in Settings.model_fields.items() for name in getattr(field.annotation, "model_fields", {})]
    assert [f"{section}.{name}" for section, name in leaves if f".{name}" not in code] == []


def test_every_field_has_a_sentence():
    schema = Settings.model_json_schema()
    for model in (schema, *schema["$defs"].values()):
        for name, field in model["properties"].items():
            target = schema["$defs"].get(field.get("$ref", "").rsplit("/", 1)[-1], {})
            assert (field.get("description") or target.get("description", "")).endswith("."), name


def test_the_published_schema_is_current():
    published = json.loads((ROOT / "docs" / "config.schema.json").read_text())
    assert published == json.loads(json.dumps(Settings.model_json_schema())), "run: make schema"


def test_ccxt_ids_are_known_without_importing_it():
    known = known_exchanges()
    assert known[0] == "rehearsal"
    assert {"binance", "kraken", "okx", "coinbase"} <= set(known)


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
trees = st.dictionaries(
    st.sampled_from(["risk", "exchange", "http", "paper", "instance", "rehearsal", "x"]),
    values | st.lists(values, max_size=2) | st.dictionaries(st.sampled_from(["gross", "symbols", "port", "data", "y"]), values, max_size=2),
    max_size=3,
)


@given(trees)
@example({"exchange": {"symbols": None}})
def test_whatever_is_written_it_loads_or_is_refused_in_one_line(tree):
    with NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(tree, file)
        file.flush()
        with suppress(ConfigError):  # and nothing else
            load(Path(file.name), {}, {})


def test_a_secret_that_is_refused_is_not_repeated(tmp_path):
    said = refused(tmp_path, HTTP__TOKEN="much-2-short")
    assert said.startswith("http.token: ")
    assert "much-2-short" not in said


@pytest.mark.parametrize(
    "url", ["redis://u:sekret@h", "http://u:sekret@h", "redis://h?password=sekret", "redis://h/?db=1&password=sekret", "redis://h#sekret",
            "redis://h:99999", "redis://h:0", "redis://h/zero", "redis://", "h:6379", "redis://[::1"],
)  # fmt: skip
def test_an_address_of_redis_that_the_client_would_stumble_over_is_refused(tmp_path, url):
    said = refused(tmp_path, REDIS__URL=url)
    assert said.startswith("redis.url: ")
    assert "sekret" not in said


@pytest.mark.parametrize("url", ["redis://h", "rediss://user@h:6380/1", "redis://[::1]:6379"])
def test_addresses_of_redis(tmp_path, url):
    assert loaded(tmp_path, REDIS__URL=url).redis.url == url


@pytest.mark.parametrize("host", ["a b", "mqtt://h", "h/#", "u@h"])
def test_a_host_name_of_a_broker_is_a_name(tmp_path, host):
    assert refused(tmp_path, MQTT__HOST=host).startswith("mqtt.host")


def test_no_part_of_an_address_of_messages_reaches_the_log(tmp_path):
    given = loaded(tmp_path, NOTIFY__URLS="tgram://123456789:ABCDEFGHIJ/chat json://u:hunter2hunter2@h/path")
    clean = Redactor(given.secrets()).clean
    for words in ("tgram://123456789:ABCDEFGHIJ/chat", "POST /bot123456789:ABCDEFGHIJ/sendMessage", "json://u:hunter2hunter2@h/path", "hunter2hunter2"):
        said = clean(words)
        assert not any(part in said for part in ("123456789", "ABCDEFGHIJ", "hunter2"))
