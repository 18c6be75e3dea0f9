"""The report's monitor: written at a run's end, well or badly, and never the cause of one."""

from __future__ import annotations

import pytest
import yaml

from selfreward import Event, Severity
from selfreward.core.cli import run_config
from selfreward.plugins.monitors.report import Report, ReportConfig


@pytest.fixture
def run_dir(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(dict(run_config([]).composed), sort_keys=False))
    return tmp_path


def test_a_finished_run_says_where_its_report_is(run_dir):
    monitor = Report(ReportConfig(prompts=2))
    monitor.run_started(Event(run_dir))
    [finding] = monitor.run_finished(Event(run_dir))
    assert (finding.severity, finding.text) == (Severity.note, f"report {run_dir / 'report.html'}")
    assert "at most 2 prompts" in (run_dir / "report.html").read_text()


def test_a_failed_run_reports_its_error(run_dir):
    monitor = Report(ReportConfig())
    monitor.run_started(Event(run_dir))
    [finding] = monitor.run_failed(Event(run_dir, error="the judge <gave up>"))
    assert finding.severity is Severity.note
    assert "<pre>the judge &lt;gave up&gt;</pre>" in (run_dir / "report.html").read_text()


def test_a_run_that_was_refused_leaves_an_earlier_report_alone(run_dir):
    assert list(Report(ReportConfig()).run_failed(Event(run_dir, error="no such file"))) == []
    assert not (run_dir / "report.html").exists()


def test_a_report_that_cannot_be_written_does_not_end_the_run(run_dir):
    (run_dir / "metrics.json").write_text("{")
    monitor = Report(ReportConfig())
    monitor.run_started(Event(run_dir))
    [finding] = monitor.run_finished(Event(run_dir))
    assert finding.severity is Severity.warning
    assert "metrics.json is damaged" in finding.text
