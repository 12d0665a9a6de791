"""A Ray cluster: trainings that heal and grow there, and functions of many blocks that its workers share out.

Ray (https://docs.ray.io) places the workers, starts those again that are lost, and carries objects to them. Nothing
here imports it before a cluster is asked for.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from regrain.errors import Stopped, UserError, first_line
from regrain.processes import was_launched

Item = TypeVar("Item")
Result = TypeVar("Result")

Engine = Literal["processes", "ray"]
"""``processes``: the verb itself, or torchrun, starts those that work together. ``ray``: a Ray cluster does."""

_FAILURES = 10
"""Losses of a worker after which a work is given up; machines that a cluster takes back do not count."""

_LOOKS = 0.5
"""Seconds between two looks at whether the work is to stop."""

_ENVIRONMENT = ("REGRAIN_", "HF_", "TRANSFORMERS_")
"""Variables of the caller's environment that its workers get."""


@dataclass(frozen=True)
class Cluster:
    """Workers that a Ray cluster has room for."""

    workers: int
    device: Literal["cpu", "cuda"]
    """``cuda``: each worker has a GPU and a core. ``cpu``: a core alone."""

    def map(self, prepare: Callable[[], Callable[[Item], Result]], items: Iterable[Item]) -> Iterator[Result]:
        """A function of every item, in their order, of which the workers compute several at a time.

        A worker that is lost is started again, and its item computed again. The function's own errors are raised here.

        Parameters
        ----------
        prepare : callable
            Called once by every worker; makes the function.
        items : iterable
            Taken as workers get free, and sent to them.
        """
        import ray
        from ray.util import ActorPool

        gpus = int(self.device == "cuda")
        options: dict[str, Any] = {
            "num_cpus": 1,
            "num_gpus": gpus,
            "max_restarts": _FAILURES,
            "max_task_retries": _FAILURES,
        }
        actors: list[Any] = [ray.remote(**options)(_Worker).remote(_Place.here(), prepare) for _ in range(self.workers)]
        pool = ActorPool(actors)
        waiting = 0
        try:
            for item in items:
                if waiting == 2 * self.workers:
                    yield pool.get_next()
                    waiting -= 1
                pool.submit(lambda actor, item: actor.compute.remote(item), item)
                waiting += 1
            while pool.has_next():
                yield pool.get_next()
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayActorError as error:
            raise UserError(
                f"a worker of the cluster was lost {_FAILURES} times: {first_line(error)}. Where memory is short, "
                "ask for fewer workers; the same call goes on after the last block"
            ) from None
        finally:
            for actor in actors:
                ray.kill(actor)

    def train(self, function: Callable[[threading.Event], None], folder: Path, interrupt: threading.Event) -> None:
        """Run a function in all workers, which form a process group of torch, until it comes to its end.

        It is run again where a worker was lost, with as many workers as the cluster then has room for, and again where
        room for more has come: it must go on from what it stored. An error of its own ends it, and is raised here.

        Parameters
        ----------
        function : callable
            Takes an event that is set when it is to stop, and then raises a Stopped. The workers find RANK, WORLD_SIZE
            and the like in their environment.
        folder : Path
            Where all machines of the cluster may write; ``.ray`` in it is used, and removed.
        interrupt : threading.Event
            The wish to stop.

        Raises
        ------
        Stopped
            If the function did.
        UserError
            If the function did, or workers are lost again and again.
        """
        import ray
        from ray.train.torch import TorchTrainer
        from ray.train.v2.api.config import FailureConfig, LoggingConfig, RunConfig, ScalingConfig

        scratch = folder.absolute() / ".ray"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        work = ray.put(function)  # data sets in it are carried once, and not with every start
        run_config: Any = RunConfig(  # typed as that of the older ray.train where a trainer takes it
            name="fit",
            storage_path=str(scratch),
            failure_config=FailureConfig(max_failures=_FAILURES),
            logging_config=LoggingConfig(log_level="ERROR"),
        )
        trainer = TorchTrainer(
            _work_together,
            train_loop_config={"work": [work], "place": _Place.here(), "scratch": scratch},
            scaling_config=ScalingConfig(num_workers=(1, self.workers), use_gpu=self.device == "cuda"),
            run_config=run_config,
        )
        failures: list[BaseException] = []

        def fit() -> None:
            try:
                trainer.fit()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=fit, daemon=True)  # Ray takes Ctrl-C over from a main thread
        thread.start()
        try:
            said = (scratch / _SAID).open("a+", encoding="utf-8")
            said.seek(0)
            with said:
                while thread.is_alive():
                    thread.join(_LOOKS)
                    print(said.read(), end="", file=sys.stderr, flush=True)
                    if interrupt.is_set():
                        (scratch / _STOP).touch()
            told = scratch / _TOLD
            if told.exists():
                raise _heard(told)
            if failures:
                raise UserError(
                    f"the workers of the cluster failed {_FAILURES} times, at last by: {first_line(failures[0])}. "
                    "Where memory is short, ask for fewer workers; `--continue` goes on from the last checkpoint"
                ) from failures[0]
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


