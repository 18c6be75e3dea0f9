"""The house rules that can be read off the source: who may import whom, how large, how documented."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import selfreward
from selfreward.core.config.kinds import HOOKS, KINDS
from selfreward.core.config.registry import registry
from selfreward.core.config.resolve import EvaluationOptions, RunOptions, StoreOptions
from selfreward.core.contracts.options import option_docs

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "selfreward"
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """``selfreward.core.loop``; a package's ``__init__`` is the package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


TREES = {module_name(path): ast.parse(path.read_text("utf-8")) for path in FILES}
CORE = [name for name in TREES if name.startswith("selfreward.core.")]
PLUGINS = [name for name in TREES if name.startswith("selfreward.plugins.")]
REGISTERING = [name for name in PLUGINS if name.count(".") == 2]
HOMES = {name: f"selfreward.core.{module}" for module, names in selfreward._PUBLIC.items() for name in names}
HEAVY = {"torch", "transformers", "trl", "datasets", "peft", "numpy", "scipy", "pyarrow", "vllm", "safetensors"}
BUILT_IN = [
    (kind, name, providers[0].plugin)
    for kind in HOOKS
    for name, providers in registry().kinds[kind].items()
    if providers[0].package.startswith("selfreward ")
]
REGISTERED = {plugin.target.partition(":")[0] for _, _, plugin in BUILT_IN}

ROOMS = ("cli", "commands", "runner", "loop", "report", "run", "store", "config", "contracts", "text", "errors")
"""The rooms of core: each may import those to its right, none to its left."""

# ------------------------------------------------------------------------------------------------------------- imports


def imports(name: str, nodes: Iterable[ast.AST]) -> Iterator[tuple[str, str]]:
    """(module, name imported from it or "") of every import statement among the nodes; relative ones made absolute."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: -node.level] if node.level else []
            yield from ((".".join([*above, *filter(None, [node.module])]), alias.name) for alias in node.names)


def at_import_time(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run while the module is imported: not in functions, not under TYPE_CHECKING."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from at_import_time(child)


def imported(name: str) -> set[str]:
    """The files of the package that a file imports, in types and inside functions as well; public names lead home."""
    found = {
        HOMES.get(what, module) if module == "selfreward" else next(
            (m for m in (f"{module}.{what}", module) if m in TREES), ""
        )
        for module, what in imports(name, ast.walk(TREES[name]))
    }  # fmt: skip
    return found - {"", name, "selfreward"}


ARROWS = {name: imported(name) for name in TREES}


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """Files from which imports lead back to themselves."""
    found = []
    for start in arrows:
        waiting, seen = list(arrows[start]), set[str]()
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += arrows.get(name, ())
        if start in seen:
            found.append(start)
    return found


def test_no_file_leads_back_to_itself():
    assert circles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == ["a", "b"]
    assert sum(map(len, ARROWS.values())) > 500
    assert circles(ARROWS) == []


def room(name: str) -> str:
    """The room of core that a module is in."""
    return name.split(".")[2]


def test_imports_between_rooms_go_one_way():
    assert {room(name) for name in CORE} == set(ROOMS)
    wrong = [
        f"{name} imports {other}"
        for name in CORE
        for other in ARROWS[name] & set(CORE)
        if ROOMS.index(room(other)) < ROOMS.index(room(name))
    ]
    assert not wrong


def test_nothing_lies_flat_in_core():
    assert len(list((PACKAGE / "core").glob("*.py"))) <= 6


def test_the_core_does_not_know_the_plugins():
    for name in CORE:
        tree = TREES[name]
        modules = {f"{module}.{what}" for module, what in imports(name, ast.walk(tree))}
        modules |= {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        assert not [module for module in modules if re.match(r"selfreward\.plugins\b", module)], name


def test_the_core_guesses_nothing_from_the_name_of_an_option():
    """What a plugin can do is declared on its class; only the contracts read options, each of its own kind."""
    guesses = [
        f"{name}:{node.lineno}"
        for name in CORE
        if room(name) not in ("contracts", "config")
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("getattr", "hasattr")
        and re.search(r"config\b|plugin\b|load\(\)", ast.unparse(node.args[0]))
    ]
    assert not guesses


def test_a_plugin_imports_public_names_formats_and_helpers_of_its_own_folder():
    for name in PLUGINS:
        folder = ".".join(name.split(".")[:3])
        for module, what in imports(name, ast.walk(TREES[name])):
            if module.split(".")[0] != "selfreward" or module.startswith("selfreward.formats"):
                continue
            if module == "selfreward":
                assert what in selfreward.__all__, f"{name}: {what or 'the package itself'} is not a public name"
                continue
            inside = f"{module}.{what}" if f"{module}.{what}" in TREES else module
            assert inside.startswith("selfreward.plugins."), f"{name} imports {inside}; use `from selfreward import X`"
            assert inside.startswith(f"{folder}."), f"{name} imports {inside}, of another kind"
            registers = name in REGISTERING or folder.endswith(".micro")
            assert registers or inside not in REGISTERED, f"{name} imports the plugin {inside}"


def test_the_core_imports_nothing_heavy_before_it_is_used():
    for name in CORE:
        found = {module.split(".")[0] for module, _ in imports(name, at_import_time(TREES[name]))}
        assert not found & HEAVY, name


def test_registering_imports_nothing_heavy():
    assert len(REGISTERING) == len(HOOKS) + 1
    waiting, seen = list(REGISTERING), set[str]()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        for module, what in imports(name, at_import_time(TREES[name])):
            assert module.split(".")[0] not in HEAVY, f"{name} imports {module}"
            waiting += [m for m in (module, f"{module}.{what}") if m in TREES and m not in seen]
    assert len(seen) > 50


@pytest.mark.parametrize("arguments", [["--help"], ["plugins"], ["plugins", "optimizer"], ["--cfg", "job"]])
def test_looking_around_imports_nothing_heavy(python, arguments):
    done = python("-X", "importtime", "-m", "selfreward", *arguments)
    assert done.code == 0
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.err.splitlines()}
    assert "selfreward" in imported
    assert not imported & HEAVY


# ---------------------------------------------------------------------------------------------------------------- size


def test_no_module_is_an_attic():
    assert not [name for name in TREES if re.search(r"util|helper|misc|common", name.rpartition(".")[2])]


def definitions(kind: type) -> list[tuple[str, ast.AST]]:
    """(where, node) of every definition of that kind."""
    return [
        (f"{name}:{node.lineno} {node.name}", node)
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, kind)
    ]


def test_every_function_fits_on_a_screen():
    sizes = {where: node.end_lineno - node.lineno + 1 for where, node in definitions(ast.FunctionDef)}
    assert len(sizes) > 100
    assert not {where: size for where, size in sizes.items() if size > 60}


def test_every_class_can_be_held_in_the_head():
    sizes = {where: sum(isinstance(m, ast.FunctionDef) for m in node.body) for where, node in definitions(ast.ClassDef)}
    assert len(sizes) > 100
    assert not {where: size for where, size in sizes.items() if size > 20}


# ------------------------------------------------------------------------------------------------------- documentation

CLASSES = {node.name: node for _, node in definitions(ast.ClassDef)}


def inherited(node: ast.ClassDef) -> set[str]:
    """Names of the methods that a class's bases in this package define; an override has their docstring."""
    bases = [CLASSES[base] for base in (ast.unparse(b).rpartition(".")[2] for b in node.bases) if base in CLASSES]
    own = {method.name for base in bases for method in base.body if isinstance(method, ast.FunctionDef)}
    return own.union(*(inherited(base) for base in bases if base is not node))


