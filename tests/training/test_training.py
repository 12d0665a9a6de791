"""Training: exact resume, accumulation, cached gradients, the order of batches, a NaN, a user's own Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from support import Soon
from torch import Tensor, nn

import regrain
from regrain.checks import hyperparameters
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples
from regrain.encoders import Encoder, build_encoder
from regrain.errors import RegrainWarning, UserError
from regrain.labels import Labels
from regrain.methods import METHODS, Method, method_class
from regrain.methods.base import EVERY
from regrain.storage.run_folder import RunFolder
from regrain.training.adapter import Adapter
from regrain.training.device import resolve_device, resolve_precision
from regrain.training.loader import Loader
from regrain.training.loop import Stopped, train
from regrain.training.optim import build_optimizer, build_schedule
from regrain.training.options import TrainingOptions
from regrain.training.scan import scan_batches

WIDTH = 6


class NoisyViews(nn.Module):
    """Views whose noise depends on (epoch, id, view) alone, as the real ones' does."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, raw: Tensor, ids: Tensor, epoch: int) -> tuple[Tensor, ...]:
        return tuple(raw + 0.1 * torch.sin(ids[:, None] % 1000 + epoch + view) for view in range(self.count))

    def plain(self, raw: Tensor) -> Tensor:
        return raw


def make_data(count: int = 50, levels: int = 1) -> Dataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, WIDTH, generator=generator)
    codes = torch.randint(0, 3, (count, levels), generator=generator)
    labels = Labels.from_codes(codes, relation="aspects") if levels else Labels.empty(count)
    return Dataset(TensorSamples(x, "vector"), labels, np.array([f"s{i}" for i in range(count)]))


def levels_of(method: type[Method]) -> int:
    """Label levels that a method is given here: two where it reads all."""
    return 2 if method.needs.levels == (EVERY,) else len(method.needs.levels)


def make_method(name: str, *, dropout: float = 0.0, norm: str = "layer", **settings: Any) -> Method:
    cls = method_class(name)
    if name == "turtle":  # takes features as they are
        encoder = build_encoder("identity", modality="vector", sample_shape=(WIDTH,), seed=0)
    else:
        encoder = build_encoder(
            "mlp", modality="vector", sample_shape=(WIDTH,), hidden=(16,), width=8, norm=norm, dropout=dropout, seed=0
        )
    torch.manual_seed(0)
    small = {"queue_size": 20, "coarse_epochs": 1, "pretext_epochs": 1, "clustering_epochs": 1}
    small |= {"hidden": 16} if name == "self-classifier" else {}
    settings = {key: value for key, value in small.items() if key in hyperparameters(cls)} | settings
    return cls(encoder, [3] * levels_of(cls), **settings)


def run_training(
    folder: Path,
    name: str = "maskcon",
    *,
    resume: bool = False,
    interrupt: Any = None,
    dropout: float = 0.2,
    method: dict[str, Any] | None = None,
    **options: Any,
) -> Method:
    trained = make_method(name, dropout=dropout, **(method or {}))
    settings = {"epochs": 3, "batch_size": 16, "precision": "float32", "learning_rate": 0.05} | options
    train(
        trained,
        NoisyViews(len(trained.needs.views)),
        make_data(levels=levels_of(type(trained))),
        TrainingOptions(**settings),
        RunFolder(folder),
        seed=3,
        resume=resume,
        interrupt=interrupt,
        progress=False,
    )
    return trained


def equal_states(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(_equal(states[0][k], states[1][k]) for k in states[0])


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[k], other[k]) for k in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


@pytest.mark.parametrize("name", [name for name, cls in METHODS.items() if not cls.fit_once])
def test_resume_equals_no_interruption(name: str, tmp_path: Path) -> None:
    whole = run_training(tmp_path / "whole", name)
    with pytest.raises(Stopped):
        run_training(tmp_path / "cut", name, interrupt=Soon(5))  # in the middle of the second epoch
    resumed = run_training(tmp_path / "cut", name, resume=True)
    assert equal_states(whole, resumed)
    ours, theirs = (RunFolder(tmp_path / n).read_metrics() for n in ("whole", "cut"))
    assert [r["loss"] for r in ours] == [r["loss"] for r in theirs]
    assert RunFolder(tmp_path / "cut").finished


