"""The house in numbers: lines of ``cli/``, the longest functions, the largest parameter lists, long files, import circles.

    python bench/house.py [CHECKOUT]

Functions and parameters are counted in ``core/`` and ``cli/`` of a checkout, by default this one; docstrings count as lines, self, cls
and the context of a command do not count as parameters. Circles are strongly connected components of the import graph, imports inside
functions included and those for types alone left out; they are counted in the packages that the running Python imports, so run it by the
checkout's own.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


def functions(checkout: Path) -> Iterator[tuple[str, int, int]]:
    """Where every function is, its lines and its parameters."""
    for path in sorted(path for top in ("core", "cli") for path in (checkout / top).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                names = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                counted = [name for name in names if name not in ("self", "cls", "ctx")]
                where = f"{path.relative_to(checkout)}:{node.name}"
                yield where, (node.end_lineno or node.lineno) - node.lineno + 1, len(counted)


def lines(folder: Path) -> dict[str, int]:
    """Lines of every file below a folder."""
    return {str(path.relative_to(folder.parent)): path.read_text("utf-8").count("\n") for path in sorted(folder.rglob("*.py"))}


def circles() -> list[list[str]]:
    """Groups of modules that import each other in a circle."""
    import grimp

    graph = grimp.build_graph("ovskit.core", "ovskit.cli", exclude_type_checking_imports=True)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:  # Tarjan's
        index[module] = low[module] = len(index)
        path.append(module)
        for other in sorted(graph.find_modules_directly_imported_by(module)):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in path:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            group = path[path.index(module) :]
            del path[path.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in sorted(graph.modules):
        if module not in index:
            visit(module)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", nargs="?", type=Path, default=HERE)
    parser.add_argument("--most", type=int, default=5, help="how many of each are shown")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    every = list(functions(arguments.checkout))
    files = lines(arguments.checkout / "core") | lines(arguments.checkout / "cli")
    result = {
        "lines_of_cli": sum(count for name, count in files.items() if name.startswith("cli/")),
        "longest_functions": sorted(((count, where) for where, count, _ in every), reverse=True)[: arguments.most],
        "functions_over_80_lines": sum(count > 80 for _, count, _ in every),
        "largest_parameter_lists": sorted(((count, where) for where, _, count in every), reverse=True)[: arguments.most],
        "parameter_lists_over_12": sum(count > 12 for _, _, count in every),
        "files_over_400_lines": sorted(((count, name) for name, count in files.items() if count > 400), reverse=True),
        "circles": circles(),
    }
    for name, value in result.items():
        if isinstance(value, list):
            print(f"{name}: {len(value) if name in ('circles', 'files_over_400_lines') else ''}")
            for one in value:
                print("  ", *one)
        else:
            print(f"{name}: {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
