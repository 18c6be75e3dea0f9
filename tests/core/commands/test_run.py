"""One composition is enough, and what Hydra would do with it is done."""

from __future__ import annotations

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from selfreward.core.cli import main
from selfreward.core.commands.run import _launch
from selfreward.core.config.compose import rewrite


@pytest.fixture
def compositions(monkeypatch, tmp_path):
    """The overrides of every composition so far."""
    monkeypatch.chdir(tmp_path)
    made, load = [], ConfigLoaderImpl.load_configuration

    def counted(self, config_name, overrides, *arguments, **options):
        made.append(list(overrides))
        return load(self, config_name, overrides, *arguments, **options)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    return made


@pytest.mark.parametrize(
    "command", ["--cfg job", "judge=random --cfg job", "dry_run=true", "dry_run=true judge=random"]
)
def test_a_command_composes_once(compositions, capsys, command):
    assert main(command.split()) == 0
    assert len(compositions) == 1


@pytest.mark.parametrize("command", ["selector=positive_only --cfg job", "selector=positive_only dry_run=true"])
def test_only_a_partner_that_comes_along_is_worth_a_second_time(compositions, capsys, command):
    assert main(command.split()) == 0
    assert len(compositions) == 2
    assert compositions[1] == [*compositions[0], "optimizer=sft"]


@pytest.mark.parametrize(
    "flags",
    [["--cfg", "job"], ["--cfg=job", "--resolve"], ["-c", "job", "-p", "judge"], ["--cfg", "job", "-p", "judge.votes"]],
    ids=" ".join,
)
def test_the_config_is_printed_as_hydra_prints_it(capsys, flags):
    assert main([*flags, "judge.votes=5", "experiment=srlm_paper"]) == 0
    ours = capsys.readouterr().out
    _launch([*flags, *rewrite(["judge.votes=5", "experiment=srlm_paper"])])
    assert ours == capsys.readouterr().out


def test_a_part_that_is_not_there_is_missed(capsys):
    assert main(["--cfg", "job", "--package", "jugde"]) == 2
    assert "--package jugde: the config has no such part" in capsys.readouterr().err


def test_hydras_own_settings_of_a_single_run_are_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["dry_run=true", "hydra.run.dir=there", "hydra.output_subdir=saved"]) == 0
    saved = {path.name for path in (tmp_path / "there" / "saved").iterdir()}
    assert saved == {"config.yaml", "hydra.yaml", "overrides.yaml"}
