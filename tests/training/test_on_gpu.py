"""On a real GPU: no method waits for it within a step, and a resumed training equals an uninterrupted one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import Soon, labels_of
from test_pretended_device import BATCH, FIRST, FORMS, SAMPLES, SETTINGS, SIZE, build, step
from test_training import NoisyViews, make_data, make_method

from regrain.errors import Stopped
from regrain.storage.run_folder import RunFolder
from regrain.training.adapter import Adapter
from regrain.training.loop import train
from regrain.training.options import TrainingOptions

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore")
def test_two_steps_of_every_method(form: str) -> None:
    method, views = build(form)
    adapter = Adapter(method, views, TrainingOptions()).to("cuda")
    raw = torch.randint(0, 256, (SAMPLES, 3, SIZE, SIZE), dtype=torch.uint8).cuda()
    labels, ids = labels_of(method, SAMPLES).cuda(), (7 * torch.arange(SAMPLES) % 101).cuda()
    for _ in range(3 if method.name in SETTINGS else 1):
        method.before_epoch(lambda: [(views.plain(raw), labels, ids)])
        for rows in torch.arange(SAMPLES, device="cuda").split(BATCH) * FIRST.get(method.name, 1):
            step(adapter, (raw[rows], labels[rows], ids[rows]))
        adapter.batches_seen = 0  # between two looks at the loss
        batch = raw[:BATCH], labels[:BATCH], ids[:BATCH]
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(2):
                step(adapter, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        adapter.require_finite()


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    found = []
    for name in ("whole", "cut"):
        for attempt in range(1 if name == "whole" else 2):
            method = make_method("maskcon", dropout=0.2)
            interrupt = Soon(5) if name == "cut" and not attempt else None
            settings = TrainingOptions(epochs=3, batch_size=16, learning_rate=0.05, precision="float32")
            try:
                train(
                    method, NoisyViews(2), make_data(), settings, RunFolder(tmp_path / name), seed=3, device="cuda",
                    resume=bool(attempt), interrupt=interrupt, progress=False,
                )  # fmt: skip
            except Stopped:
                assert interrupt is not None
        found.append({name: value.cpu() for name, value in method.shared_state().items()})
    torch.testing.assert_close(found[1], found[0])