_STOP, _TOLD, _SAID, _BEGUN = "stop", "told", "said", "begun"
"""Files of :meth:`Cluster.train`: the wish to stop, the function's error, what the first worker prints, its start."""


def cluster_of(
    engine: Engine, devices: int, device: Literal["auto", "cpu", "cuda"] = "auto", *, alone: bool = False
) -> AbstractContextManager[Cluster | None]:
    """The Ray cluster of ``--engine ray``, with room for workers on so many devices; else None.

    ``alone``: whether the caller works on one device without a cluster.

    Raises
    ------
    UserError
        If the cluster is not there or has no room, torchrun started this process, or ``devices`` mean nothing.
    """
    if engine == "processes":
        if alone and devices != 1:
            raise UserError(
                "--devices counts the workers of --engine ray: ask for that too, or leave --devices out",
                code="conflicting_options",
            )
        return nullcontext()
    if engine != "ray":
        raise UserError(f"no engine '{engine}': choose from processes, ray", code="unknown_name")
    if was_launched():
        raise UserError("--engine ray starts its workers itself: leave out torchrun", code="conflicting_options")
    return ray_cluster(devices, device)


@contextmanager
def ray_cluster(workers: int, device: Literal["auto", "cpu", "cuda"] = "auto") -> Iterator[Cluster]:
    """A cluster with room for so many workers: the one that runs, else one of this machine for so long.

    A cluster that runs is the caller's own (``ray.init``), the one that ``RAY_ADDRESS`` names, or that of this machine.

    Raises
    ------
    UserError
        If Ray is not installed, or there is no room.
    """
    if workers < 1:
        raise UserError(f"--devices is at least 1; got {workers}", code="out_of_range")
    if importlib.util.find_spec("ray") is None:
        raise UserError("--engine ray needs a package: pip install 'regrain[ray]'", code="missing_package")
    import ray

    own: str | None = None
    joined = not ray.is_initialized()
    if joined:
        quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
        try:
            ray.init(address="auto", **quiet)
        except ConnectionError as error:
            if "RAY_ADDRESS" in os.environ:
                raise UserError(
                    f"no Ray cluster answers at {os.environ['RAY_ADDRESS']} (RAY_ADDRESS): {first_line(error)}",
                    code="not_reachable",
                ) from None
            # The paths of sockets are short: no deep folder of temporary files
            short = "/tmp" if os.path.isdir("/tmp") else None
            own = tempfile.mkdtemp(prefix="regrain-", dir=os.environ.get("RAY_TMPDIR") or short)
            ray.init(address="local", include_dashboard=False, _temp_dir=own, **quiet)
    try:
        yield _room(workers, device, ray.cluster_resources())
    finally:
        if joined:
            ray.shutdown()
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)


