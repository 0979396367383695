"""Where settings come from: flags over environment over files, and errors that name the field, its source and the mend."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import InitSettingsSource

from agents.core.errors import ConfigError
from daemon.settings import KEYS, SECRETS, Settings

Tree = dict[str, Any]

PREFIX = "QUARTET__"
DEFAULT_FILE = Path("config.yaml")
DOCKER_SECRETS = Path("/run/secrets")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain scalars (`off` is a word, `3e-4` a number), and a key given twice is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return dict(super().construct_mapping(node, deep))


_Loader.yaml_implicit_resolvers = {}
for _kind, _first, _pattern in (
    ("bool", "tTfF", r"^(?:true|True|TRUE|false|False|FALSE)$"),
    ("int", "-+0123456789", r"^[-+]?[0-9]+$"),
    ("float", "-+.0123456789", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), list(_first))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:null|Null|NULL|~|)$"), ["n", "N", "~", ""])


def load(config: Path | None, flags: Mapping[str, Any], environ: Mapping[str, str], secrets_folder: Path = DOCKER_SECRETS) -> Settings:
    """The settings of this run.

    `config` None means `config.yaml` where there is one. Keys are read only in a mode that may hold them.
    Raises ConfigError with one sentence that names the field, where it came from and the mend.
    """
    file = config if config is not None else DEFAULT_FILE if DEFAULT_FILE.is_file() else None
    layers = {"the command line": dict(flags), "the environment": _environment(environ), str(file): _file(file) if file else {}}
    keys = {("exchange", name) for name in KEYS}
    if others := _secrets(environ, secrets_folder, keys):  # first, for settings may be refused that lack one
        layers = {**layers, "the secrets": others}
    settings = _build(layers)
    if settings.may_hold_keys and (held := _secrets(environ, secrets_folder, set(_NAMES) - keys)):
        settings = _build({**layers, "the secrets": {**others, **held}})
    return settings


def _build(layers: Mapping[str, Tree]) -> Settings:
    sources = tuple(InitSettingsSource(Settings, init_kwargs=tree) for tree in layers.values())
    try:
        return Settings(_build_sources=(sources, {}))
    except ValidationError as error:
        raise ConfigError(_sentence(error, layers)) from None


def _file(path: Path) -> Tree:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name an existing file or leave --config out") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: is not valid YAML: {error.problem}; mend that line") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML: {str(error).splitlines()[0]}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: must hold sections, such as exchange: and risk:, and holds a {type(tree).__name__}")
    for section, name in _NAMES:
        if isinstance(tree.get(section), dict) and tree[section].get(name) is not None:
            raise ConfigError(
                f"{path}: {section}.{name} is a secret and must not stand in a file that is shared; give it as"
                f" {_variable(section, name)}, or its file as {_variable(section, name)}_FILE"
            )
    return {str(key): value for key, value in tree.items() if value is not None}


def _variable(*path: object) -> str:
    return PREFIX + "__".join(str(part).upper() for part in path)


_NAMES = tuple((section, name) for section, names in SECRETS.items() for name in names)
_SECRET_VARIABLES = {_variable(section, name) + suffix for section, name in _NAMES for suffix in ("", "_FILE")}


def assign(tree: Tree, name: str, value: object, source: str) -> None:
    """Put a value into a tree under its dotted name; text is read as the environment's is. `source` is named in errors."""
    *sections, key = name.split(".")
    place = tree
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise ConfigError(f"{source}: {section} is given whole as well; use only one of the two")
    place[key] = _value(source, value.strip()) if isinstance(value, str) else value


def _environment(environ: Mapping[str, str]) -> Tree:
    """`QUARTET__SECTION__KEY` variables as a tree; secrets left aside, empty ones taken as not set."""
    tree: Tree = {}
    for name, text in sorted(environ.items()):
        if name.upper().startswith(PREFIX) and name.upper() not in _SECRET_VARIABLES and text.strip():
            assign(tree, name[len(PREFIX) :].lower().replace("__", "."), text, name)
    return tree


def _value(source: str, text: str) -> object:
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f'{source}: is not valid JSON ({error.msg}); write a list as ["BTC/USDT","ETH/USDT"]') from None
    return None if text.lower() == "null" else text


