"""Which model plays which role: ``base``, ``policy``, ``reward``, and every model by the paper's name (M0, sft, M1)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from selfreward.core.config.registry import did_you_mean
from selfreward.core.contracts.model import Model, ModelRef
from selfreward.core.contracts.records import digest
from selfreward.core.contracts.rounds import Choice, Round
from selfreward.core.errors import UserError
from selfreward.core.store.digests import file_digest

READ = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""Files of a checkpoint that say what it is: its content is theirs."""


class Roles:
    """The models of a run so far."""

    def __init__(self, model: Choice) -> None:
        self._choice = model
        self._models: dict[str, ModelRef] = {}
        self._foreign: dict[str, ModelRef] = {}
        self._rewards: set[str] = set()

    def enter(self) -> None:
        """The roles that are there before the first round.

        Raises:
            UserError: no such checkpoint.
        """
        base = base_model(self._choice)
        self._models = {"base": base, "M0": replace(base, name="M0"), "policy": replace(base, name="M0")}

    def __getitem__(self, name: str) -> ModelRef:
        """The model that plays the role, or the one of that folder.

        Raises:
            UserError: no model plays it (yet).
        """
        if name in self._models:
            return self._models[name]
        if name in self._foreign or Path(name).is_dir():
            if name not in self._foreign:
                self._foreign[name] = replace(base_model(self._choice, path=name), name=name)
            return self._foreign[name]
        hint = did_you_mean(name, self._models) or f"at this point there are: {', '.join(self._models)}"
        raise UserError(f"no model plays the role '{name}'; {hint}, or the path of a model folder")

    def __contains__(self, name: str) -> bool:
        return name in self._models or Path(name).is_dir()

    def made(self, round: Round, model: ModelRef) -> None:
        """The model that a round has made takes its roles."""
        self._models[round.makes] = self._models["reward" if round.makes_reward else "policy"] = model
        self._rewards |= {round.makes} if round.makes_reward else set()

    def policies(self) -> list[str]:
        """The policies made so far, by the paper's names, in order."""
        return [name for name in self._models if name not in {"base", "policy", "reward"} | self._rewards]


def base_model(choice: Choice, path: str | None = None) -> ModelRef:
    """The base checkpoint (or another folder, with the same settings), and a key over its content.

    Raises:
        UserError: no such folder, and no hub that has it.
    """
    model: Model = choice.build()
    where = path or model.path()
    if not Path(where).is_dir():
        where = _fetch(where)
    config = model.config
    kept = {pattern.removeprefix("*") for pattern in READ}
    files = sorted(p for p in Path(where).iterdir() if p.is_file() and p.suffix in kept)
    template = config.chat_template
    if template and Path(template).is_file():
        template = Path(template).read_text(encoding="utf-8")
    key = digest([[p.name, file_digest(p)] for p in files], config.dtype.value, template)
    return ModelRef("base", where, key, config)


def _fetch(name: str) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return snapshot_download(name, allow_patterns=list(READ))
    except HFValidationError:
        raise UserError(f"model.path={name}: no such folder") from None
    except Exception as problem:  # the hub's client raises many kinds; all mean that the model cannot be had
        first = str(problem).strip().splitlines()[0]
        raise UserError(f"model.path={name}: no such folder, and the hub did not give it ({first})") from None
