"""Fits a model by several workers: processes that each make the gradient of a share of every batch.

In: what `training/loop.fit_model` takes, how many workers, and what starts them (torchrun's elastic agent on this
machine, or Ray Train). Out: the model fitted in place and the same FitReport. A batch is the one that a single worker
would have had and its loss weighs every row alike, so that only the noise of dropout differs from a single worker's
fit. The only door to torch.distributed, torchrun and Ray; knows nothing about what a batch is.

The train part lies in files that all workers of a machine map, so that its arrays are in memory once. When one of them
dies, all start again from the checkpoint of the last epoch that was finished, and end with the same bytes.
"""

import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import distributed

from recops import errors
from recops.data.content import ItemContent
from recops.data.interactions import Interactions
from recops.data.vocabulary import Vocabulary
from recops.errors import CallError, RecopsError, RefusedError
from recops.protocols import FitReport, Recommender
from recops.training.loop import fit_model, new_model

MAX_RESTARTS = 3
# The first worker judges while the others wait for what it tells them.
_PATIENCE = timedelta(hours=2)
_SAID = "said.txt"
_ARRAYS = ("user_idx", "item_idx", "timestamp", "value", "weight", "offsets")
_RAY_STORE_BYTES = 80 * 2**20  # data is read from files, so Ray's own store holds next to nothing


@dataclass(frozen=True)
class _Job:
    """What a worker is given, beside the arrays in `folder`. Sent from process to process, never kept."""

    folder: Path
    kind: type[Recommender]
    config: Any
    valid_metric: Callable[[Recommender], float] | None
    workers: int
    seed: int
    options: dict[str, Any]  # of fit_model


