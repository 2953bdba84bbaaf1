"""Read which of our modules import which, from their source. Nothing is executed.

Every kind of import counts: at the top of a module, inside a function, below `if TYPE_CHECKING:`, in a string given to
`import_module`, and in a table of lazy names (`_HOMES = {"Router": "router"}`). A name that a package re-exports counts
twice: for the package, and for the module that the package takes it from.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

Graph = Mapping[str, frozenset[str]]


def find_modules(root: Path, packages: Iterable[str]) -> dict[str, Path]:
    """List the modules of `packages` below `root`, by dotted name."""
    found = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def import_graph(modules: Mapping[str, Path]) -> Graph:
    """Give each module the set of other modules that it imports."""
    return {name: frozenset(_imports(name, path, set(modules)) - {name}) for name, path in modules.items()}


def find_cycles(graph: Graph) -> list[list[str]]:
    """List the groups of modules that import each other (strongly connected components, Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    cycles: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                cycles.append(sorted(group))

    for name in sorted(graph):
        if name not in order:
            visit(name)
    return sorted(cycles)


def shortest_cycle(graph: Graph, group: Iterable[str]) -> list[str]:
    """Give the shortest way round through `group`, first module again at the end."""
    members = set(group)
    best: list[str] = []
    for start in sorted(members):
        paths = [[start]]
        seen = {start}
        while paths:
            path = paths.pop(0)
            following = sorted(graph[path[-1]] & members)
            if start in following:
                if not best or len(path) + 1 < len(best):
                    best = [*path, start]
                break
            for other in following:
                if other not in seen:
                    seen.add(other)
                    paths.append([*path, other])
    return best


def _imports(name: str, path: Path, known: set[str]) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    if path.name == "__init__.py":  # a lazy table, whoever reads it
        found.update(_tabled(f"{package}.", tree))
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found.update(alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = _absolute(module or "", package, level)
                for alias in names:
                    found.add(f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base)
            case ast.Call(func=func, args=[first, *_]) if _called(func) in ("import_module", "__import__"):
                found.update(_lazy_targets(first, package, tree))
    return found & known


def _absolute(module: str, package: str, level: int) -> str:
    if level == 0:
        return module
    base = package.split(".")
    base = base[: len(base) - (level - 1)]
    return ".".join([*base, module] if module else base)


def _called(func: ast.expr) -> str:
    match func:
        case ast.Name(id=called) | ast.Attribute(attr=called):
            return called
    return ""


def _lazy_targets(argument: ast.expr, package: str, tree: ast.Module) -> Iterator[str]:
    """Give the modules that `import_module(argument)` may import: a string, or a table's entries behind a prefix."""
    match argument:
        case ast.Constant(value=str(text)):
            relative = len(text) - len(text.lstrip("."))
            yield _absolute(text[relative:], package, relative)
        case ast.JoinedStr(values=parts):
            yield from _tabled("".join(_fixed_part(part, package) for part in parts), tree)
        case _:
            yield from _tabled("", tree)


def _fixed_part(part: ast.expr, package: str) -> str:
    match part:
        case ast.Constant(value=str(text)):
            return text
        case ast.FormattedValue(value=ast.Name(id="__name__" | "__package__")):
            return package
    return ""


def _tabled(prefix: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Dict(keys=keys, values=values):
                entries = [*keys, *values]
            case ast.List(elts=entries) | ast.Tuple(elts=entries) | ast.Set(elts=entries):
                pass
            case _:
                continue
        for entry in entries:
            match entry:
                case ast.Constant(value=str(text)):
                    yield f"{prefix}{text.lstrip('.')}"
