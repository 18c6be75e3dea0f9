"""The command line: the Hydra app, and the verbs beside it.

Exit codes: 0 fine, 2 the user's mistake, 3 a failure at run time. They are set here, outside ``hydra.main``: a task
raises and never exits, since an exit inside a task would end the rest of a sweep.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfreward.core.config.registry import did_you_mean
from selfreward.core.errors import SelfRewardError, StageError, UserError

ASK_TRACEBACK = "HYDRA_FULL_ERROR"
"""Hydra's own switch: with ``HYDRA_FULL_ERROR=1`` errors keep their traceback."""

QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""Our own bars and messages stand alone; set one of these yourself to hear the libraries as well."""

VERBS = {
    "plugins": "selfreward.core.commands.plugins:print_plugins",
    "show": "selfreward.core.commands.show:show",
    "compare": "selfreward.core.commands.compare:compare",
    "report": "selfreward.core.commands.report:report",
    "evaluate": "selfreward.core.commands.evaluate:evaluate",
    "export": "selfreward.core.commands.export:export",
}
"""What stands beside the Hydra app; each takes the rest of the command line."""

_CONFIG_DIR = ("--config-dir", "-cd")
_FLAGS_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--info", "-i", *_CONFIG_DIR)
_FLAGS = (
    *_FLAGS_WITH_VALUE, "-m", "--multirun", "-r", "--run", "--resolve", "--hydra-help", "--shell-completion", "-sc",
)  # fmt: skip
"""Hydra's flags that are passed on. The others name another primary config, which nobody has checked, or a pickle."""
_LOOK_ONLY = ("--hydra-help", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    asked = os.environ.get(ASK_TRACEBACK, "0") not in ("", "0")
    try:
        return _dispatch(arguments)
    except SelfRewardError as problem:
        if asked:
            traceback.print_exc()
        print(f"selfreward: {problem}", file=sys.stderr)
        return problem.exit_code
    except KeyboardInterrupt:
        print("selfreward: interrupted; the same command goes on from the last finished shard", file=sys.stderr)
        return 130


def _dispatch(arguments: list[str]) -> int:
    if arguments and arguments[0] in VERBS:
        module, _, function = VERBS[arguments[0]].partition(":")
        getattr(importlib.import_module(module), function)(arguments[1:])
        return 0
    if "--help" in arguments or "-h" in arguments:
        from selfreward.core.commands.plugins import print_help

        print_help()
        return 0
    if "--version" in arguments:
        from selfreward import __version__

        print(f"selfreward {__version__}")
        return 0
    return run_hydra(arguments)


def run_hydra(arguments: list[str]) -> int:
    """The Hydra app: one run, or the jobs of a sweep."""
    from selfreward.core.config.compose import bring, check, rewrite

    flags, overrides = _split(arguments)
    overrides = rewrite(overrides)
    multirun = "-m" in flags or "--multirun" in flags
    if not any(flag.split("=")[0] in _LOOK_ONLY for flag in flags):
        check(overrides, multirun, _config_dir(flags))
    elif not multirun:
        overrides += bring(overrides, _config_dir(flags))
    _launch(flags + overrides)
    return 0


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags first: Hydra's argparse fails on ``a=b -m c=d,e``."""
    flags: list[str] = []
    overrides: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument.startswith("-"):
            name = argument.split("=")[0]
            if name not in _FLAGS:  # Hydra's own parser would take shortened names, too
                raise UserError(
                    f"{name}: no such flag; {did_you_mean(name, _FLAGS) or 'there are: ' + ', '.join(_FLAGS)}"
                )
            flags.append(argument)
            if argument in _FLAGS_WITH_VALUE:
                flags += [value] if (value := next(rest, None)) is not None else []
        else:
            overrides.append(argument)
    return flags, overrides


def _config_dir(flags: Sequence[str]) -> str | None:
    for flag, value in zip(flags, [*flags[1:], ""], strict=False):
        name, _, given = flag.partition("=")
        if name in _CONFIG_DIR:
            return given or value
    return None


def _launch(arguments: list[str]) -> None:
    """Hand over to ``hydra.main``, compare the runs of a sweep, and tell all that ended badly."""
    from selfreward.core.config.compose import LEDGER, failures

    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger"
        ledger.touch()
        # with the first one set Hydra raises instead of printing a shortened traceback and leaving with exit code 1
        with _environment({ASK_TRACEBACK: "1", LEDGER: str(ledger)}):
            _run_hydra(arguments)
        finished = ledger.read_text(encoding="utf-8").splitlines()
    if len(finished) > 1:
        from selfreward.core.commands.compare import compare

        print()
        compare(finished)
    if failures:
        ended = list(failures)
        failures.clear()
        if len(ended) == 1:
            raise ended[0]
        refused = all(isinstance(each, UserError) for each in ended)
        raise UserError(map(str, ended)) if refused else StageError("\n".join(map(str, ended)))


def _run_hydra(arguments: list[str]) -> None:
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from selfreward.core.config.compose import CONFIG_MODULE, explain, job

    argv, sys.argv = sys.argv, ["selfreward", *arguments]
    try:
        hydra.main(version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name="config")(job)()
    except (HydraException, OmegaConfBaseException) as problem:
        raise UserError(explain(problem)) from problem
    except OSError as problem:  # of a sweep's folder: what a run meets, it tells itself
        raise UserError(f"a sweep cannot be kept there: {problem}; choose another folder with runs_dir=") from problem
    finally:
        sys.argv = argv


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def run_config(overrides: Sequence[str]) -> Any:
    """The checked config of these overrides, for use from Python: ``run_config(["judge=random"])``."""
    from selfreward.core.config.compose import compose_run, rewrite

    return compose_run(rewrite(list(overrides)))
