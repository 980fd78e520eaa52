"""Losses of COCONUT's successors, against their formulas written out by hand."""

import pytest
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

import latentweaver as lw
from latentweaver.models.latent_block import latent_block
from latentweaver.tasks.token_batch import IGNORED
from latentweaver.training import ranks
from latentweaver.training.curriculum import Example, Markers
from latentweaver.training.latent_objectives import Answer, Distilled, ReadBatch, ReadOut, TaughtBatch, state_distance

MARKERS = Markers(latent=63, start=61, end=62)
IDS = {"latent_token_id": 63, "start_token_id": 61, "end_token_id": 62}
EXAMPLES = [Example([1, 2, 3], [[4, 5], [6, 7, 8], [9]], [20, 21, 0]), Example([1, 2, 3, 4, 5], [[6], [7, 8]], [20, 22, 23, 0])]


def test_distillation_is_codis_formula(base: PreTrainedModel) -> None:
    model = lw.continuous_thought(base, feedback="projected", **IDS)
    batch = TaughtBatch.of(EXAMPLES, MARKERS, thoughts=2, lead=1)
    terms = Distilled(teaching=0.5, distilling=3.0)(model, batch, (0, 1), 0)
    teacher = [[1, 2, 3, 4, 5, 6, 7, 8, 20, 21, 0], [1, 2, 3, 4, 5, 6, 20, 22, 23, 0]]  # without the last step
    student = [[1, 2, 3, 61, 63, 63, 62, 20, 21, 0], [1, 2, 3, 4, 5, 61, 63, 63, 62, 20, 22, 23, 0]]
    asked = [(8, 7), (5, 9)]  # where labels begin in teacher and student
    layers: list[list[torch.Tensor]] = [[], []]
    losses: list[list[torch.Tensor]] = [[], []]
    for side, rows in enumerate((teacher, student)):
        for row, ids in enumerate(rows):
            tokens = torch.tensor([ids])
            trace = model.trace(tokens, layers=True)
            begin = (3 if row == 0 else 5) if side == 0 else asked[row][1]
            losses[side].append(F.cross_entropy(model.head(trace.hidden)[0, begin - 1 : -1], tokens[0, begin:], reduction="none"))
            layers[side].append(torch.stack(trace.layers)[:, 0, ids.index(20)])
    (theirs, mine) = (torch.stack(states, 1) for states in layers)
    assert len(mine) == 3  # the embedding and two layers
    distance = torch.stack([F.smooth_l1_loss(a, b) / b.std() for a, b in zip(mine, theirs, strict=True)]).mean()
    expected = torch.cat(losses[1]).mean() + 0.5 * torch.cat(losses[0]).mean() + 3 * distance
    torch.testing.assert_close(terms.loss, expected, rtol=1e-4, atol=1e-5)
    terms.loss.backward()
    assert float(model.feedback.layers[0].weight.grad.abs().sum()) > 0


def test_the_teacher_is_not_pulled_towards_the_student() -> None:
    student, teacher = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    state_distance(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None
    scaled = state_distance(10 * student, 10 * teacher)  # smooth L1 is linear far out, so units cancel there
    assert 0 < float(scaled) < 10 * float(state_distance(student, teacher))


def test_readouts_stand_for_the_tokens_of_the_steps(base: PreTrainedModel) -> None:
    batch = ReadBatch.blocks(EXAMPLES, MARKERS, blocks=2, size=2, iterations=1)
    rows = [ids[mask.bool()].tolist() for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)]
    assert rows[0] == [1, 2, 3, 61, 63, 63, 63, 63, 62, 9, 20, 21, 0]
    assert batch.readouts[batch.input_ids == 63].tolist() == [4, 5, 6, 7, 6, -100, 7, 8]
    model = lw.latent_block(base, refine="loop", **IDS)
    terms = ReadOut(weight=0.5)(model, batch, (0, 1), 0)
    hidden = model.trace(batch.input_ids, batch.attention_mask).hidden
    assert model.iterations == 1
    losses = F.cross_entropy(model.head(hidden).flatten(0, 1), batch.readouts.flatten(), ignore_index=-100)
    answer = F.cross_entropy(model.head(hidden)[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=-100)
    torch.testing.assert_close(terms.loss, answer + 0.5 * losses, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("refine", [None, "jacobi", "loop"])
def test_a_few_updates_learn_an_answer(refine: str | None) -> None:
    from conftest import make_base

    base = make_base("llama")
    model = lw.continuous_thought(base, **IDS) if refine is None else lw.latent_block(base, refine=refine, num_steps=1, **IDS)
    batch = ReadBatch.blocks(EXAMPLES, MARKERS, blocks=2, size=1)
    objective = Answer() if refine is None else ReadOut()
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        loss = objective(model, batch, (0, 1), 0).loss
        losses.append(float(loss.detach()))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert losses[-1] < 0.3 * losses[0]


def test_the_loss_of_several_ranks_is_that_of_one(base: PreTrainedModel, monkeypatch) -> None:
    """Labels fall unevenly on the ranks: the average of their losses must be the mean over all labels, and gradients with it."""
    model = lw.continuous_thought(base, **IDS)
    blocks = latent_block(base, refine="loop", **IDS)
    rows = [Example([1, 2, 3], [[4, 5], [6, 7, 8], [9]], [20, 21, 22, 23, 0]), Example([1, 2], [], [20, 0])]
    whole = [ReadBatch.blocks(rows, MARKERS, blocks=2, size=2, iterations=1)]
    parts = [ReadBatch.blocks([row], MARKERS, blocks=2, size=2, iterations=1) for row in rows]
    for objective, asked in ((Answer(), model), (ReadOut(weight=0.5), blocks)):
        together = objective(asked, whole[0], (0, 1), 0).loss
        alone = []
        for part in parts:
            counts = {int((p.labels != IGNORED).sum()) for p in parts}, {int((p.readouts != IGNORED).sum()) for p in parts}
            assert not counts[0] & counts[1]  # so that a rank's number says what it counts
            totals = {
                n: sum(int((getattr(p, field) != IGNORED).sum()) for p in parts)
                for field, group in zip(("labels", "readouts"), counts, strict=True)
                for n in group
            }
            with monkeypatch.context() as patch:
                patch.setattr(ranks, "size", lambda: 2)
                patch.setattr(ranks, "total", lambda value, totals=totals: torch.tensor(totals[int(value)]))
                alone.append(objective(asked, part, (0, 1), 0).loss)
        torch.testing.assert_close(sum(alone) / 2, together, rtol=1e-5, atol=1e-6)
