"""The report: nothing in the data becomes markup, nothing is fetched, the same folder gives the same bytes."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from selfreward import Candidate, Judgement, Metric, Preference, Prompt, ScoredCandidate, UserError, build_report
from selfreward.core.cli import main, run_config
from selfreward.core.report.run_command import command
from selfreward.core.report.run_folder import read_run
from selfreward.core.report.visible import visible
from selfreward.core.run.folder import lay_out, link
from selfreward.core.store.artifacts import Key, Store

HOSTILE = "</script><img src=x onerror=alert(1)>"
CONTROLS = "bell\x07 null\x00 escape\x1b[31m turned\u202e &lt; <!-- <script>"
OVERRIDES = ["seed=3", "judge=length", "sampler.n=5", "iterations=2"]
FIGURES = [
    Metric("M0", "oracle", "true_score", 2.0, 1.5, 2.5, 40),
    Metric("M0", "loop", "response_length", 80.0, None, None, 40),
    Metric("sft", "loop", "training_rows", 20.0, None, None, 20),
    Metric("sft", "oracle", "true_score", 3.0, 2.5, 3.5, 40),
    Metric("M1", "loop", "training_rows", 8.0, None, None, 8),
    Metric("M1", "head_to_head", "win", 0.5, 0.4, 0.6, 40),
    Metric("M1", "head_to_head", "tie", 0.3, 0.2, 0.4, 40),
    Metric("M1", "head_to_head", "lose", 0.2, 0.1, 0.3, 40),
    Metric("M1", "stranger <b>", "$x$ & <i>", float("nan"), None, None, 1),
]


def write_run(folder: Path, metrics: list[Metric], prompts: int = 12) -> Path:
    """A run's folder, written as a run writes it: links into a store, two rounds of two shards each."""
    store = Store(folder / "store")
    run = folder / "runs" / "default" / "mine"
    lay_out(run, run_config(OVERRIDES))
    for name, model in (("ift", "M0"), ("iter-01", "sft")):
        tables: dict[str, Any] = {"1-prompts": Prompt, "2-candidates": Candidate, "3-judgements": Judgement,
                                  "4-training_set": Preference}  # fmt: skip
        plugin = {"name": "made_here", "options": {"init_from": "policy"}}
        artifacts = {
            place: store.artifact(Key(record.__name__, {"round": name, "model": model, "plugin": plugin}))
            for place, record in tables.items()
        }
        for shard in range(2):
            rows = judged(name, model, range(shard * prompts // 2, (shard + 1) * prompts // 2))
            for (place, artifact), part in zip(artifacts.items(), rows, strict=True):
                figures, examples = {"seconds": 1.5, "new_tokens": 100}, {}
                if place == "1-prompts" and name == "iter-01":
                    figures, examples = figures | {"dropped: too short": 4}, {"too short": [f"<i>fox</i> {shard}"]}
                artifact.write_shard(tables[place], part, figures, examples)
        for place, artifact in artifacts.items():
            artifact.finish()
            link(run / name / place, artifact.folder)
        checkpoint = store.artifact(Key("model", {"round": name, "plugin": plugin}))
        checkpoint.write_folder(lambda out, work: {"training_rows": prompts, "seconds": 9.0})
        link(run / name / "5-model", checkpoint.folder)
    (run / "metrics.json").write_text(json.dumps([asdict(m) for m in metrics]), encoding="utf-8")
    return run


def judged(name: str, model: str, numbers: range) -> tuple[list[Any], ...]:
    """Prompts, candidates, judgements and pairs; every text is hostile."""
    prompts = [Prompt.of(f"{name} prompt {n} {HOSTILE}", source=model) for n in numbers]
    groups = [
        [Candidate.of(p, f"{text} {HOSTILE}", k, origin=model, model=model) for k, text in enumerate(["yes", CONTROLS])]
        for p in prompts
    ]
    verdicts = [
        Judgement(c.candidate_id, "made_here", model, "-", [4.0 - 3 * k, None], 4.0 - 3 * k, [f"words {HOSTILE}"])
        for group in groups
        for k, c in enumerate(group)
    ]
    pairs = [
        Preference.of(p, ScoredCandidate(a, 4.0), ScoredCandidate(b, 1.0))
        for p, (a, b) in zip(prompts, groups, strict=True)
    ]
    return prompts, [c for group in groups for c in group], verdicts, pairs


class Page(html.parser.HTMLParser):
    """What a browser would see of the page: its tags with their attributes, and the text of each script and style."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.raw: dict[str, list[str]] = {"style": [], "script": [], "data": []}
        self.open = ""
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        self.open = "data" if ("type", "application/json") in attributes else tag

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open in self.raw:
            self.raw[self.open].append(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder that no test changes, with the report in it."""
    folder = write_run(tmp_path_factory.mktemp("written"), FIGURES)
    build_report(folder)
    return folder


@pytest.fixture
def run_folder(written: Path, tmp_path: Path) -> Path:
    """A run's folder of the test's own, as before its report."""
    place = written.relative_to(written.parents[2])
    shutil.copytree(written.parents[2], tmp_path, symlinks=True, dirs_exist_ok=True)
    (tmp_path / place / "report.html").unlink()
    return tmp_path / place


@pytest.fixture(scope="module")
def page(written: Path) -> tuple[str, Page]:
    """The report of that run, as text and as a browser would see it."""
    text = (written / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


def page_of(folder: Path, **options: Any) -> tuple[str, Page]:
    text = build_report(folder, **options).read_text(encoding="utf-8")
    return text, Page(text)


# ------------------------------------------------------------------------------------------------------------ untrusted


def test_texts_of_the_data_never_become_markup(run_folder):
    text, page = page_of(run_folder, error=f"a judge said {HOSTILE}{CONTROLS}")
    assert page.tags["img"] == 0
    assert page.tags["script"] == 2
    assert page.tags["i"] == page.tags["b"] == 0
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", text)
    rows = json.loads("".join(page.raw["data"]))
    assert len(rows) == 24
    assert {row["answers"][0]["text"] for row in rows} == {f"yes {HOSTILE}"}
    assert rows[0]["answers"][1]["text"].startswith("bell\u2407 null\u2400 escape\u241b[31m turned[U+202E] &lt; <!--")
    assert f"a judge said {HOSTILE}bell\u2407" in page.text


def test_nothing_is_fetched_and_only_its_own_script_and_style_may_run(page):
    text, page = page
    [policy] = [value for tag, _, value in page.attributes if tag == "meta" and value.startswith("default-src")]
    [style], [script] = page.raw["style"], page.raw["script"]
    hashes = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (script, style)]
    assert policy.split("; ") == [
        "default-src 'none'", f"script-src 'sha256-{hashes[0]}'", f"style-src 'sha256-{hashes[1]}'", "base-uri 'none'",
        "form-action 'none'",
    ]  # fmt: skip
    assert text.index("Content-Security-Policy") < text.index("<style>")
    addresses = [value for _, name, value in page.attributes if name in ("src", "href", "action", "srcset", "data")]
    assert addresses
    assert all(value.startswith("#") for value in addresses)
    assert "url(http" not in text
    assert "@import" not in style


def test_ids_are_unique_and_every_reference_has_its_target(page):
    _, page = page
    ids = Counter(value for _, name, value in page.attributes if name == "id")
    assert max(ids.values()) == 1
    used = {v.removeprefix("#") for _, name, v in page.attributes if name == "href"}
    used |= {i for _, name, v in page.attributes for i in re.findall(r"url\(#([^)]+)\)", v)}
    used |= {i for _, name, v in page.attributes if name == "aria-labelledby" for i in v.split()}
    assert used <= set(ids)


@given(st.text())
def test_visible_text_can_be_written_into_any_page(text):
    seen = visible({text: [text]})
    [(key, [value])] = seen.items()
    assert key == value == visible(value)
    value.encode("utf-8")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", value)


# -------------------------------------------------------------------------------------------------------------- content


def test_the_same_folder_gives_the_same_bytes(written, run_folder, tmp_path, monkeypatch):
    import matplotlib

    first = (written / "report.html").read_bytes()
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 9.0)
    assert build_report(run_folder).read_bytes() == first
    assert matplotlib.rcParams["lines.linewidth"] == 9.0
    assert sorted(p.name for p in run_folder.iterdir()) == [
        "config.yaml", "ift", "iter-01", "metrics.json", "overrides.yaml", "report.html"
    ]  # fmt: skip
    assert str(tmp_path.parent).encode() not in first


def test_figures_have_their_intervals_and_rounds_their_models(written, page):
    _, page = page
    words = " ".join(page.text.split())
    assert "True score 2.00 → 3.00 from M0 to sft" in words
    assert "True score (0–5)21.50–2.5032.50–3.50" in words  # 2 (1.50–2.50), 3 (2.50–3.50), set apart by the style
    assert "M0 → sft" in words
    assert "sft → M1" in words
    assert [round.makes for round in read_run(written).rounds] == ["sft", "M1"]
    assert "1 of 2 iterations" in words
    assert "stranger <b>" in words
    assert "iter-01promptstoo short8<i>fox</i> 0<i>fox</i> 1" in words


def test_the_sample_is_stated_seeded_and_marked(run_folder):
    _, page = page_of(run_folder, prompts=3)
    rows = json.loads("".join(page.raw["data"]))
    assert Counter(row["round"] for row in rows) == {"ift": 3, "iter-01": 3}
    assert "at most 3 prompts of every round, drawn with the run's seed 3" in " ".join(page.text.split())
    for row in rows:
        chosen, rejected = row["answers"]
        assert (chosen["role"], rejected["role"]) == ("chosen", "rejected")
        assert (chosen["score"], rejected["score"]) == (4, 1)
        assert chosen["votes"] == [{"score": 4, "words": f"words {HOSTILE}"}, {"score": None, "words": ""}]
    config = yaml.safe_load((run_folder / "config.yaml").read_text())
    (run_folder / "config.yaml").write_text(yaml.safe_dump(config | {"seed": 4}, sort_keys=False))
    _, other = page_of(run_folder, prompts=3)
    assert [r["id"] for r in json.loads("".join(other.raw["data"]))] != [row["id"] for row in rows]


@pytest.mark.parametrize("overrides", [
    OVERRIDES,
    ["selector=positive_only"],  # its partner is said, too
    ["evaluators=[oracle]", "prompt_filters=[]", "judge.rubric='my, odd rubric.yaml'", "optimizer.lr=1e-5"],
    ["recipe.ift.optimizer.lr=0.001", "recipe.eft.source=none", "sampler.top_p=1.0", "data=jsonl", "data.path='a b=c'"],
])  # fmt: skip
def test_the_command_gives_the_same_config_again(tmp_path, overrides):
    config = run_config([*overrides, "runs_dir=elsewhere"])
    lay_out(tmp_path, config)
    told = shlex.split(command(read_run(tmp_path)))
    assert told[:3] == ["python", "-m", "selfreward"]
    assert run_config([*told[3:], "runs_dir=elsewhere"]).composed == config.composed
    assert "elsewhere" not in told


def test_a_run_that_did_not_keep_its_command_tells_none(run_folder):
    (run_folder / "overrides.yaml").unlink()
    assert command(read_run(run_folder)) == ""
    assert "The same again" not in page_of(run_folder)[0]


# ------------------------------------------------------------------------------------------------------- what is absent


def test_plots_without_figures_are_left_out(run_folder, page):
    _, page = page
    assert {"True score", "Win, tie, lose", "Answer length", "The judge's scores", "Seconds"} <= titles(page)
    assert not {"Judge agreement", "Fully correct, fluent", "Training rows per prompt"} & titles(page)
    (run_folder / "metrics.json").unlink()
    assert titles(page_of(run_folder)[1]) == {"The judge's scores", "Seconds", "Tokens written"}


def titles(page: Page) -> set[str]:
    """The plots that are there."""
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    return {label.split(". ")[0] for label in labels}


def test_a_run_that_failed_early_has_its_error_at_the_top(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(dict(run_config([]).composed), sort_keys=False))
    text, page = page_of(tmp_path, error="judge 'x' failed at candidate 7")
    assert "judge 'x' failed at candidate 7" in page.text
    assert text.index("The run failed") < text.index('class="choices"')
    assert page.tags["svg"] == page.tags["script"] == 0
    assert "There are no prompts yet." in page.text


def test_a_round_that_stopped_after_its_prompts(run_folder):
    for place in ("2-candidates", "3-judgements", "4-training_set", "5-model"):
        (run_folder / "iter-01" / place).unlink()
    rows = json.loads("".join(page_of(run_folder)[1].raw["data"]))
    assert [row["answers"] for row in rows if row["round"] == "iter-01"] == [[]] * 12


def test_the_verb(run_folder, tmp_path, capsys):
    assert main(["report", str(run_folder), "--prompts", "1"]) == 0
    assert capsys.readouterr().out == f"{run_folder / 'report.html'}\n"
    assert main(["report", str(tmp_path)]) == 2
    assert "is not the folder of a run: it has no config.yaml" in capsys.readouterr().err
    with pytest.raises(UserError):
        build_report(tmp_path)


def test_a_damaged_table_is_told_by_its_name(run_folder, capsys):
    path = (run_folder / "iter-01" / "2-candidates" / "00000.parquet").resolve()
    path.write_bytes(b"no parquet")
    assert main(["report", str(run_folder)]) == 3
    assert "00000.parquet cannot be read" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------ a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe", "--hide-scrollbars",
]  # fmt: skip


