"""The code that makes a plugin's rows, as one digest for the store's keys: when any of it changes, the key does.

What counts: the plugin's module; each module of its own top-level package that is imported on the way, wherever the
statement stands; its base classes with what they import in turn; and always the rooms through which every model is
spoken to and read, core's text rooms. What does not: an import for types alone (``if TYPE_CHECKING``); packages that
are only passed through (``from package.module import name`` does not follow ``package/__init__.py``, so that one
more registration there leaves the other plugins' rows alone; ``from package import name`` does); libraries, as
elsewhere in a key; the rest of core, whose meaning the store's format stands for. A module that is imported by a name
made at run time (``importlib.import_module``) is not seen.

Comments and blank lines are no code. Docstrings are none in this package; a stranger's may be the prompt it sends.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import io
import sys
import tokenize
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import resolve_name
from itertools import pairwise
from typing import NamedTuple

from selfreward.core.contracts.records import digest

CORE = "selfreward.core."
TEXT = ("selfreward.core.text.chat", "selfreward.core.text.rubric", "selfreward.core.text.verdict")
_LAYOUT = (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


@cache
def source_digest(target: str) -> str:
    """16 hex digits over the code behind the class ``package.module:Class``, which is imported for its bases.

    A core class among them (``Judge``) counts with its own body, not with its module: that would make a word in any
    contract everybody's new key. A base of another package that is itself a plugin is followed as the plugin is; any
    other (a library's mixin) counts with the module that defines it.
    """
    module, _, name = target.partition(":")
    lineage = getattr(importlib.import_module(module), name).__mro__
    bases = [base for base in lineage if _top(base.__module__) not in sys.stdlib_module_names]
    core = [base for base in bases if base.__module__.startswith(CORE)]
    others = [base for base in bases if base not in core]
    plugins = {_top(base.__module__) for base in others if any(issubclass(base, kind) for kind in core)}
    packages = {_top(module), *plugins} - {"selfreward"}
    sources = {f"{base.__module__}:{base.__qualname__}": _class_code(base) for base in core}
    waiting = [module, *(base.__module__ for base in others), *TEXT]
    while waiting:
        if (name := waiting.pop()) not in sources and _find(name):
            sources[name], imports = _module(name)
            waiting += _named(imports, packages)
    return digest(sources)


def _top(module: str) -> str:
    return module.partition(".")[0]


class _Import(NamedTuple):
    """``from module import name``, made absolute; ``import module`` has no name."""

    module: str
    name: str = ""


def _named(imports: tuple[_Import, ...], packages: set[str]) -> Iterator[str]:
    """The modules to follow among what is imported: ``name`` where it is a module itself, else where it is from."""
    for module, name in imports:
        inner = f"{module}.{name}" if name else module
        if _top(inner) not in packages | {"selfreward"}:
            continue
        found = inner if _find(inner) else module
        of_core = found == "selfreward" or found.startswith(CORE)
        if not of_core or found.startswith(f"{CORE}text."):
            yield found


@cache
def _module(name: str) -> tuple[str, tuple[_Import, ...]]:
    """A module's code and what it imports. One that is no text (an extension, bytecode) is told by its bytes."""
    spec = _find(name)
    assert spec
    source = read_source(spec)
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest(), ()
    try:
        imports = tuple(_imports(ast.parse(source), spec.parent or ""))
        return _code(source, docs=_top(name) != "selfreward"), imports
    except (SyntaxError, ValueError, tokenize.TokenError):  # written for another Python: it cannot be imported here
        return source, ()


@cache
def _find(name: str) -> ModuleSpec | None:
    """Where a module is, with nothing imported for it: it may need a library that is not there, or seconds."""
    if spec := getattr(sys.modules.get(name), "__spec__", None):
        return spec
    above, _, _ = name.rpartition(".")
    if not above:
        return PathFinder.find_spec(name)
    package = _find(above)
    places = package.submodule_search_locations if package else None
    return None if places is None else PathFinder.find_spec(name, places)


def read_source(spec: ModuleSpec) -> str | bytes:
    """The text of a module, the bytes of one without; nothing of a namespace package, which has no code."""
    if source := getattr(spec.loader, "get_source", None):
        with suppress(ImportError, SyntaxError, ValueError):
            text: str | None = source(spec.name)
            if text is not None:
                return text
    data = getattr(spec.loader, "get_data", None)
    return data(spec.origin) if data and spec.has_location else b""


def _imports(tree: ast.AST, package: str) -> Iterator[_Import]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (_Import(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            with suppress(ImportError):  # above the top: a script's first guess, with another import after it
                origin = resolve_name("." * node.level + (node.module or ""), package)
                yield from (_Import(origin, alias.name) for alias in node.names)


def _class_code(made: type) -> str:
    spec = _find(made.__module__)
    source = read_source(spec) if spec else b""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == made.__qualname__:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            return _code("\n".join(source.split("\n")[first - 1 : node.end_lineno]) + "\n", docs=False)
    return _code(source, docs=False)  # a class within a class, or one that is made


def _code(source: str, docs: bool) -> str:
    """The lines that hold code, without comments; with ``docs``, docstrings are code.

    Lines as they are written, for a syntax tree is not the same in any two versions of Python.
    """
    lines = source.split("\n")
    kept: dict[int, str] = {}
    previous = tokenize.NEWLINE
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    for token, following in pairwise(token for token in tokens if token.type != tokenize.NL):
        first, last = token.start[0], token.end[0]
        if token.type == tokenize.COMMENT:
            if first in kept:
                kept[first] = lines[first - 1][: token.start[1]].rstrip()
            continue
        alone = previous in _LAYOUT and following.type in (tokenize.NEWLINE, tokenize.COMMENT)
        if token.type not in _LAYOUT and (docs or token.type != tokenize.STRING or not alone):
            kept |= {number: lines[number - 1] for number in range(first, last + 1)}
        previous = token.type
    return "\n".join(kept.values())
