"""What keys are made of, besides inputs and models: plugins with their options and files, the data, the engine."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from selfreward.core.config.resolve import Match, RunConfig
from selfreward.core.contracts.options import plain, without_execution
from selfreward.core.contracts.records import digest
from selfreward.core.contracts.rounds import Choice
from selfreward.core.contracts.stages import Stage
from selfreward.core.run.context import Files
from selfreward.core.store.digests import file_digest
from selfreward.core.store.source import source_digest


class Identity:
    """The parts of keys that a run's config decides. Equal parts, equal rows."""

    def __init__(self, config: RunConfig, files: Files) -> None:
        self._config, self._files = config, files
        self._exact = config.options.store.match is Match.exact

    def of(self, choice: Choice, plugin: Stage | None = None) -> dict[str, Any]:
        """A plugin's name, source, options, the content of the files it reads, and its members'."""
        options = plain(choice.config)
        files = (plugin or choice.build()).files(self._files)
        members = {name: self.of(member) for name, member in choice.members.items()}
        return {
            "name": choice.name,
            "source": source_digest(choice.plugin.target),
            "options": options if self._exact else without_execution(choice.config, options),
            "files": [file_digest(Path(path)) for path in files],
            **({"members": members} if members else {}),
        }

    @cached_property
    def data(self) -> str:
        """The data: its plugin, its options and the content of its files, wherever they lie."""
        choice = self._config.choices["data"]
        options = {name: value for name, value in plain(choice.config).items() if not name.endswith("path")}
        files = [file_digest(Path(path)) for path in self._files.data.files()]
        return digest(choice.name, source_digest(choice.plugin.target), options, files)

    @property
    def training(self) -> dict[str, Any]:
        """Model settings that change what training makes."""
        settings = plain(self._files.model_config)
        return {"lora": settings["lora"], "dtype": settings["dtype"]}

    @property
    def execution(self) -> dict[str, Any]:
        """Engine settings, where ``store.match=exact`` makes them part of the keys."""
        if not self._exact:
            return {}
        engine = self._config.choices["engine"]
        return {"execution": [engine.name, plain(engine.config), self._config.options.shard_size]}
