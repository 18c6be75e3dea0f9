"""Where configs and rubrics are found by name: the project's ``conf/`` first, then the folders that plugins add.

``selfreward.Rubric`` comes from here, so that a stranger's rubrics are found wherever a rubric is named.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from selfreward.core.config.registry import registry
from selfreward.core.text.rubric import Rubric, look_up_in

__all__ = ["Rubric", "rubric_folders", "search_folders"]


def search_folders() -> list[Path]:
    """Folders of the config search path."""
    return [Path(str(files("selfreward.conf"))), *registry().conf_folders]


def rubric_folders() -> list[Path]:
    """Folders in which rubrics are looked up."""
    return [folder / "rubric" for folder in search_folders()]


look_up_in(rubric_folders)
