"""One run on one process, then two, then one: the losses are those of a run that one process made alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from latentweaver import recipes
from latentweaver.errors import InputError
from latentweaver.tasks.batches import Batch
from latentweaver.training import checkpoint, ranks

SETTINGS = dict(  # noqa: C408
    width=16, inner=32, heads=2, statements=4, depth=2, high_steps=3, backprop=2, batch_size=4, warm_updates=2,
    rise_updates=4, updates=9, checkpoint_every=3, accumulate=2, evaluate_every=9, evaluate_problems=4, log_every=1, device="cpu",
)  # fmt: skip

PROGRAM = """
import json, os, sys
import torch
from latentweaver import recipes

folder, stop, settings = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
torch.set_num_threads(1)

def report(line):
    if line["update"] == stop:  # an update after a checkpoint: lost, and made again
        os._exit(9)

recipes.train("chains", folder, resume=True, report=report, **settings)
"""


PIECES = """
import sys
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from latentweaver.training import ranks
from latentweaver.training.optimisers import AdamW, Muon

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        shapes = {"tall": (7, 4), "wide": (4, 9), "short": (2, 6), "one": (1,)}
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape)))

    def forward(self):
        return self.tall.square().sum() + (self.wide**3).sum() + self.short.sin().sum() + 3 * self.one.sum()

dist.init_process_group("gloo")
sharded, whole = Model(), Model()
fully_shard(sharded, mesh=init_device_mesh("cpu", (3,)))
kinds = {sharded: (AdamW, Muon), whole: (torch.optim.AdamW, torch.optim.Muon)}
steppers = [adamw([model.short, model.one], lr=0.1) for model, (adamw, _) in kinds.items()]
steppers += [muon([model.tall, model.wide], lr=0.1, adjust_lr_fn="match_rms_adamw") for model, (_, muon) in kinds.items()]
for _ in range(5):
    (loss := sharded()).backward(), (expected := whole()).backward()
    told = ranks.clip(sharded.parameters(), 1.5, loss.detach())
    norm = nn.utils.clip_grad_norm_(whole.parameters(), 1.5)
    torch.testing.assert_close(told, torch.stack([expected.detach(), norm]))
    for stepper in steppers:
        stepper.step()
        stepper.zero_grad()
for mine, other in zip(sharded.parameters(), whole.parameters()):
    torch.testing.assert_close(mine.full_tensor(), other.detach())
"""


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    recipes.train("chains", folder, **SETTINGS)
    return folder


def two_processes(tmp_path: Path, stop: int, **settings: object) -> subprocess.CompletedProcess:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [str(program), str(tmp_path / "run"), str(stop), json.dumps({**SETTINGS, **settings})]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*launch, *arguments], env=environment, capture_output=True, text=True, timeout=240)


def same(one: list[dict], other: list[dict]) -> None:
    assert [line["update"] for line in one] == [line["update"] for line in other]
    assert [line["depth"] for line in one] == [line["depth"] for line in other], "every rank draws the same depth"
    for mine, theirs in zip(one, other, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert mine["norm"] == pytest.approx(theirs["norm"], rel=1e-3)
        assert mine["accuracy"] == pytest.approx(theirs["accuracy"], abs=1e-6)


@pytest.mark.slow
def test_a_run_goes_from_one_process_to_two_and_back(tmp_path: Path, alone: Path) -> None:
    class Stop(Exception):
        pass

    def stop(line: dict) -> None:
        if line["update"] == 4:
            raise Stop

    with pytest.raises(Stop):
        recipes.train("chains", tmp_path / "run", report=stop, **SETTINGS)
    assert (tmp_path / "run" / checkpoint.NAME).exists()
    ended = two_processes(tmp_path, stop=7)
    assert ended.returncode != 0, "the first of the two processes was made to end"
    assert sorted(path.name for path in (tmp_path / "run").glob("training*")) == ["training-000006"], ended.stderr[-2000:]
    assert {path.suffix for path in (tmp_path / "run" / "training-000006").iterdir()} >= {".distcp"}
    recipes.train("chains", tmp_path / "run", resume=True, **SETTINGS)
    assert sorted(path.name for path in (tmp_path / "run").glob("training*")) == [checkpoint.NAME]
    same(lines(alone), lines(tmp_path / "run"))


@pytest.mark.slow
def test_two_processes_that_shard_every_block_save_a_model_that_opens(tmp_path: Path, alone: Path) -> None:
    from transformers import AutoModelForCausalLM

    ended = two_processes(tmp_path, stop=-1, shard_blocks=True, recompute=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    same(lines(alone), lines(tmp_path / "run"))
    mine, theirs = (AutoModelForCausalLM.from_pretrained(folder / "model").state_dict() for folder in (alone, tmp_path / "run"))
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_three_processes_clip_and_step_on_uneven_pieces_as_one_does_on_the_whole(tmp_path: Path) -> None:
    (tmp_path / "pieces.py").write_text(PIECES)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3", str(tmp_path / "pieces.py")]
    ended = subprocess.run(launch, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_a_shard_folder_cut_off_by_a_kill_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "training-000006.new").mkdir()
    assert not checkpoint.there(tmp_path)
    (tmp_path / "training-000003").mkdir()
    assert checkpoint.there(tmp_path)


def test_rows_are_shared_out_evenly_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.arange(12).view(6, 2)
    batch = Batch(rows, rows, rows, rows > 3)
    assert ranks.share(batch) is batch, "one process keeps everything"
    monkeypatch.setattr(ranks, "size", lambda: 3)
    parts = []
    for number in range(3):
        monkeypatch.setattr(ranks, "rank", lambda number=number: number)
        parts.append(ranks.share(batch).input_ids)
    assert torch.cat(parts).sort(0).values.equal(rows)
    monkeypatch.setattr(ranks, "size", lambda: 4)
    with pytest.raises(InputError, match="6 rows of a batch cannot be shared evenly by 4 processes"):
        ranks.share(batch)


def test_gradients_are_clipped_as_by_torch_and_the_norm_before_is_told() -> None:
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in ((3, 4), (5,), (2, 2))]
    for parameter in ours[:2]:  # the last has no gradient
        parameter.grad = torch.randn_like(parameter)
    theirs = [torch.nn.Parameter(parameter.detach().clone()) for parameter in ours]
    for mine, other in zip(ours[:2], theirs, strict=False):
        other.grad = mine.grad.clone()
    loss, norm = ranks.clip(ours, 0.5, torch.tensor(7.0)).tolist()
    expected = torch.nn.utils.clip_grad_norm_(theirs, 0.5)
    assert loss == 7 and norm == pytest.approx(float(expected), rel=1e-6) and norm > 0.5
    for mine, other in zip(ours[:2], theirs, strict=False):
        torch.testing.assert_close(mine.grad, other.grad)
    ranks.clip(ours, 100.0, torch.tensor(7.0))
    torch.testing.assert_close(ours[0].grad, theirs[0].grad, msg="what is short enough stays as it is")
