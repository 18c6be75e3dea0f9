"""What of a plugin becomes part of the store's keys: all code that makes its rows, and nothing else."""

from __future__ import annotations

import importlib
import py_compile
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from selfreward.core.store import source
from selfreward.core.store.source import read_source, source_digest

MODULE = "from edited.judges import shared\n\nclass Judge:\n    bonus = shared.BONUS\n"
PACKAGE = {
    "__init__": "TOP = 1\n",
    "tools/__init__": "from edited.tools.inner import depth\nWORDS = 3\n",
    "tools/inner": "from ..far import far\n\ndepth = far\n",
    "tools/plain": "PLAIN = 1\n",
    "far": "far = 1\n",
    "judges/__init__": "from edited.judges.mine import Judge\nfrom edited.judges.other import BONUS\n",
    "judges/mine": MODULE,
    "judges/shared": "BONUS = 1\n",
    "judges/other": "BONUS = 5\n",
}
Digest = Callable[..., str]


def forget() -> None:
    for known in (source_digest, source._module, source._find):
        known.cache_clear()


@pytest.fixture(autouse=True)
def anew():
    forget()
    yield
    forget()


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """The package ``edited``, in which ``judges`` registers all its plugins."""
    for name, text in PACKAGE.items():
        path = tmp_path / "edited" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "edited"
    unload()


def unload() -> None:
    for module in [m for m in sys.modules if m.split(".")[0] in ("edited", "acme")]:
        del sys.modules[module]
    importlib.invalidate_caches()
    forget()


@pytest.fixture
def digest(package) -> Digest:
    """``digest(file, text)``: write a file of the package and take the plugin's digest anew."""

    def take(name: str = "", text: str = "", of: str = "edited.judges.mine:Judge") -> str:
        if name:
            (package / f"{name}.py").write_text(text)
        unload()
        return source_digest(of)

    return take


def test_the_same_source_has_the_same_digest(digest):
    assert digest() == digest()


def test_an_edit_of_the_plugin_is_noticed(digest):
    assert digest() != digest("judges/mine", MODULE + "    malus = 1\n")


def test_an_edit_of_a_module_that_it_shares_with_its_neighbours_is_noticed(digest):
    assert digest() != digest("judges/shared", "BONUS = 2\n")


def test_an_edit_of_a_neighbour_that_it_does_not_import_is_not(digest):
    assert digest() == digest("judges/other", "BONUS = 6\n")


def test_one_more_registration_is_not(digest):
    assert digest() == digest("judges/__init__", PACKAGE["judges/__init__"] + "MORE = 1\n")


@pytest.mark.parametrize(
    ("statement", "file", "text"),
    [
        ("import edited.tools.plain", "tools/plain", "PLAIN = 2\n"),
        ("import os, edited.tools.plain as plain", "tools/plain", "PLAIN = 2\n"),
        ("from edited.tools.plain import PLAIN", "tools/plain", "PLAIN = 2\n"),
        ("from edited.tools import plain", "tools/plain", "PLAIN = 2\n"),
        ("from ..tools import plain", "tools/plain", "PLAIN = 2\n"),
        ("from ..tools.plain import *", "tools/plain", "PLAIN = 2\n"),
        ("from .other import BONUS", "judges/other", "BONUS = 6\n"),
        ("from . import other", "judges/other", "BONUS = 6\n"),
        ("def late():\n    from edited.tools import plain", "tools/plain", "PLAIN = 2\n"),
        ("try:\n    import edited.tools.plain\nexcept ImportError:\n    pass", "tools/plain", "PLAIN = 2\n"),
        ("from edited.tools import WORDS", "tools/__init__", "from edited.tools.inner import depth\nWORDS = 4\n"),
        ("from edited.tools import WORDS", "tools/inner", "from ..far import far\n\ndepth = far + 1\n"),
        ("from edited.tools import WORDS", "far", "far = 2\n"),
        ("import edited.tools.inner", "far", "far = 2\n"),
        ("import edited", "__init__", "TOP = 2\n"),
        ("from edited import TOP", "__init__", "TOP = 2\n"),
    ],
)
def test_whatever_it_imports_from_its_own_package_is_noticed(digest, statement, file, text):
    before = digest("judges/mine", f"{statement}\n{MODULE}")
    assert before != digest(file, text)


