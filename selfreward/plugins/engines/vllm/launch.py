"""Start and stop vLLM's offline engine, and leave the process as it was found.

One engine on one device runs in this process (``VLLM_ENABLE_V1_MULTIPROCESSING=0``): no second interpreter, no queue
between them. Tensor parallelism and several replicas run their engine cores in child processes. vLLM reads its settings
from environment variables, sets more of them (``LD_PRELOAD`` among them, which every later child would inherit),
replaces ``torch.set_num_threads``, binds memory to one NUMA node, and talks: all of that ends with the launch.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfreward import ModelRef
from selfreward.plugins.engines.vllm.reload import tensors

if TYPE_CHECKING:
    from vllm import LLM

_EXTENSION = "selfreward.plugins.engines.vllm.reload.Reload"
_GIB = 1 << 30
_SMALL_MODEL = 50_000_000  # parameters below which a second CPU thread costs more than it brings


def launch(path: str, *, separate: bool, **options: Any) -> LLM:
    """vLLM's ``LLM`` on a checkpoint; ``separate``: its core in a child process.

    Raises:
        ImportError: vLLM is not installed, or something it imports is broken.
        Exception: whatever vLLM says about the checkpoint.
    """
    settings = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": str(int(separate)),
        "VLLM_NO_USAGE_STATS": "1",
        # what goes wrong in this process is raised in it; a child's last words are in its log alone
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR" if separate else "CRITICAL"),
        "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore"),
        # otherwise every CPU worker wants a NUMA node of its own, and replicas would sit on the same cores
        "VLLM_CPU_OMP_THREADS_BIND": os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
    }
    with (
        _quiet("VLLM_LOGGING_LEVEL" in os.environ),
        _environment(settings),
        _untouched_torch(),
        warnings.catch_warnings(action="ignore"),  # of vLLM about torch
    ):
        from vllm import LLM
        from vllm.distributed import cleanup_dist_env_and_memory

        try:
            return LLM(
                model=path,
                load_format="safetensors",
                trust_remote_code=False,
                generation_config="vllm",  # sampling is what the request says, not what the checkpoint recommends
                enable_prefix_caching=True,
                use_fp64_gumbel=True,  # the noise that engine=transformers draws
                logprobs_mode="raw_logprobs",
                disable_log_stats=True,
                use_tqdm_on_load=False,
                worker_extension_cls=_EXTENSION,
                **options,
            )
        except BaseException:
            cleanup_dist_env_and_memory()  # the process groups of an engine that came no further
            raise


def shut_down(engines: list[LLM]) -> None:
    """Stop engine cores, their processes and process groups, and give the memory back; empties the list."""
    import torch

    with _quiet():
        while engines:
            engine = engines.pop()
            engine.llm_engine.engine_core.shutdown()
            engine.renderer.shutdown()
            del engine
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def options_here(kv_cache_gib: float, gpu_memory_utilization: float, enforce_eager: bool | None) -> dict[str, Any]:
    """The options that depend on whether there is a GPU."""
    import torch

    if torch.cuda.is_available():
        return {"gpu_memory_utilization": gpu_memory_utilization, "enforce_eager": bool(enforce_eager)}
    # blocks of 32 tokens: the smallest that suit the CPU kernels, so that the most of a prefix is shared
    cpu = {"kv_cache_memory_bytes": int(kv_cache_gib * _GIB), "block_size": 32}
    # prompts in one piece: after a part of one, vLLM 0.32 turns a seeded generator back, which a CPU's cannot
    return cpu | {"enable_chunked_prefill": False, "enforce_eager": enforce_eager is not False}


def devices(replica: int, count: int) -> dict[str, Any]:
    """The GPUs of a replica that runs on ``count`` of them."""
    import torch

    return {"device_ids": list(range(replica * count, (replica + 1) * count))} if torch.cuda.is_available() else {}


def threads(model: ModelRef) -> int:
    """CPU threads to run a model with, 0: as many as there are; a small one is fastest with one."""
    import torch

    if torch.cuda.is_available() or not model.is_local:
        return 0
    parameters = sum(math.prod(size) for _, size in tensors(Path(model.path)).values())
    return int(parameters < _SMALL_MODEL)


def forgetting(engine: LLM) -> Callable[[], object]:
    """What an engine does before it takes up work: on a CPU it forgets the prefixes of earlier calls.

    A prefix from the cache gives the last bits of a float32 number another turn than one that is computed; this way a
    call gives the same bytes whatever was asked before.
    """
    import torch

    return (lambda: None) if torch.cuda.is_available() else engine.reset_prefix_cache


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """With these environment variables; afterwards with those from before."""
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _quiet(asked_for: bool = False) -> Iterator[None]:
    """Without vLLM's and torch's remarks, unless they were asked for."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        if not asked_for:
            logging.disable(logging.WARNING)
            warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)


@contextlib.contextmanager
def _untouched_torch() -> Iterator[None]:
    """Keep what the CPU worker would change for the whole process: thread counts and the memory policy."""
    import torch

    set_num_threads = torch.set_num_threads
    importlib.import_module("vllm._custom_ops")  # loads vLLM's kernels
    kernels: Any = torch.ops._C
    bind = getattr(kernels, "init_cpu_memory_env", None) if not torch.cuda.is_available() else None
    if bind is not None:
        kernels.init_cpu_memory_env = lambda nodes: None
    try:
        yield
    finally:
        torch.set_num_threads = set_num_threads
        if bind is not None:
            kernels.init_cpu_memory_env = bind
