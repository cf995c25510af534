"""The rules of the house, read off the source by parsing it; nothing is imported or run."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

SERVICES = ("ingest", "stage1", "stage2", "exporter")

GROUND = ("korean", "errors", "metrics", "logs", "topology", "nats_faults")
"""Floor 1 of the kernel."""
FLOOR_2 = (
    *("circumstances", "connected"),
    *("contracts", "settings", "model_settings", "provider_access", "api_keys"),
    *("probes", "holding", "loop_lag", "record"),
)

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    **{f"kernel.{room}": tuple(f"kernel.{r}" for r in GROUND) for room in GROUND},
    **{f"kernel.{room}": tuple(f"kernel.{r}" for r in GROUND + FLOOR_2) for room in FLOOR_2},
    "kernel.llm": tuple(f"kernel.{r}" for r in (*GROUND, *FLOOR_2, "fleet", "llm")),
    "kernel.fleet": tuple(f"kernel.{r}" for r in (*GROUND, *FLOOR_2, "fleet")),
    "kernel.stream": tuple(f"kernel.{r}" for r in (*GROUND, *FLOOR_2, "stream")),
    "kernel.provisioning": tuple(f"kernel.{r}" for r in (*GROUND, *FLOOR_2, "provisioning")),
    "kernel.app": tuple(
        f"kernel.{r}" for r in (*GROUND, *FLOOR_2, "fleet", "llm", "stream", "provisioning")
    ),
    **{service: ("kernel.*", service) for service in SERVICES},
    "simulator": ("kernel.*", "simulator"),
    "cli": ("kernel.*", *SERVICES, "simulator", "cli"),
}
"""Each room with the rooms that it may import from; a room that is not named here is a mistake."""

MAY_KNOW: dict[str, tuple[str, ...]] = {
    "faststream": ("services.*.app", "services.kernel.app", "services.kernel.stream.*"),
    "httpx": ("services.kernel.llm.http_provider", "services.cli.*"),
    "httpx_aiohttp": ("services.kernel.llm.http_provider",),
    "aiosqlite": ("services.exporter.database", "services.exporter.store"),
    "prometheus_client": ("services.kernel.metrics", "services.kernel.probes"),
    "typer": ("services.cli.*",),
}
"""Each library with the modules that may know it."""

INNOCENT = (
    "services.*.handler",
    "services.*.prompt",
    "services.*.checks",
    "services.kernel.stream.retry",
    "services.kernel.korean*",
    "services.kernel.contracts*",
)
UNKNOWN_TO_THE_INNOCENT = ("faststream", "nats", "httpx")

MAY_READ_THE_ENVIRONMENT = ("services.kernel.settings", "services.cli.*")
MAY_IMPORT_BY_NAME = ("services.cli.*",)

BANNED_IN_NAMES = ("manager", "helper", "utils", "enhanced", "modern", "unified", "_v2")
LINES_OF_A_MODULE = 300
LINES_OF_A_FUNCTION = 60


@dataclass(frozen=True)
class Module:
    """One parsed file of the package `services`."""

    path: Path
    name: str
    source: str
    tree: ast.Module

    @property
    def room(self) -> str:
        return room_of(self.name)

    def is_one_of(self, patterns: tuple[str, ...]) -> bool:
        return any(fnmatchcase(self.name, pattern) for pattern in patterns)


def room_of(name: str) -> str:
    """`services.kernel.llm.asker` is in `kernel.llm`, `services.stage1.app` in `stage1`."""
    parts = name.split(".")[1:]
    return ".".join(parts[:2] if parts[:1] == ["kernel"] else parts[:1])


def violations(root: Path) -> list[str]:
    """What in the folder `services` under `root` breaks a rule; empty when nothing does."""
    found: list[str] = []
    for path in sorted((root / "services").rglob("*.py")):
        module = _parsed(root, path)
        for rule in RULES:
            found += [f"{module.name}: {fault}" for fault in rule(module)]
    return found


def _parsed(root: Path, path: Path) -> Module:
    parts = path.relative_to(root).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    source = path.read_text(encoding="utf-8")
    return Module(path, name, source, ast.parse(source))


def imported(module: Module) -> Iterator[str]:
    """The dotted names that a module imports, wherever in it the imports stand."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base_of(module, node)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _base_of(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.name.split(".")
    if module.path.name != "__init__.py":
        package = package[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, node.module] if node.module else package)


def wrong_rooms(module: Module) -> Iterator[str]:
    for name in imported(module):
        if name.split(".")[0] != "services":
            continue
        room = room_of(name)
        if not module.room or room == module.room:
            continue
        allowed = MAY_IMPORT.get(module.room, ())
        if not any(fnmatchcase(room, pattern) for pattern in allowed):
            yield f"{module.room} may not import {name}"


def unknown_rooms(module: Module) -> Iterator[str]:
    if module.name not in ("services", "services.kernel") and module.room not in MAY_IMPORT:
        yield f"no rule knows the room {module.room}"


def wrong_libraries(module: Module) -> Iterator[str]:
    for name in imported(module):
        library = name.split(".")[0]
        if library in MAY_KNOW and not module.is_one_of(MAY_KNOW[library]):
            yield f"may not know {library}"
        elif library in UNKNOWN_TO_THE_INNOCENT and module.is_one_of(INNOCENT):
            yield f"must not know {library}: it is pure"


def hidden_imports(module: Module) -> Iterator[str]:
    """Imports by a computed name, which no rule here can see."""
    if module.is_one_of(MAY_IMPORT_BY_NAME):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in ("import_module", "__import__"):
                yield f"line {node.lineno} imports by name"


def environment_reads(module: Module) -> Iterator[str]:
    if module.is_one_of(MAY_READ_THE_ENVIRONMENT):
        return
    readers = ("environ", "environb", "getenv")
    if any(name in {f"os.{reader}" for reader in readers} for name in imported(module)):
        yield "reads the environment"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr in readers:
            yield f"line {node.lineno} reads the environment"


def banned_names(module: Module) -> Iterator[str]:
    for word in BANNED_IN_NAMES:
        if word in module.name.replace(".", "/").lower():
            yield f"its name says {word}"


def sizes(module: Module) -> Iterator[str]:
    lines = len(module.source.splitlines())
    if lines > LINES_OF_A_MODULE:
        yield f"{lines} lines, over {LINES_OF_A_MODULE}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LINES_OF_A_FUNCTION:
                yield f"{node.name} has {length} lines, over {LINES_OF_A_FUNCTION}"


RULES: tuple[Callable[[Module], Iterator[str]], ...] = (
    unknown_rooms,
    wrong_rooms,
    wrong_libraries,
    hidden_imports,
    environment_reads,
    banned_names,
    sizes,
)