@pytest.mark.parametrize("name", ["scgm-a", "george", "falcon", "scan", "self-classifier"])
def test_resume_within_and_between_e_steps(name: str, tmp_path: Path) -> None:
    """Four epochs; E-steps before the first and the third, or clusters before the third, or relations of
    every third step, or stages 1, 2, 2, 3, or neighbours of every epoch and the best of two restarts."""
    more = {
        "scgm-a": {"assignment_period": 2},
        "george": {"coarse_epochs": 2},
        "falcon": {"subclasses": 4, "relations_period": 3, "soft_epochs": 2},
        "scan": {"clustering_epochs": 2},
        "self-classifier": {"neighbours": 3, "queue_size": 0, "restarts": 2, "class_counts": (4,), "hidden": 16},
    }[name]
    whole = run_training(tmp_path / "whole", name, epochs=4, method=more)
    for looks in (3, 7, 11, 14):
        cut = tmp_path / f"cut-{looks}"
        with pytest.raises(Stopped):
            run_training(cut, name, epochs=4, method=more, interrupt=Soon(looks))
        assert equal_states(whole, run_training(cut, name, epochs=4, method=more, resume=True)), looks


def test_resume_from_anywhere(tmp_path: Path) -> None:
    """Stopped after any step and at any end of an epoch, dropout and accumulation included."""
    settings = {"accumulate": 2, "clip_gradient": 1.0, "optimizer": "adamw", "learning_rate": 0.01}
    whole = run_training(tmp_path / "whole", **settings)
    for looks in range(11):
        cut = tmp_path / f"cut-{looks}"
        try:
            resumed = run_training(cut, interrupt=Soon(looks), **settings)
        except Stopped:
            resumed = run_training(cut, resume=True, **settings)
        assert equal_states(whole, resumed), looks


@pytest.mark.parametrize("looks", [2, 6, 9])
def test_what_is_done_after_training_is_done_once(looks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []

    def after_training(self: Method, scan: Any) -> None:
        seen.append([i for _, _, ids in scan() for i in ids.tolist()])

    monkeypatch.setattr(Method, "after_training", after_training)
    everyone = make_data().keys.tolist()
    run_training(tmp_path / "whole")
    assert seen == [everyone]
    run_training(tmp_path / "early", epochs=40, learning_rate=1e-12, early_stop="loss", patience=2, schedule="constant")
    assert seen == [everyone] * 2
    with pytest.raises(Stopped):
        run_training(tmp_path / "cut", interrupt=Soon(looks))
    assert len(seen) == 2
    run_training(tmp_path / "cut", resume=True)
    assert seen == [everyone] * 3


def test_a_run_cut_off_after_its_last_step_has_lost_nothing(tmp_path: Path) -> None:
    whole = run_training(tmp_path, "sclre")
    assert whole.bank_count == 50
    assert equal_states(whole, run_training(tmp_path, "sclre", resume=True))


@pytest.mark.parametrize("looks", [1, 5, 8])
def test_balanced_sampling_resumes_anywhere(looks: int, tmp_path: Path) -> None:
    whole = run_training(tmp_path / "whole", sampling="balanced")
    with pytest.raises(Stopped):
        run_training(tmp_path / "cut", sampling="balanced", interrupt=Soon(looks))
    assert equal_states(whole, run_training(tmp_path / "cut", sampling="balanced", resume=True))
    assert not equal_states(whole, run_training(tmp_path / "uniform"))


def test_seed_fixes_everything_and_matters(tmp_path: Path) -> None:
    assert equal_states(run_training(tmp_path / "a"), run_training(tmp_path / "b"))
    assert not equal_states(run_training(tmp_path / "c"), run_training(tmp_path / "d", learning_rate=0.04))


@pytest.mark.parametrize("name", ["supcon", "simclr"])
@pytest.mark.parametrize("size", [1, 5, 16])
def test_cached_gradients_equal_the_whole_batch(name: str, size: int, tmp_path: Path) -> None:
    whole = run_training(tmp_path / "whole", name, dropout=0.0)
    chunked = run_training(tmp_path / "chunked", name, dropout=0.0, chunk_size=size)
    for (key, one), other in zip(whole.state_dict().items(), chunked.state_dict().values(), strict=True):
        assert torch.allclose(one, other, atol=2e-5), key


def test_cached_gradients_draw_the_same_dropout_twice() -> None:
    """With dropout, the gradient must belong to the embeddings that the loss saw."""
    method = make_method("simclr", dropout=0.5)
    adapter = Adapter(method, NoisyViews(2), TrainingOptions(chunk_size=4, precision="float32"), seed=0)
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_train_batches=1,
    )
    seen: list[Tensor] = []
    original = method.forward_views

    def project(batch: Any) -> dict[str, Tensor]:
        projected = original(batch)
        seen.append(projected["views"].detach().clone())
        return projected

    method.forward_views = project  # type: ignore[method-assign]
    trainer.fit(adapter, Loader(make_data(levels=0), batch_size=16, seed=0))
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert len(first) == len(second) > 1
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_chunks_are_refused_where_they_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contrasts with a queue or classifies"):
        run_training(tmp_path, "maskcon", chunk_size=4)
    with pytest.raises(UserError, match="exclude each other"):
        TrainingOptions(chunk_size=4, accumulate=2)
    method = make_method("supcon", norm="batch")
    with pytest.warns(RegrainWarning, match="batch normalisation sees chunks"):
        train(
            method,
            NoisyViews(2),
            make_data(),
            TrainingOptions(epochs=1, batch_size=16, chunk_size=8),
            RunFolder(tmp_path / "bn"),
            seed=0,
            progress=False,
        )