def fit_by_workers(
    model: Recommender,
    train: Interactions,
    valid_metric: Callable[[Recommender], float] | None,
    *,
    workers: int = 1,
    launcher: str = "torchrun",
    folder: Path | None = None,
    progress: bool = False,
    seed: int = 0,
    threads: int = 1,
    **options: Any,
) -> FitReport:
    """`fit_model`, by `workers` processes that share `threads`. Arguments and errors are those of `fit_model`.

    Each worker makes the model anew from its config and `seed`, and `valid_metric` must be picklable. A model in closed
    form, or one without `share` (protocols.py), is fitted by this process alone. With `launcher` ray the workers run in
    the cluster that RAY_ADDRESS names, where `folder` must be on a file system that all machines share, or else in one
    on this machine that ends with the fit. Checkpoints of another number of workers are not gone on with.

    Raises RefusedError when workers died more than MAX_RESTARTS times: the checkpoint stays, and the same call goes on
    from there. Raises CallError for more workers than GPUs, and where Ray is not installed.
    """
    if workers == 1 or not hasattr(model, "share"):
        if workers > 1 and progress and not hasattr(model, "fit"):
            print(f"{type(model).__name__} cannot be divided among workers; trained by one", file=sys.stderr)
        return fit_model(model, train, valid_metric, folder, progress, seed, threads, **options)
    _refuse_too_few_gpus(workers, launcher, options.get("device", "auto"))
    model.prepare(train)  # type: ignore[attr-defined]
    with _workspace(folder) as space:
        _write_train(train, space)
        own = {"progress": progress, "threads": max(threads // workers, 1), **options}
        job = _Job(space, type(model), model.config, valid_metric, workers, seed, {"folder": folder or space, **own})
        {"torchrun": _run_by_torchrun, "ray": _run_by_ray}[launcher](job)
        return _read_result(space, model)


@contextmanager
def _workspace(folder: Path | None) -> Iterator[Path]:
    """A folder for what parent and workers tell each other, empty at first and gone afterwards."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    space = folder / "workers"
    shutil.rmtree(space, ignore_errors=True)
    space.mkdir(parents=True)
    try:
        yield space
    finally:
        shutil.rmtree(space, ignore_errors=True)


def _refuse_too_few_gpus(workers: int, launcher: str, device: str) -> None:
    num_gpus = torch.cuda.device_count() if device != "cpu" else 0
    if launcher == "torchrun" and 0 < num_gpus < workers:
        raise CallError(f"train.workers: {workers} on a machine with {num_gpus} GPU; set at most {num_gpus}")


def _write_train(train: Interactions, space: Path) -> None:
    for name in _ARRAYS:
        array = getattr(train, name)
        if array is not None:
            np.save(space / f"{name}.npy", array, allow_pickle=False)
    ids: dict[str, Any] = {"users": train.users.ids, "items": train.items.ids}
    for kind, content, known in (
        ("items", train.content, train.num_items),
        ("users", train.user_attributes, train.num_users),
    ):
        if content is not None:
            ids[f"new_{kind}"] = content.items.ids[known:]
            ids[f"encoders_{kind}"] = list(content.vectors)
            for number, vectors in enumerate(content.vectors.values()):
                np.save(space / f"content_{kind}_{number}.npy", vectors, allow_pickle=False)
    (space / "ids.json").write_text(json.dumps(ids), encoding="utf-8")


def _read_train(space: Path) -> Interactions:
    """What `_write_train` wrote, its arrays mapped: pages are shared, and a change stays in the worker."""
    ids = json.loads((space / "ids.json").read_text(encoding="utf-8"))
    files = {name: space / f"{name}.npy" for name in _ARRAYS}
    arrays = {name: np.load(file, mmap_mode="c") if file.exists() else None for name, file in files.items()}
    users, items = Vocabulary(ids["users"]), Vocabulary(ids["items"])

    def content(kind: str, known: Vocabulary) -> ItemContent | None:
        if f"encoders_{kind}" not in ids:
            return None
        names = ids[f"encoders_{kind}"]
        vectors = {
            name: np.load(space / f"content_{kind}_{number}.npy", mmap_mode="c") for number, name in enumerate(names)
        }
        return ItemContent(known.followed_by(ids[f"new_{kind}"]), vectors, {})

    facts = {"content": content("items", items), "user_attributes": content("users", users)}
    return Interactions(**arrays, users=users, items=items, **facts)  # type: ignore[arg-type]


def _read_result(space: Path, model: Recommender) -> FitReport:
    """Gives the model what the workers learned; raises what they refused."""
    told = json.loads((space / "report.json").read_text(encoding="utf-8"))
    if "error" in told:
        raise getattr(errors, told["error"])(told["message"])
    module: torch.nn.Module = model.module  # type: ignore[attr-defined]
    module.load_state_dict(load_file(space / "weights.safetensors"))
    module.eval()
    return FitReport(**{about.name: told[about.name] for about in fields(FitReport)})


class _Team:
    """A Team (loop.py) over torch.distributed."""

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def sum_up(self, parameters: list[torch.nn.Parameter], loss: float) -> float:
        # One message for all. A parameter that no worker has a gradient of keeps none, as in a single worker's step.
        blank = parameters[0].new_zeros
        has = [float(parameter.grad is not None) for parameter in parameters]
        own = [blank(p.numel()) if p.grad is None else p.grad.flatten() for p in parameters]
        message = torch.cat([*own, parameters[0].new_tensor([*has, loss])])
        distributed.all_reduce(message)
        *sums, flags, total = message.split([*(p.numel() for p in parameters), len(parameters), 1])
        for parameter, grad, is_there in zip(parameters, sums, flags.tolist(), strict=True):
            parameter.grad = grad.view_as(parameter) if is_there else None
        return total.item()

    def told_by_first(self, find: Callable[[], float]) -> float:
        told: list[Any] = [None]
        if self.rank == 0:
            try:
                told = [find()]
            except RecopsError as error:
                told = [error]
        distributed.broadcast_object_list(told)
        if isinstance(told[0], RecopsError):
            raise told[0]
        return told[0]


def _work(job: _Job) -> None:
    """A worker's whole life, within a process group. What it refuses is a result; all else ends the process."""
    team = _Team()
    if team.rank == 0:
        _tell_restart(job)
    train = _read_train(job.folder)
    model = new_model(job.kind, job.config, train, job.seed)
    told: dict[str, Any]
    try:
        told = asdict(fit_model(model, train, job.valid_metric, seed=job.seed, team=team, **job.options))
    except RecopsError as error:
        told = {"error": type(error).__name__, "message": str(error)}
    if team.rank == 0:
        weights = model.module.state_dict()  # type: ignore[attr-defined]
        save_file(
            {name: value.cpu().contiguous() for name, value in weights.items()}, job.folder / "weights.safetensors"
        )
        (job.folder / "report.json").write_text(json.dumps(told), encoding="utf-8")


def _tell_restart(job: _Job) -> None:
    started = job.folder / "started"
    if started.exists():
        # Not by print, which Ray makes say everything twice.
        sys.stderr.write(
            f"train.workers: a worker died; all {job.workers} go on after the last epoch that was finished\n"
        )
    started.touch()


# torchrun


def _run_by_torchrun(job: _Job) -> None:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=job.workers,
        run_id="recops",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=MAX_RESTARTS,
        logs_specs=DefaultLogsSpecs(log_dir=str(job.folder / "logs")),
        shutdown_timeout=5,
    )
    try:
        with _as_before(job.options["threads"]):
            elastic_launch(config, _elastic_worker)(job)
    except SignalException as stopped:
        if stopped.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + stopped.sigval) from None
    except ChildFailedError as failed:
        rank, first = failed.get_first_failure()
        raise _exhausted(job, f"worker {rank}: {_last_words(job, rank) or first.signal_name()}") from None


