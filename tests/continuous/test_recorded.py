"""Updates that can be recorded: batches in few shapes, and nothing that a host must look up in a tensor."""

import contextlib
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from latentweaver.errors import InputError
from latentweaver.models import decoder
from latentweaver.recipes import RECIPES
from latentweaver.recipes.methods import METHODS
from latentweaver.recipes.wording import examples
from latentweaver.tasks.token_batch import TokenBatch
from latentweaver.training import recorded
from latentweaver.training.depth import Fixed
from latentweaver.training.loop import Settings, train
from latentweaver.training.objectives import Terms
from latentweaver.training.recorded import Recorded, shape_of

FIELDS = {"nodes": 10, "hops": (2, 3), "problems": 16, "test_problems": 4, "width": 16, "layers": 2, "heads": 2, "batch_size": 4}
SHORT = {"epochs": 5, "epochs_per_stage": 1, "max_latent_stage": 2, "block": 2, "device": "cpu"}


def batch_of(method: str, **fields):
    recipe = RECIPES[f"prosqa-{method}"](**{**FIELDS, **SHORT, **fields})
    model = recipe.model().train()
    return recipe, model, recipe.lesson.batch(examples(recipe.items[:4], recipe.tokenizer), 4, random.Random(0))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ours", [False, True])
def test_an_update_asks_nothing_of_a_tensor(method: str, ours: bool) -> None:
    """On the meta device there are no numbers: whoever looks for one gets an error, where a GPU's host would wait."""
    recipe, model, batch = batch_of(method, compile=ours, loop_layers=2)
    terms = recipe.lesson.objective()(model.to("meta"), batch.to("meta"), (0, 1), 0)
    terms.loss.backward()
    assert terms.loss.is_meta


@pytest.mark.parametrize("method", METHODS)
def test_padding_to_a_grid_changes_no_loss(method: str) -> None:
    recipe, model, batch = batch_of(method)
    padded = replace(recipe, grid=16).lesson.batch(examples(recipe.items[:4], recipe.tokenizer), 4, random.Random(0))
    for part in (padded.student, padded.teacher) if hasattr(padded, "student") else (padded,):
        assert part.input_ids.shape[1] % 16 == 0
        assert part.asked.shape[1] % 16 == 0
        assert part.place[0] % 16 == 0
    losses = [recipe.lesson.objective()(model, each, (0, 1), 0).loss for each in (batch, padded)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["coconut", "cot", "pause", "pccot", "lotus"])
@pytest.mark.parametrize("ours", [False, True])
def test_a_mask_made_ready_is_the_one_that_transformers_makes(method: str, ours: bool, monkeypatch) -> None:
    recipe, model, batch = batch_of(method, compile=ours, loop_layers=2, grid=16)
    losses = []
    for ready in (False, True):
        monkeypatch.setattr(decoder, "_ready", lambda base, inputs, ready=ready: ready)
        losses.append(recipe.lesson.objective()(model, batch, (0, 1), 0).loss)
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)


def test_what_is_asked_is_what_is_labelled() -> None:
    rows = [([5, 6, 9, 9, 7, 8], [-100, -100, -100, -100, 7, 8]), ([5, 9, 4], [-100, -100, 4]), ([1, 2], [1, 2])]
    batch = TokenBatch.of(rows, latent=9, grid=4)
    assert batch.place == (4, 2)
    for row in range(3):
        columns = (batch.labels[row, 1:] != -100).nonzero().squeeze(1)
        known = batch.wanted[row] != -100
        assert batch.asked[row][known].tolist() == columns.tolist()
        assert batch.wanted[row][known].tolist() == batch.labels[row, 1:][columns].tolist()


def test_shapes_tell_recordings_apart() -> None:
    one = batch_of("lotus")[2]
    assert shape_of(one) == shape_of(batch_of("lotus")[2])
    assert shape_of(one) != shape_of(replace(one, iterations=7))
    assert shape_of(one) != shape_of(TokenBatch.of([([1, 2], [-100, 2])]))
    assert shape_of(batch_of("codi")[2]) != shape_of(batch_of("codi", grid=16)[2])


def test_plays_back_what_it_recorded_on_new_batches(monkeypatch) -> None:
    """A recording is stood for by calling the work again on the tensors it was recorded with, as a CUDA graph does."""

    class Tape:
        work = None

        def replay(self):
            Tape.playing = True
            self.result[0].copy_(self.work()[0])
            Tape.playing = False

    tape = Tape()

    @contextlib.contextmanager
    def graph(this, **options):
        yield

    stream = SimpleNamespace(wait_stream=lambda other: None)
    fake = SimpleNamespace(
        Stream=lambda: stream, current_stream=lambda: stream, stream=lambda s: contextlib.nullcontext(), graph_pool_handle=lambda: 0,
        CUDAGraph=lambda: tape, graph=graph, synchronize=lambda: None,
    )  # fmt: skip
    monkeypatch.setattr(recorded.torch, "cuda", fake)
    seen = []

    def descend(batch, steps, seed):
        seen.append(batch.input_ids.tolist())
        loss = batch.input_ids.float().sum()
        if not getattr(Tape, "playing", False):
            tape.work, tape.result = (lambda: descend(batch, steps, seed)), (loss, Terms(loss))
        return loss, Terms(loss)

    learn = Recorded(descend, torch.nn.Linear(2, 2))
    batches = [TokenBatch.of([([a, b], [-100, b])]) for a, b in ((1, 2), (3, 4), (5, 6))]
    assert [float(learn(batch, (0, 1), 0)[0]) for batch in batches] == [3, 7, 11]
    assert seen == [[[1, 2]], [[3, 4]], [[3, 4]], [[5, 6]]]  # as usual, recorded, played, played


def test_only_what_draws_nothing_is_recorded(tmp_path) -> None:
    class Draws:
        def __call__(self, model, batch, depth, seed):
            raise AssertionError("never asked")

    model, batches = torch.nn.Linear(1, 1), {0: None}
    with pytest.raises(InputError, match="draws nothing; Draws may draw"):
        train(model, Draws(), Fixed(0, 1), batches, Settings(updates=1, record=True, device="cpu"), tmp_path)