def _room(workers: int, device: str, resources: dict[str, float]) -> Cluster:
    """The cluster of these resources; a UserError where they are too few."""
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if device == "cuda" and gpus == 0:
        raise UserError("--device cuda was asked for, and no machine of the Ray cluster has a GPU: use --device cpu")
    kind: Literal["cpu", "cuda"] = "cuda" if gpus and device != "cpu" else "cpu"
    room, what = (min(cpus, gpus), "a GPU and a CPU") if kind == "cuda" else (cpus, "a CPU")
    if workers > room:
        raise UserError(
            f"{workers} workers were asked for, and the Ray cluster has {what} for {room}: ask for fewer, or add "
            "machines by `ray start --address HOST:6379` on them",
            code="too_few",
        )
    return Cluster(workers, kind)


@dataclass(frozen=True)
class _Place:
    """The caller's working folder and environment."""

    folder: str
    environment: dict[str, str]

    @classmethod
    def here(cls) -> _Place:
        own = {name: value for name, value in os.environ.items() if name.startswith(_ENVIRONMENT)}
        return cls(os.getcwd(), own)

    def enter(self) -> None:
        """Read relative paths as the caller does, where this machine has the folder."""
        os.environ.update(self.environment)
        if os.path.isdir(self.folder):
            os.chdir(self.folder)


class _Worker:
    """A worker of :meth:`Cluster.map`."""

    def __init__(self, place: _Place, prepare: Callable[[], Callable[[Any], Any]]) -> None:
        place.enter()
        self.prepare = prepare
        self.function: Callable[[Any], Any] | None = None

    def compute(self, item: Any) -> Any:
        if self.function is None:
            self.function = self.prepare()  # here, where its errors are those of the work
        return self.function(item)


class _Asked(threading.Event):
    """Is set when a file is there."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self.looked = 0.0

    def is_set(self) -> bool:
        """Look at most every half second: the file may be far away."""
        if not super().is_set() and time.monotonic() - self.looked > _LOOKS:
            self.looked = time.monotonic()
            if self.file.exists():
                self.set()
        return super().is_set()


def _work_together(config: dict[str, Any]) -> None:
    """A worker of :meth:`Cluster.train`."""
    import ray

    config["place"].enter()
    scratch: Path = config["scratch"]
    if (scratch / _TOLD).exists():  # by a worker before the others were lost
        return
    with (scratch / _SAID).open("a", buffering=1, encoding="utf-8") as said:
        first = os.environ["RANK"] == "0"
        if first:
            if (scratch / _BEGUN).exists():
                print(f"workers were lost or added: {os.environ['WORLD_SIZE']} go on", file=said)
            (scratch / _BEGUN).touch()
        with redirect_stderr(said) if first else nullcontext():
            _tell_errors(ray.get(config["work"][0]), scratch)


def _tell_errors(function: Callable[[threading.Event], None], scratch: Path) -> None:
    try:
        function(_Asked(scratch / _STOP))
    except (RuntimeError, OSError):  # such as those of a process group that lost a worker
        raise
    except Exception as error:
        content = {"kind": type(error).__name__, "message": str(error), "code": getattr(error, "code", None)}
        new = scratch / f"{_TOLD}.{os.getpid()}"
        new.write_text(json.dumps(content), encoding="utf-8")
        new.replace(scratch / _TOLD)
        if not isinstance(error, Stopped):
            raise


def _heard(told: Path) -> Exception:
    """The error that a worker told, of the same meaning: the user's, an interruption, or a fault of the program."""
    content = json.loads(told.read_text(encoding="utf-8"))
    kind, message, code = content["kind"], content["message"], content["code"]
    if kind == Stopped.__name__:
        return Stopped(message)
    return RuntimeError(f"{kind} in a worker: {message}") if code is None else UserError(message, code=code)