@contextmanager
def _as_before(threads: int) -> Iterator[None]:
    """Threads for workers in the environment, a quiet agent; then this process has its own settings again."""
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = logging.root.manager.disable, dict(os.environ), [signal.getsignal(number) for number in signals]
    # What the agent says of a death is said in one line by `_tell_restart` and `_exhausted`.
    logging.disable(logging.ERROR)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        logging.disable(before[0])
        os.environ.clear()
        os.environ.update(before[1])
        if threading.current_thread() is threading.main_thread():
            for number, handler in zip(signals, before[2], strict=True):
                signal.signal(number, handler)


def _elastic_worker(job: _Job) -> None:
    _die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # at once, and not when gloo comes back
    if sys.platform == "linux":
        # The name of a machine often leads nowhere in a container; these workers are on one machine.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    rank = int(os.environ["RANK"])
    on_gpu = job.options.get("device", "auto") != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    try:
        store, _, _ = next(distributed.rendezvous("env://", timeout=_PATIENCE))
        # torch 2.13 keeps one store over all restarts: a worker would look for the others where the dead ones were.
        store = distributed.PrefixStore(f"attempt_{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
        backend = "nccl" if on_gpu else "gloo"
        distributed.init_process_group(backend, store=store, rank=rank, world_size=job.workers, timeout=_PATIENCE)
        _work(job)
        distributed.destroy_process_group()
    except Exception:
        (job.folder / f"died-{rank}.txt").write_text(traceback.format_exc(), encoding="utf-8")
        os._exit(1)


def _die_with_parent() -> None:
    """Ends this worker at once when the process that started it is gone, also after a kill -9 of that."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _last_words(job: _Job, rank: int) -> str:
    """The last line of the traceback a worker left, which is printed whole; empty where it was killed."""
    file = job.folder / f"died-{rank}.txt"
    if not file.exists():
        return ""
    text = file.read_text(encoding="utf-8")
    print(text, file=sys.stderr)
    return text.strip().splitlines()[-1]


def _exhausted(job: _Job, reason: str) -> RefusedError:
    return RefusedError(
        f"train.workers: workers died {MAX_RESTARTS + 1} times, the last time {reason}; the checkpoint is kept and the "
        "same command goes on from there; where memory ran out, a smaller train.workers takes less of it"
    )


# Ray


def _run_by_ray(job: _Job) -> None:
    try:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.base_trainer import TrainingFailedError
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        raise CallError(
            f"train.launcher: ray needs the extra `scale` ({error}): pip install 'recops[scale]', or take torchrun"
        ) from None

    with _ray_cluster(ray, job):
        on_gpu = job.options.get("device", "auto") != "cpu" and ray.cluster_resources().get("GPU", 0) >= job.workers
        trainer = TorchTrainer(
            _ray_worker,
            train_loop_config={"job": job},
            torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo", timeout_s=int(_PATIENCE.total_seconds())),
            scaling_config=ScalingConfig(num_workers=job.workers, use_gpu=on_gpu, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(
                name="fit",
                storage_path=str(job.folder / "ray"),
                failure_config=FailureConfig(max_failures=MAX_RESTARTS),
            ),
        )
        try:
            with _echoed(job.folder / _SAID):
                trainer.fit()
        except TrainingFailedError as error:
            raise _exhausted(job, str(error).strip().splitlines()[-1]) from None


@contextmanager
def _ray_cluster(ray: Any, job: _Job) -> Iterator[None]:
    """The cluster of RAY_ADDRESS, or one on this machine that ends here and leaves nothing."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    threads = {"env_vars": {"OMP_NUM_THREADS": str(job.options["threads"])}}
    with tempfile.TemporaryDirectory(prefix="ray") as temporary:  # short, since its sockets' paths may not be long
        if "RAY_ADDRESS" in os.environ:
            ray.init(runtime_env=threads, logging_level="error", log_to_driver=False)
        else:
            ray.init(
                num_cpus=job.workers + 1,
                include_dashboard=False,
                object_store_memory=_RAY_STORE_BYTES,
                runtime_env=threads,
                logging_level="error",
                log_to_driver=False,
                _temp_dir=temporary,
            )
        try:
            yield
        finally:
            ray.shutdown()


def _ray_worker(config: dict[str, Any]) -> None:
    job: _Job = config["job"]
    with (job.folder / _SAID).open("a", buffering=1, encoding="utf-8") as said, redirect_stderr(said):
        _work(job)


@contextmanager
def _echoed(file: Path) -> Iterator[None]:
    """Shows what the first worker says, line by line. Ray's own way would also show some fifty lines of its own."""
    file.touch()
    ended = threading.Event()

    def follow() -> None:
        with file.open(encoding="utf-8") as said:
            is_last = False
            while not is_last:
                is_last = ended.wait(0.2)
                sys.stderr.write(said.read())

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