def test_an_epoch_visits_every_sample_once_and_ranks_share_it() -> None:
    data = make_data(53)
    loader = Loader(data, batch_size=16, seed=5)
    assert len(loader) == 4
    sizes = [len(ids) for _, _, ids in loader]
    assert max(sizes) - min(sizes) <= 1
    for epoch in range(2):
        plan = loader.plan(epoch)
        assert sorted(torch.cat(plan).tolist()) == list(range(53))
        shares = [Loader(data, batch_size=16, seed=5, rank=r, world_size=2).plan(epoch) for r in range(2)]
        for whole, *parts in zip(plan, *shares, strict=True):
            assert whole.tolist() == torch.cat(parts).tolist()  # gathered in rank order, it is the same batch
    assert not torch.equal(torch.cat(loader.plan(0)), torch.cat(loader.plan(1)))
    loader.start = 2
    assert [ids.tolist() for _, _, ids in loader] == [data.keys[rows].tolist() for rows in loader.plan(0)[2:]]
    assert torch.equal(torch.cat([ids for _, _, ids in scan_batches(data, batch_size=7)]), data.keys)


def test_no_batch_holds_a_single_sample() -> None:
    for count in range(2, 12):
        for world_size in (1, 2):
            if count >= 2 * world_size:
                ranks = [
                    Loader(make_data(count), batch_size=2, seed=0, rank=r, world_size=world_size)
                    for r in range(world_size)
                ]
                assert min(len(rows) for rank in ranks for rows in rank.plan(0)) >= 2


def test_loader_refuses_what_cannot_be_batched() -> None:
    with pytest.raises(UserError, match="at least 2 samples"):
        Loader(make_data(1), batch_size=16, seed=0)
    with pytest.raises(UserError, match="cannot be shared out over 4 processes"):
        Loader(make_data(3), batch_size=16, seed=0, world_size=4)


def test_a_loss_that_is_not_finite_stops_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the loss became (nan|inf) at step \d+ .*losses before: .*learning_rate"):
        run_training(tmp_path, "sup-ce", learning_rate=1e30, epochs=20)


def test_early_stop_looks_at_the_training_loss(tmp_path: Path) -> None:
    run_training(
        tmp_path,
        "sup-ce",
        epochs=40,
        learning_rate=1e-12,
        early_stop="loss",
        patience=2,
        dropout=0.0,
        schedule="constant",
    )
    assert len(RunFolder(tmp_path).read_metrics()) < 10


def test_any_method_in_a_users_own_trainer_and_loader() -> None:
    data = make_data()
    rows = torch.utils.data.TensorDataset(data.samples.take(torch.arange(50)), data.labels.codes, data.keys)
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    method = make_method("maskcon")
    before = {k: v.clone() for k, v in method.state_dict().items() if isinstance(v, Tensor)}
    trainer.fit(Adapter(method, NoisyViews(2), TrainingOptions()), torch.utils.data.DataLoader(rows, batch_size=10))
    assert "loss" in trainer.callback_metrics
    assert any(not torch.equal(before[k], v) for k, v in method.encoder.state_dict(prefix="encoder.").items())


