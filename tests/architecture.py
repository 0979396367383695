"""The rules of the house as functions over a source tree: each returns the sentences of what breaks it."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

Rules = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, whether it is a package's `__init__`, and its syntax tree."""

    name: str
    package: bool
    tree: ast.Module


@dataclass(frozen=True)
class Import:
    """One imported name, wherever in the file it stands."""

    target: str
    line: int


House = dict[str, Module]


def read(root: Path, packages: tuple[str, ...] = ("agents", "daemon")) -> House:
    """Every module under `root` of the named packages."""
    house: House = {}
    for file in (file for package in packages for file in sorted((root / package).rglob("*.py"))):
        parts = file.relative_to(root).with_suffix("").parts
        package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if package else parts)
        house[name] = Module(name, package, ast.parse(file.read_text(encoding="utf-8"), str(file)))
    return house


def imports(module: Module, house: House) -> Iterator[Import]:
    """Every import, at the top or hidden in a function, by statement or by `import_module`; `from a import b` names a.b where it is a module."""
    dynamic = any(isinstance(node, ast.Name | ast.Attribute) and _last(node) in ("import_module", "__import__") for node in ast.walk(module.tree))
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                yield Import("." * node.level + base, node.lineno)
                continue
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield Import(inner if inner in house else base, node.lineno)
        elif dynamic and isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in house:
            yield Import(node.value, node.lineno)


def _last(node: ast.AST) -> str:
    """The last identifier of a dotted expression."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def home(name: str, rules: Mapping[str, object]) -> str | None:
    """The rule that holds for a module: the longest prefix."""
    return max((rule for rule in rules if name == rule or name.startswith(rule + ".")), key=len, default=None)


def _within(name: str, prefixes: frozenset[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def floors(house: House, rules: Rules) -> list[str]:
    """Imports between our own modules that the table does not allow; a module may always import its own floor."""
    found = []
    for module in house.values():
        floor = home(module.name, rules)
        if floor is None:
            found.append(f"{module.name}: stands on no floor")
            continue
        for used in imports(module, house):
            if used.target.startswith("."):
                found.append(f"{module.name}:{used.line}: relative import")
            elif used.target.split(".")[0] in ("agents", "daemon") and home(used.target, rules) != floor and not _within(used.target, rules[floor]):
                found.append(f"{module.name}:{used.line}: must not import {used.target}")
    return found


def foreign(house: House, rules: Rules, own: frozenset[str] = frozenset({"agents", "daemon"})) -> list[str]:
    """Imports from outside that the table does not allow for the module's floor."""
    found = []
    for module in house.values():
        floor = home(module.name, rules)
        if floor is None:
            continue
        for used in imports(module, house):
            top = used.target.split(".")[0]
            if top and top not in own and not _within(used.target, rules[floor]):
                found.append(f"{module.name}:{used.line}: must not import {used.target}")
    return found


def cycles(house: House) -> list[str]:
    """Groups of modules that import each other in a circle, lazily or not (Tarjan's strongly connected components)."""
    edges = {name: sorted({used.target for used in imports(module, house)} & house.keys() - {name}) for name, module in house.items()}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[str] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in edges[name]:
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            circle = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(circle) > 1:
                found.append("circle: " + " -> ".join(circle))

    for name in house:
        if name not in index:
            visit(name)
    return found


def reach(house: House, starts: tuple[str, ...], closed: frozenset[str] = frozenset()) -> dict[str, str]:
    """Every target imported from `starts` on, directly or not, and by whom; packages count, `closed` modules are not entered."""
    seen: dict[str, str] = {}
    waiting = [(start, "") for start in starts]
    while waiting:
        name, by = waiting.pop()
        if name in seen or name in closed:
            continue
        seen[name] = by
        if name in house:
            parents = [name.rsplit(".", cut)[0] for cut in range(1, name.count(".") + 1)]
            targets = [*(p for p in parents if p != "agents"), *(used.target for used in imports(house[name], house))]
            waiting.extend((target, name) for target in targets)
    return seen