def of_a_library(node: ast.ClassDef) -> bool:
    """Whether a base is neither ours nor Python's own: what such a class overrides, the library documents."""
    names = {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases}
    return bool(
        names - set(CLASSES) - {"ABC", "Protocol", "Enum", "NamedTuple", "Exception", "BaseException", "object"}
    )


def public_definitions(name: str) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Public classes and functions of a module; of contracts also what is new of their classes' methods."""
    for node in TREES[name].body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if (
                isinstance(node, ast.ClassDef)
                and name.startswith("selfreward.core.contracts")
                and not of_a_library(node)
            ):
                methods = [m for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")]
                yield from (m for m in methods if m.name not in inherited(node))


def test_what_is_public_has_a_docstring():
    missing = [
        f"{name}: {node.name}" for name in TREES for node in public_definitions(name) if not ast.get_docstring(node)
    ]
    assert not missing
    assert not [name for name, tree in TREES.items() if not ast.get_docstring(tree)]


def test_a_public_name_says_what_it_is():
    for name in selfreward.__all__:
        thing = getattr(selfreward, name)
        if not inspect.isclass(thing) and not inspect.isfunction(thing):
            continue  # a constant; a string under a module's assignment cannot be read back
        text = inspect.getdoc(thing) or ""
        assert len(text) > 20, name
        assert not text.startswith(f"{name}("), "the signature that dataclass() writes is no docstring"


def option_classes() -> dict[str, type]:
    """Every dataclass of options: the plugins', the run's, and those nested in them."""
    found: dict[str, type] = {f"{kind}={name}": plugin.config for kind, name, plugin in BUILT_IN}
    found |= {"store": StoreOptions, "evaluation": EvaluationOptions}
    for where, config in list(found.items()):
        for field, value in vars(config()).items():
            if dataclasses.is_dataclass(value):
                found[f"{where} {field}"] = type(value)
    return found


def test_every_option_has_one_line_of_documentation():
    for where, config in option_classes().items():
        docs = option_docs(config)
        for field in dataclasses.fields(config):
            assert len(docs.get(field.name, "")) > 5, f"{where}: {field.name} has no docstring below it"


def test_every_option_of_the_run_is_documented():
    undocumented = {field.name for field in dataclasses.fields(RunOptions)} - set(option_docs(RunOptions))
    assert undocumented == set(KINDS), "only the groups go without: their plugins say more"


# ----------------------------------------------------------------------------------------------------------- packaging


def test_every_package_folder_is_in_the_wheel():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"])
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in FILES}
    assert listed == folders | {"selfreward.conf"}


def test_every_kind_of_plugin_has_its_folder():
    folders = {path.name.rstrip("s") for path in (PACKAGE / "plugins").iterdir() if path.is_dir()}
    assert {kind.rstrip("s") for kind in HOOKS} <= folders


def repository() -> Iterator[Path]:
    """The files a checkout holds: no caches, no environments, nothing that a run or a build wrote."""
    written = {"__pycache__", "build", "dist", "runs", "outputs", "multirun"}
    for path in sorted(ROOT.iterdir()):
        if (
            path.name in written
            or path.suffix == ".egg-info"
            or (path.name.startswith(".") and path.is_dir() and path.name != ".github")
        ):
            continue
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                yield file


def test_no_file_mentions_a_machine():
    machine = re.compile(rb"(?<![\w.$}])/(work|root|home)" + rb"/")
    files = list(repository())
    assert len(files) > 100
    assert not [str(file.relative_to(ROOT)) for file in files if machine.search(file.read_bytes())]