def test_schedules() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    restarts = build_schedule(optimizer, name="restarts", steps=8, restart_steps=4).lr_lambdas[0]
    assert [restarts(s) for s in range(4)] == pytest.approx([restarts(s) for s in range(4, 8)])
    assert restarts(0) == 1
    for start, expected in ((0.2, [0.4, 0.6, 0.8, 1, 1]), (1.0, [1, 1, 1, 1, 1]), (0.0, [0.25, 0.5, 0.75, 1, 1])):
        rising = build_schedule(optimizer, name="cosine", steps=8, warmup_steps=4, warmup_start=start).lr_lambdas[0]
        assert [rising(s) for s in range(5)] == pytest.approx(expected)
        assert rising(8) == pytest.approx(0)
    constant = build_schedule(optimizer, name="constant", steps=8, warmup_steps=4).lr_lambdas[0]
    assert [constant(s) for s in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_warm_up_begins_at_its_start(tmp_path: Path) -> None:
    """Two epochs of four steps; the log has the rate of the step after an epoch's last one."""
    for start, share in ((0.0, 5 / 8), (0.6, 0.6 + 0.4 * 5 / 8)):
        options = {"epochs": 4, "warmup_epochs": 2, "warmup_start": start, "batch_size": 13}
        run_training(tmp_path / str(start), "sup-ce", **options)
        rows = RunFolder(tmp_path / str(start)).read_metrics()
        assert rows[0]["learning_rate"] == pytest.approx(0.05 * share)
        assert rows[1]["learning_rate"] == pytest.approx(0.05)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_optimizers_group_parameters(name: Any) -> None:
    method = make_method("sup-ce")
    optimizer = build_optimizer(
        method, name=name, learning_rate=0.1, momentum=0.9, weight_decay=0.01, encoder_learning_rate=0.001
    )
    encoder = {id(p) for p in method.encoder.parameters()}
    count = 0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            count += 1
            assert group["lr"] == (0.001 if id(parameter) in encoder else 0.1)
            assert group["weight_decay"] == (0.01 if name == "sgd" or parameter.ndim > 1 else 0)
    assert count == len(list(method.parameters()))
    method.loss(method.classifier(torch.randn(4, 8)), torch.tensor([[0], [1], [2], [0]]))["loss"].backward()
    before = method.classifier.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(before, method.classifier.weight)


@pytest.mark.parametrize("encoder_rate", [None, 0.001])
def test_layers_have_the_rate_of_the_layer_above_times_the_decay(encoder_rate: float | None) -> None:
    class Deep(Encoder):
        width = 8

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

        def layer_numbers(self) -> dict[str, int]:
            return {name: int(name.split(".")[1]) for name, _ in self.named_parameters()}

    method = method_class("sup-ce")(Deep(), [3])
    optimizer = build_optimizer(
        method, name="adamw", learning_rate=0.1, momentum=0.9, weight_decay=0.01, encoder_learning_rate=encoder_rate,
        layer_decay=0.5,
    )  # fmt: skip
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for number, factor in ((0, 0.25), (1, 0.5), (2, 1)):
        for parameter in method.encoder.layers[number].parameters():
            assert rates[id(parameter)] == pytest.approx((encoder_rate or 0.1) * factor)
    assert {rates[id(p)] for p in method.classifier.parameters()} == {0.1}


def test_layer_decay_is_refused_where_layers_are_not_told_apart(tmp_path: Path) -> None:
    for options, why in (({"encoder": "conv4"}, "not told apart"), ({"encoder": "conv4", "frozen": True}, "frozen")):
        with pytest.raises(UserError, match=f"layer_decay .* rates of their own, and .*{why}"):
            regrain.fit("sup-ce", "digits", out=tmp_path / "r", settings=["layer_decay=0.8"], **options)
    assert not (tmp_path / "r").exists()


def test_options_say_what_is_out_of_range() -> None:
    for settings, message in (
        ({"epochs": 0}, "training.epochs must be at least 1; got 0"),
        ({"samples_per_class": 1}, "samples_per_class must be at least 2"),
        ({"layer_decay": 0}, r"layer_decay must be greater than 0 and at most 1; got 0"),
        ({"layer_decay": 1.5}, r"layer_decay must be greater than 0 and at most 1; got 1.5"),
        ({"learning_rate": -1}, "learning_rate must be greater than 0"),
        ({"momentum": 1}, r"momentum must be at least 0 and below 1"),
        ({"learning_rate": float("nan")}, "learning_rate must be greater than 0"),
        ({"learning_rate": float("inf")}, "learning_rate must be greater than 0"),
        ({"schedule": "restarts"}, "restart_epochs"),
        ({"warmup_start": -0.1}, r"warmup_start must be between 0 and 1"),
        ({"warmup_start": 1.1}, r"warmup_start must be between 0 and 1"),
        ({"warmup_start": float("nan")}, r"warmup_start must be between 0 and 1"),
    ):
        with pytest.raises(UserError, match=message):
            TrainingOptions(**settings)


def test_device_and_precision() -> None:
    assert resolve_device("cpu") == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="sees no CUDA device"):
            resolve_device("cuda")
    with pytest.raises(UserError, match="crawls on a CPU"):
        resolve_precision("fp16", "cpu")
    assert resolve_precision("auto", "cpu") in ("bf16", "float32")


def test_a_run_that_was_stopped_before_its_first_checkpoint_starts_at_the_start(tmp_path: Path) -> None:
    whole, resumed = (run_training(tmp_path / str(resume), resume=resume) for resume in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_every_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert resolve_device("auto") == "cuda"
    assert chosen == []
    for rank, expected in (("3", 3), ("5", 1)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert resolve_device("cuda") == "cuda"
        assert chosen.pop() == expected
    assert resolve_device("cpu") == "cpu"
    assert chosen == []