CLOCKS = {"time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "localtime", "gmtime", "process_time"}}
MOMENTS = {"now", "utcnow", "today"}


def clocks(house: House, allowed: frozenset[str]) -> list[str]:
    """Reads of a wall, monotonic or processor clock outside the modules that may."""
    found = []
    for module in (module for name, module in house.items() if name not in allowed):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and node.module == "time" and CLOCKS["time"] & {alias.name for alias in node.names}:
                found.append(f"{module.name}:{node.lineno}: takes a clock from time")
            elif isinstance(node, ast.Attribute):
                base, name = _last(node.value), node.attr
                if (base == "time" and name in CLOCKS["time"]) or (base in ("datetime", "date") and name in MOMENTS):
                    found.append(f"{module.name}:{node.lineno}: reads the clock by {base}.{name}")
    return found


MODE_WORDS = frozenset({"paper", "live", "backtest", "replay", "dry_run", "simulated", "sandbox"})


MODE_FLAGS = frozenset({f"is_{word}" for word in MODE_WORDS} | {f"{word}_mode" for word in MODE_WORDS} | {"dry_run"})


def _settings_mode(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "mode" and _last(node.value) in ("settings", "config", "options", "session")


def modes(house: House, allowed: frozenset[str]) -> list[str]:
    """Modules that know a mode: a mode word as a literal, a name such as `is_live`, or a comparison with `mode`."""
    found = []
    for module in (module for name, module in house.items() if name not in allowed):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in MODE_WORDS:
                found.append(f"{module.name}:{node.lineno}: knows the mode {node.value!r}")
            elif isinstance(node, ast.Name | ast.Attribute) and _last(node) in MODE_FLAGS:
                found.append(f"{module.name}:{node.lineno}: asks {_last(node)}")
            elif isinstance(node, ast.Compare) and any(_settings_mode(side) for side in (node.left, *node.comparators)):
                found.append(f"{module.name}:{node.lineno}: compares a mode")
    return found


def bare_tasks(house: House) -> list[str]:
    """Tasks that belong to no TaskGroup: `create_task` on anything else, and `ensure_future`."""
    found = []
    for module in house.values():
        groups = _groups(module.tree)
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call):
                continue
            name = _last(node.func)
            if name == "ensure_future" or (name == "create_task" and not (isinstance(node.func, ast.Attribute) and _last(node.func.value) in groups)):
                found.append(f"{module.name}:{node.lineno}: {_dotted(node.func)} outside a TaskGroup")
    return found


def _groups(tree: ast.Module) -> set[str]:
    """Identifiers that hold a TaskGroup: entered in a `with`, annotated, or assigned from one."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.withitem) and "TaskGroup" in ast.unparse(node.context_expr) and node.optional_vars is not None:
            names.add(_last(node.optional_vars))
        elif isinstance(node, ast.arg) and node.annotation is not None and "TaskGroup" in ast.unparse(node.annotation):
            names.add(node.arg)
        elif isinstance(node, ast.AnnAssign) and "TaskGroup" in ast.unparse(node.annotation):
            names.add(_last(node.target))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and (_last(node.value) in names or "enter_async_context(asyncio.TaskGroup())" in ast.unparse(node.value)):
            names.update(_last(target) for target in node.targets)
    return names - {""}


OPENERS = {"open", "read_text", "write_text", "read_bytes", "write_bytes", "memmap", "fdopen", "save", "savez", "load"}
"""Calls that open a file; `save` and `load` count on numpy and torch only."""
SEEDED = {"Generator", "default_rng", "SeedSequence", "PCG64", "Philox", "BitGenerator"}


def impure(house: House, may_open: frozenset[str], may_await: frozenset[str]) -> list[str]:
    """In agents: files opened, the environment read, global randomness, coroutines."""
    found = []
    for module in (module for name, module in house.items() if name == "agents" or name.startswith("agents.")):
        forked = {inner for node in ast.walk(module.tree) if isinstance(node, ast.With) and "fork_rng" in ast.unparse(node.items[0]) for inner in ast.walk(node)}
        for node in ast.walk(module.tree):
            place = f"{module.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.AsyncFunctionDef) and f"{module.name}.{node.name}" not in may_await:
                found.append(f"{place}: async def {node.name}")
            elif isinstance(node, ast.Attribute) and _dotted(node) in ("os.environ", "os.getenv", "sys.argv", "sys.stdin"):
                found.append(f"{place}: reads {_dotted(node)}")
            elif isinstance(node, ast.Attribute) and _dotted(node.value) in ("np.random", "numpy.random") and node.attr not in SEEDED:
                found.append(f"{place}: global randomness by {_dotted(node)}")
            elif isinstance(node, ast.Call) and _last(node.func) == "default_rng" and not node.args:
                found.append(f"{place}: a generator without a seed")
            elif isinstance(node, ast.Call) and _dotted(node.func) == "torch.manual_seed" and node not in forked:
                found.append(f"{place}: seeds every generator of the process outside torch.random.fork_rng")
            elif isinstance(node, ast.Call) and _opens(node.func) and not _within(module.name, may_open):
                found.append(f"{place}: opens a file by {_dotted(node.func)}")
    return found


def _opens(function: ast.expr) -> bool:
    name = _last(function)
    if name not in OPENERS:
        return False
    if name in ("save", "savez", "load"):
        return _dotted(function).split(".")[0] in ("np", "numpy", "torch")
    return name != "open" or isinstance(function, ast.Name) or _dotted(function) in ("os.open", "io.open", "path.open", "file.open")


def deferred_types(house: House) -> list[str]:
    """`TYPE_CHECKING`: a type that cannot be imported honestly lives on the wrong floor."""
    return [
        f"{module.name}:{node.lineno}: TYPE_CHECKING"
        for module in house.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Name | ast.Attribute) and _last(node) == "TYPE_CHECKING"
    ]