AT_3_AND_4 = """
import fcntl, os, sys
down, up = (fcntl.fcntl(int(pipe), fcntl.F_DUPFD, 10) for pipe in sys.argv[1:3])
os.dup2(down, 3), os.dup2(up, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Chromium listens at file descriptor 3 and answers at 4."""


class Browser:
    """Headless Chromium with one page, spoken to over DevTools' pipe."""

    def __init__(self, profile: Path, url: str) -> None:
        down, self.sending = os.pipe()
        self.hearing, up = os.pipe()
        command = [sys.executable, "-c", AT_3_AND_4, str(down), str(up), str(CHROMIUM), *FLAGS]
        command += [f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(command, pass_fds=(down, up), stderr=subprocess.DEVNULL)
        os.close(down)
        os.close(up)
        self.calls, self.heard, self.events, self.session = 0, b"", [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)
        while "Page.loadEventFired" not in {event["method"] for event in self.events}:
            self.events.append(self.hear())

    def hear(self) -> dict[str, Any]:
        while b"\0" not in self.heard:
            self.heard += os.read(self.hearing, 1 << 16) or pytest.fail("Chromium has gone")
        message, self.heard = self.heard.split(b"\0", 1)
        return json.loads(message)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.calls += 1
        to = {"sessionId": self.session} if self.session else {}
        message = {"id": self.calls, "method": method, "params": parameters, **to}
        os.write(self.sending, json.dumps(message).encode() + b"\0")
        while (answer := self.hear()).get("id") != self.calls:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def does(self, expression: str) -> Any:
        """The value of a JavaScript expression on the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def close(self) -> None:
        self.session = None
        self.call("Browser.close")
        self.process.wait(30)


@pytest.fixture
def browser(run_folder, tmp_path):
    if not CHROMIUM:
        pytest.skip("no chromium is installed")
    path = build_report(run_folder, error=f"it broke at {HOSTILE}")
    browser = Browser(tmp_path / "profile", path.as_uri())
    yield browser
    browser.close()


SET = """(id, value, event) => {
  const at = document.getElementById(id);
  at.value = value;
  at.dispatchEvent(new Event(event));
}"""
ROWS = "[...document.querySelectorAll('tr.line .open')].map((open) => open.textContent)"


def test_the_page_works_from_disk_and_complains_of_nothing(browser):
    shown = browser.does(ROWS)
    assert len(shown) == 24
    assert all(text.endswith(HOSTILE) for text in shown)

    browser.does(f"({SET})('round', 'iter-01', 'change')")
    browser.does(f"({SET})('search', 'PROMPT 1 </SCRIPT>', 'input')")
    assert {re.sub(" <.*", "", text) for text in browser.does(ROWS)} == {"iter-01 prompt 1"}
    assert browser.does("document.getElementById('count').textContent") == "1 of 24 prompts"
    browser.does(f"({SET})('kind', 'left', 'change')")
    assert browser.does(ROWS) == []
    assert browser.does("document.getElementById('none').hidden") is False

    for name, event in (("round", "change"), ("kind", "change"), ("search", "input")):
        browser.does(f"({SET})('{name}', '', '{event}')")
    browser.does("document.querySelector('th.prompt button').click()")
    assert browser.does(ROWS) == sorted(shown)
    browser.does("document.querySelector('th.prompt button').click()")
    assert browser.does(ROWS) == sorted(shown, reverse=True)
    assert browser.does("document.querySelector('th.prompt').getAttribute('aria-sort')") == "descending"

    browser.does("document.querySelector('.open').focus()")
    for kind in ("keyDown", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
        )
    cards = browser.does("[...document.querySelectorAll('.more:not([hidden]) article')].map((card) => card.innerText)")
    assert [("chosen" in card, "rejected" in card) for card in cards] == [(True, False), (False, True)]
    assert all("vote 2: unreadable" in card and HOSTILE in card for card in cards)

    assert browser.does("document.images.length") == 0
    complaints = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
    assert [event for event in browser.events if event["method"] in complaints] == []
    asked = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert all(url.endswith("/report.html") for url in asked)


def test_the_page_fits_and_can_be_read(browser):
    ink, card, note, paper = (
        f"getComputedStyle(document.querySelector('{where}')).{what}"
        for where, what in (
            ("figure svg text", "fill"), ("figure", "backgroundColor"), (".note", "color"), ("body", "backgroundColor"),
        )
    )  # fmt: skip
    browser.does("document.querySelector('.open').click()")
    grounds = set()
    for scheme, width in itertools.product(("light", "dark"), (400, 1600)):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        assert browser.does("document.documentElement.scrollWidth") == width, scheme
        assert contrast(browser.does(ink), browser.does(card)) > 7, scheme
        assert contrast(browser.does(note), browser.does(paper)) > 4.5, scheme
        grounds.add(browser.does(paper))
    assert len(grounds) == 2


def contrast(one: str, other: str) -> float:
    """(L1 + 0.05) / (L2 + 0.05) of WCAG 2.2, for ``rgb(r, g, b)``."""

    def luminance(colour: str) -> float:
        parts = [int(n) / 255 for n in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