@pytest.mark.parametrize("test", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_what_is_imported_for_types_alone_is_not(digest, test):
    head = f"import typing\nfrom typing import TYPE_CHECKING\nif {test}:\n    import edited.tools.plain\n"
    before = digest("judges/mine", f"{head}else:\n    import edited.far\n{MODULE}")
    assert before == digest("tools/plain", "PLAIN = 2\n")
    assert before != digest("far", "far = 2\n")


def test_a_package_that_is_only_passed_through_is_not(digest):
    before = digest("judges/mine", f"import edited.tools.plain\nfrom edited.tools import plain\n{MODULE}")
    assert before == digest("tools/__init__", "WORDS = 7\n")


def test_a_circle_of_imports_ends(digest):
    assert digest("judges/shared", "import edited.judges.mine\nBONUS = 1\n") == digest()


def test_comments_and_blank_lines_are_no_code_and_docstrings_are_a_strangers_own(digest):
    text = 'class Judge:\n    """Rate it."""\n\n    bonus = """a\n\n    # b"""  # why\n'
    before = digest("judges/mine", text)
    assert before == digest("judges/mine", "# new\n" + text.replace("  # why", "").replace("Judge:", "Judge:  # so"))
    assert before == digest("judges/mine", text.replace("    bonus", "\n    # a word\n\n    bonus"))
    assert before != digest("judges/mine", text.replace("Rate it.", "Rate it well."))
    assert before != digest("judges/mine", text.replace("\n\n    # b", "\n    # b"))
    assert before != digest("judges/mine", text.replace("# b", "# c"))
    assert before != digest("judges/mine", text.replace("    bonus", "  bonus").replace('    """R', '  """R'))


# -------------------------------------------------------------------------------------------------- no text to be read


def test_what_has_no_source_is_told_by_its_bytes_and_a_namespace_by_nothing(digest, package):
    (package / "space").mkdir()
    imports = "import edited.space\nfrom edited.space import nothing\nfrom edited import absent, compiled, broken\n"
    guarded = "def late():\n    " + imports.replace("\n", "\n    ").rstrip() + "\n"
    before = digest("judges/mine", guarded + MODULE)
    (package / "compiled.abi3.so").write_bytes(b"\x7fELF 1")
    one = digest()
    (package / "compiled.abi3.so").write_bytes(b"\x7fELF 2")
    two = digest()
    assert len({before, one, two}) == 3
    broken = [digest("broken", text) for text in ("def (:\n", "def ((:\n", "x = '''\n")]
    assert len({two, *broken}) == 4


def test_bytecode_alone_is_told_by_its_bytes(digest, package):
    before = digest()
    shared = package / "judges" / "shared.py"
    py_compile.compile(str(shared), str(shared.with_suffix(".pyc")), doraise=True)
    shared.unlink()
    assert digest() != before


def test_a_package_in_a_zip_is_read(package, tmp_path, monkeypatch):
    def zipped(name: str, bonus: int) -> str:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for module, text in {**PACKAGE, "judges/shared": f"BONUS = {bonus}\n"}.items():
                archive.writestr(f"edited/{module}.py", text)
        unload()
        with monkeypatch.context() as patch:
            patch.syspath_prepend(tmp_path / name)
            return source_digest("edited.judges.mine:Judge")

    expected = source_digest("edited.judges.mine:Judge")
    assert zipped("a.zip", 1) == expected
    assert zipped("b.zip", 2) != expected


# ---------------------------------------------------------------------------------------------------------------- bases


@pytest.fixture
def edit(monkeypatch) -> Callable[[str, str, str], None]:
    """``edit(module, old, new)``: as if a module of this package, or any, had been edited."""

    def change(module: str, old: str, new: str) -> None:
        def edited(spec):
            text = read_source(spec)
            if spec.name == module:
                assert old in text
                text = text.replace(old, new, 1)
            return text

        monkeypatch.setattr(source, "read_source", edited)
        forget()

    return change


LLM_COT = "selfreward.plugins.judges.llm_cot:LlmCot"


@pytest.mark.parametrize(
    ("module", "old"),
    [
        ("selfreward.core.text.verdict", "re.IGNORECASE"),
        ("selfreward.core.text.chat", "generation_prompt=True"),
        ("selfreward.core.text.rubric", "def load"),
        ("selfreward.core.text.judge_prompts", "LOW, HIGH = 1, 10"),  # through the rubric
        ("selfreward.plugins.judges.review", "float = option(0.7"),
        ("selfreward.plugins.judges.llm_cot", "class LlmCot"),
    ],
)
def test_an_edit_of_what_a_built_in_judge_speaks_and_reads_through_is_noticed(edit, module, old):
    before = source_digest(LLM_COT)
    edit(module, old, f"{old}_")
    assert source_digest(LLM_COT) != before


@pytest.mark.parametrize(
    ("module", "old"),
    [
        ("selfreward.plugins.judges", "return ["),
        ("selfreward.plugins.judges.length", "class Length"),
        ("selfreward.core.run.progress", "class Screen"),
        ("selfreward.core.contracts.stages", "class Sampler"),
        ("selfreward.core.contracts.stages", '"""'),
        ("selfreward.core.text.verdict", '"""'),
    ],
)
def test_an_edit_of_what_it_does_not_use_is_not(edit, module, old):
    before = source_digest(LLM_COT)
    edit(module, old, old + "New words. " if old == '"""' else f"{old}_")
    assert source_digest(LLM_COT) == before


def test_a_core_class_among_the_bases_counts_with_its_own_body(edit):
    before = source_digest(LLM_COT)
    edit("selfreward.core.contracts.stages", "uses_model: ClassVar[bool] = ", "uses_model: ClassVar[bool] = not ")
    assert source_digest(LLM_COT) != before


def test_the_body_of_a_class_begins_with_its_decorators(monkeypatch):
    monkeypatch.setattr(source, "read_source", lambda spec: "import x\n\n@x.y(\n    1\n)\nclass Stage:\n    a = 1\n")
    from selfreward.core.contracts.stages import Stage

    assert source._class_code(Stage) == "@x.y(\n    1\n)\nclass Stage:\n    a = 1"


def test_a_strangers_judge_on_a_built_in_class_counts_what_that_one_is_made_of(digest, edit):
    digest("judges/mine", f"from {LLM_COT.split(':')[0]} import LlmCot\n\nclass Judge(LlmCot):\n    pass\n")
    before = source_digest("edited.judges.mine:Judge")
    for module, old in {"plugins.judges.review": "class AskingJudge", "core.text.verdict": "re.IGNORECASE"}.items():
        edit(f"selfreward.{module}", old, f"{old}_")
        assert source_digest("edited.judges.mine:Judge") != before, module
    edit("selfreward.plugins.judges.length", "class Length", "class Long")
    assert source_digest("edited.judges.mine:Judge") == before


def test_a_base_of_another_strangers_package_is_followed_and_a_librarys_is_not(digest, package):
    acme = package.with_name("acme")
    acme.mkdir()
    for name, text in {
        "__init__": "",
        "judge": "from selfreward import Judge\nfrom acme.deep import deep\n\nclass Base(Judge):\n    pass\n",
        "mixin": "from acme.other import other\n\nclass Mixin:\n    pass\n",
        "deep": "deep = 1\n",
        "other": "other = 1\n",
    }.items():
        (acme / f"{name}.py").write_text(text)

    def of(base: str) -> list[str]:
        module = "judge" if base == "Base" else "mixin"
        digest("judges/mine", f"from acme.{module} import {base}\n\nclass Judge({base}):\n    pass\n")
        found = []
        for name in ("deep", "other", "mixin", "judge"):
            text = (acme / f"{name}.py").read_text()
            before = digest()
            (acme / f"{name}.py").write_text(text + "more = 1\n")
            found += [name] if digest() != before else []
            (acme / f"{name}.py").write_text(text)
        return found

    assert of("Base") == ["deep", "judge"]
    assert of("Mixin") == ["mixin"]


def test_nothing_is_imported_to_be_read(digest, package):
    text = f"def late():\n    from edited.tools.heavy import x\n{MODULE}"
    (package / "tools" / "heavy.py").write_text("raise RuntimeError\n")
    before = digest("judges/mine", text)
    assert "edited.tools" not in sys.modules
    assert before != digest("tools/heavy", "raise ValueError\n")