def _secrets(environ: Mapping[str, str], docker: Path, but: Set[tuple[str, str]]) -> Tree:
    """Each secret from the first of: its variable, the file its `_FILE` variable names, systemd's and Docker's folders; none of `but`."""
    found: Tree = {}
    for section, name in _NAMES:
        if (section, name) in but:
            continue
        variable = _variable(section, name)
        if environ.get(variable):
            found.setdefault(section, {})[name] = environ[variable]
            continue
        given = environ.get(f"{variable}_FILE")
        folders = [Path(environ["CREDENTIALS_DIRECTORY"])] if environ.get("CREDENTIALS_DIRECTORY") else []
        files = [Path(given)] if given else [folder / f"{section}_{name}" for folder in (*folders, docker)]
        path = next((file for file in files if _is_there(file)), Path(given) if given else None)
        if path is not None:
            found.setdefault(section, {})[name] = _read_secret(path, f"{variable}_FILE" if given else f"the secret {section}_{name}")
    return found


def _is_there(file: Path) -> bool:
    """Whether there is such a file; a folder of secrets that we may not look into has none for us, and what needs one says so."""
    try:
        return file.is_file()
    except PermissionError:
        return False


def _read_secret(path: Path, source: str) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: {path} cannot be read ({type(error).__name__}); check the path and its rights") from None
    if not text:
        raise ConfigError(f"{source}: {path} is empty; write the secret into it")
    return text


_UNION_BRANCHES = ("literal['auto','off']", "constrained-int", "int", "float")
"""What pydantic appends to the path of a value that may be of several kinds."""


def _sentence(error: ValidationError, layers: Mapping[str, Tree]) -> str:
    """The first problem in words; how many more there are."""
    problems: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        problems.setdefault(tuple(part for part in detail["loc"] if part not in _UNION_BRANCHES), []).append(detail)
    path, details = next(iter(problems.items()))
    rest = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return _problem(path, details, _origin(path, layers)) + rest


def _problem(path: tuple[int | str, ...], details: list[ErrorDetails], origin: str) -> str:
    field, kind = ".".join(map(str, path)), details[0]["type"]
    reason = ", or ".join(detail["msg"].removeprefix("Value error, ").replace("Input should", "should") for detail in details)
    reason = reason.replace("valid tuple", "list")
    if not path:
        return reason
    if kind == "extra_forbidden":
        return f"{origin}: there is no setting {field}; {_nearest(path)}"
    if kind in ("model_type", "model_attributes_type"):
        return f"{origin}: {field} is a section, not a value; set its keys, such as {', '.join(f'{field}.{key}' for key in _keys(path)[:3])}"
    if path[-2:] in _NAMES:
        return f"{field}: {reason}"
    value = "" if kind == "value_error" else f" {details[0]['input']!r}"
    return f"{field}{value if len(value) < 80 else ''}: {reason} (from {origin})"


def _origin(path: tuple[int | str, ...], layers: Mapping[str, Tree]) -> str:
    """The layer that gave the value at this path, or the default."""
    for name, tree in layers.items():
        place: object = tree
        for depth, part in enumerate(path):
            if not isinstance(place, dict) or part not in place:
                if depth and not isinstance(place, dict):
                    return _name_variable(name, path[:depth], place)
                break
            place = place[part]
        else:
            return _name_variable(name, path, place)
    return "the defaults"


def _name_variable(layer: str, path: tuple[int | str, ...], value: object) -> str:
    if layer != "the environment":
        return layer
    return _variable(*path) + ("__*" if isinstance(value, dict) else "")


def _section(field: FieldInfo | None) -> type[BaseModel] | None:
    """The model of a field that is a section."""
    annotation = field.annotation if field else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _keys(path: tuple[int | str, ...]) -> list[str]:
    """The settings under a path; none where it is no section."""
    model: type[BaseModel] | None = Settings
    for part in path:
        model = _section(model.model_fields.get(str(part))) if model else None
    return list(model.model_fields) if model else []


def _all(stem: tuple[str, ...] = ()) -> Iterator[str]:
    """Every setting's dotted name."""
    for name in _keys(stem):
        yield ".".join((*stem, name))
        yield from _all((*stem, name))


def _nearest(path: tuple[int | str, ...]) -> str:
    """What the operator most likely meant."""
    name, siblings = str(path[-1]).lower(), _keys(path[:-1])
    stem = "".join(f"{part}." for part in path[:-1])
    if near := difflib.get_close_matches(name, siblings, 1, 0.6):
        return f"the nearest is {stem}{near[0]}"
    if elsewhere := [known for known in _all() if known.split(".")[-1] == name]:
        return f"it stands elsewhere: {elsewhere[0]}"
    if near := difflib.get_close_matches(".".join(map(str, path)), list(_all()), 1, 0.6):
        return f"the nearest is {near[0]}"
    return f"{'section ' + stem[:-1] if stem else 'the top level'} knows {', '.join(siblings)}"
