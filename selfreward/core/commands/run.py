"""``selfreward run``, or no verb at all: one run, the jobs of a sweep, or a look at the config.

A single run and ``--cfg job`` are composed once, here; sweeps and Hydra's other flags are handed to ``hydra.main``. A
task raises and never exits, since an exit inside a task would end the rest of a sweep.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import Container, DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from selfreward.core.config.compose import CONFIG_MODULE, LAUNCHERS, Composed, check, explain, look, rewrite, settle
from selfreward.core.config.registry import did_you_mean
from selfreward.core.config.resolve import RunConfig
from selfreward.core.errors import SelfRewardError, StageError, UserError

LEDGER = "SELFREWARD_LEDGER"
"""Names the file in which the jobs of a sweep, in whatever process, enter their folders when they end well."""

failures: list[SelfRewardError] = []
"""How the jobs of this process that ended badly did."""

_CONFIG_DIR = ("--config-dir", "-cd")
_CFG, _PACKAGE = ("--cfg", "-c"), ("--package", "-p")
_FLAGS_WITH_VALUE = (*_CFG, *_PACKAGE, "--info", "-i", *_CONFIG_DIR)
_SWEEP = ("-m", "--multirun")
_FLAGS = (*_FLAGS_WITH_VALUE, *_SWEEP, "-r", "--run", "--resolve", "--hydra-help", "--shell-completion", "-sc")
"""Hydra's flags that are passed on. The others name another primary config, which nobody has checked, or a pickle."""
_LOOK_ONLY = {"--hydra-help", *_CFG, "--info", "-i", "--shell-completion", "-sc"}


def run(arguments: Sequence[str]) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: a mistake, before any work.
        StageError: a failure at run time; of a sweep, all of them, after its last job.
    """
    flags, overrides = _split(arguments)
    overrides = rewrite(overrides)
    names = {flag.split("=")[0] for flag in flags if flag.startswith("-")}
    folder = _value(flags, _CONFIG_DIR)
    multirun = bool(names & {*_SWEEP})
    if not names & _LOOK_ONLY:
        composed, checked = check(overrides, multirun, folder)
        sweeps = multirun or composed.config.hydra.mode is RunMode.MULTIRUN
        if checked and not sweeps and names <= {*_CONFIG_DIR, "-r", "--run"}:
            _run_one(composed, checked)
            return
    elif not multirun:
        composed = look(overrides, folder)
        if _value(flags, _CFG) == "job" and names <= {*_CFG, *_PACKAGE, *_CONFIG_DIR, "--resolve"}:
            _print_config(composed.config, _value(flags, _PACKAGE), "--resolve" in names)
            return
        overrides += composed.partner
    _launch(flags + overrides)


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


def _value(flags: Sequence[str], names: Sequence[str]) -> str | None:
    """What the flag of these names is given, as ``--flag=value`` or ``--flag value``."""
    for flag, value in zip(flags, [*flags[1:], ""], strict=False):
        name, _, given = flag.partition("=")
        if name in names:
            return given or value
    return None


def _print_config(config: DictConfig, package: str | None, resolve: bool) -> None:
    """What ``hydra.main`` prints for ``--cfg job``."""
    HydraConfig.instance().set_config(config)
    config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    shown = config if package in (None, "_global_") else OmegaConf.select(config, str(package))
    if shown is None:
        raise UserError(f"--package {package}: the config has no such part")
    if not isinstance(shown, Container):
        print(shown)
        return
    if resolve:
        OmegaConf.resolve(shown)
    if shown is not config:
        print(f"# @package {package}")
    print(OmegaConf.to_yaml(shown), end="")


def _run_one(composed: Composed, checked: RunConfig) -> None:
    """What ``hydra.main`` does for a single run, with a config that has been composed already."""
    from hydra._internal.callbacks import Callbacks
    from hydra.core.utils import configure_log, run_job
    from hydra.types import HydraContext

    from selfreward.core.runner import run as run_all

    config = composed.config
    assert composed.loader
    with open_dict(config.hydra):
        config.hydra.mode = RunMode.RUN
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    ended: list[SelfRewardError] = []

    def task(_: DictConfig) -> None:
        try:
            run_all(checked)
        except SelfRewardError as problem:
            ended.append(problem)  # raised again outside Hydra, which would print a message of its own beside ours

    done = run_job(task, config, "hydra.run.dir", None, HydraContext(composed.loader, Callbacks()))
    if ended:
        raise ended[0]
    _ = done.return_value  # raises whatever else the task raised


# -------------------------------------------------------------------------------------------------------------- sweeps


def job(config: DictConfig) -> None:
    """The Hydra task of a sweep: one run."""
    from hydra import compose

    from selfreward.core.runner import run as run_all

    hydra_config = HydraConfig.get()
    overrides = list(hydra_config.overrides.task)
    with open_dict(config):
        config.hydra = hydra_config
    try:
        again = lambda more: compose("config", [*overrides, *more], return_hydra_config=True)  # noqa: E731
        folder = run_all(settle(config, overrides, again).resolved())
        ledger = os.environ.get(LEDGER)
        if ledger and (folder / "metrics.json").exists():  # not so after a dry run
            with open(ledger, "a", encoding="utf-8") as lines:
                lines.write(f"{folder}\n")
    except SelfRewardError as problem:
        if not str(hydra_config.launcher._target_).startswith(LAUNCHERS[0]):
            raise  # another process: its list is not ours
        if hydra_config.mode is not RunMode.RUN:
            problem = type(problem)(f"{' '.join(overrides)}: {problem}")
        failures.append(problem)  # raised again outside Hydra, which would print a message of its own beside ours


def _launch(arguments: list[str]) -> None:
    """Hand over to ``hydra.main``, compare the runs of a sweep, and tell all that ended badly."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger"
        ledger.touch()
        # with the first one set Hydra raises instead of printing a shortened traceback and leaving with exit code 1
        with _environment({"HYDRA_FULL_ERROR": "1", LEDGER: str(ledger)}):
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
