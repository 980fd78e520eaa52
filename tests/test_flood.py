"""Mazes answered in place: every arrow leads to the goal, and a model that sees pictures as a whole can learn them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import latentweaver as lw
from latentweaver import recipes, tasks
from latentweaver.errors import InputError
from latentweaver.evaluate import accuracy_against_steps
from latentweaver.evaluate.flood import plot_flood, told
from latentweaver.tasks.batches import IGNORED, Batch, collate
from latentweaver.tasks.characters import Characters
from latentweaver.tasks.flood import HEAVY, LIGHT
from latentweaver.thought import Readout, Thought
from latentweaver.training.objectives import EveryStep

STEP = {"↑": (-1, 0), "↓": (1, 0), "←": (0, -1), "→": (0, 1)}
WAYS = {glyph: {"↑": n & 1, "↓": n & 2, "←": n & 4, "→": n & 8} for glyphs in (LIGHT, HEAVY) for n, glyph in enumerate(glyphs, 1)}


def distances(picture: list[str]) -> dict[tuple[int, int], int]:
    """Moves to the goal from every place, by a flood over the picture's glyphs."""
    (goal,) = [(row, column) for row, text in enumerate(picture) for column, glyph in enumerate(text) if glyph in HEAVY]
    found, waiting = {goal: 0}, [goal]
    for row, column in waiting:
        for way, open_ in WAYS[picture[row][column]].items():
            after = row + STEP[way][0], column + STEP[way][1]
            if open_ and after not in found:
                found[after] = found[row, column] + 1
                waiting.append(after)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_every_arrow_leads_one_move_nearer_to_the_goal(seed: int) -> None:
    task = tasks.Flood(side=3 + seed)
    problem = tasks.draw(task, "train", 1 + seed // 2, seed)
    picture, width = problem.prompt.split("\n"), task.side + 1
    far = distances(picture)
    assert len(far) == task.side**2, "every place is on the picture and can be reached"
    assert sorted(hint.depth for hint in problem.hints) == sorted(far.values())[1:]
    for place, arrow, depth in problem.hints:
        row, column = divmod(place, width)
        assert far[row, column] == depth
        assert WAYS[picture[row][column]][arrow]
        assert far[row + STEP[arrow][0], column + STEP[arrow][1]] == depth - 1
    assert [mark.depth for mark in problem.marks] == list(range(problem.difficulty, 0, -1))
    assert set(problem.marks) <= set(problem.hints)
    assert problem.answer == "".join(mark.value for mark in problem.marks)


def test_labels_stand_at_the_places_themselves_and_nothing_is_shown_after_the_picture() -> None:
    task = tasks.Flood(side=4)
    characters, problem = Characters(task.characters), tasks.draw(task, "train", 3, 1)
    for hints in (True, False):
        batch = collate([problem], characters, hints=hints)
        assert batch.input_ids.shape == (1, 4 * 5 - 1) and not (batch.input_ids >= characters.ids["↑"]).any()
        said = problem.hints if hints else problem.marks
        assert {
            (at, characters.tokens[batch.labels[0, at]], int(batch.depth[0, at]))
            for at in (batch.labels[0] != IGNORED).nonzero()[:, 0].tolist()
        } == set(said)
        assert batch.is_answer[0].nonzero()[:, 0].tolist() == sorted(mark.place for mark in problem.marks)


class Flooding(torch.nn.Module):
    """A reasoner that floods by hand: after t steps it knows the places within t moves, and says ↑ elsewhere."""

    def __init__(self, task: tasks.Flood, loud: float = 1.0) -> None:
        super().__init__()
        self.loud = loud
        self.characters, self.weight = Characters(task.characters), torch.nn.Parameter(torch.zeros(1))

    def begin(self, ids: torch.Tensor) -> Thought:
        return Thought.start(torch.zeros(*ids.shape, 1), anchor={"ids": ids})

    def think(self, thought: Thought) -> Thought:
        return thought.advance(thought.state)

    def read(self, thought: Thought) -> Readout:
        logits = torch.zeros(*thought.anchor["ids"].shape, len(self.characters))
        logits[..., self.characters.ids["↑"]] = 0.5
        for row, ids in enumerate(thought.anchor["ids"].tolist()):
            picture = self.characters.decode(ids).split("\n")
            far = distances(picture)
            for (down, right), distance in far.items():
                for arrow, (dy, dx) in STEP.items():
                    if (
                        0 < distance <= int(thought.step.max())
                        and far.get((down + dy, right + dx)) == distance - 1
                        and WAYS[picture[down][right]][arrow]
                    ):
                        logits[row, down * (len(picture[0]) + 1) + right, self.characters.ids[arrow]] = self.loud
        return Readout(logits=logits)


def test_a_maze_is_solved_when_the_flood_has_reached_its_start_and_not_before() -> None:
    task = tasks.Flood(side=6)
    table = accuracy_against_steps(Flooding(task), task, [1, 5, 6, 9], [6], problems=20)
    assert [table.cell(6, steps).accuracy for steps in (6, 9)] == [1, 1]
    assert table.cell(6, 1).accuracy < 0.2 and table.cell(6, 5).accuracy < 0.6


class TestAModelThatSeesPictures:
    def test_every_position_sees_every_other(self, tiny: Callable[..., lw.RecurrentDepthForCausalLM]) -> None:
        ids = torch.arange(12).view(2, 6)
        changed = ids.clone()
        changed[:, -1] += 1
        for causal in (True, False):
            model = tiny(causal=causal, initial_state="zeros")
            same = torch.isclose(model(ids).logits[:, 0], model(changed).logits[:, 0], atol=1e-6).all()
            assert bool(same) is causal
            for attention in ("eager", "sdpa"):
                model.set_attn_implementation(attention)
                padded = torch.cat([ids, torch.zeros(2, 3, dtype=ids.dtype)], 1)
                mask = torch.tensor([[1] * 6 + [0] * 3] * 2)
                assert torch.allclose(model(ids).logits, model(padded, attention_mask=mask).logits[:, :6], atol=1e-4)

    def test_it_cannot_go_on_writing_and_says_so(self, tiny: Callable[..., lw.RecurrentDepthForCausalLM]) -> None:
        model = tiny(causal=False)
        with pytest.raises(InputError, match="reads a picture as a whole"):
            model.generate(torch.arange(6)[None], max_new_tokens=3, num_steps=2)

    def test_the_recipe_learns_one_move_a_step_and_to_say_that_it_does_not_know_yet(self, tmp_path: Path) -> None:
        folder = recipes.train(
            "mazes", tmp_path, side=3, depth=2, width=32, inner=64, high_steps=2, warm_steps=1, updates=160, warm_updates=80, rise_updates=30,
            batch_size=32, evaluate_every=1000, evaluate_problems=2, lr=8e-3, warmup=20, device="cpu",
        )  # fmt: skip
        model, task = lw.load(folder), tasks.Flood(side=3)
        assert model.config.causal is False
        table = accuracy_against_steps(model, task, [1, 2], [1, 2], problems=50, seed=3)
        assert table.cell(1, 1).accuracy > 0.9
        assert table.cell(2, 1).accuracy < 0.1 and table.cell(2, 2).accuracy > 0.3
        one, two = told(model, tasks.draw(task, "test", 2, 0), [1, 2], sure=0.5)
        assert len(one.arrows) < len(two.arrows) and one.places == two.places == 8


class TestThePicture:
    def test_shows_arrows_where_they_are_known_and_counts_the_right_ones(self, tmp_path: Path) -> None:
        task = tasks.Flood(side=6)
        problem = tasks.draw(task, "test", 6, 2)
        near = {hint.place: hint.value for hint in problem.hints if hint.depth <= 3}
        (said,) = told(Flooding(task, loud=9.0), problem, [3], sure=0.9)
        assert said.arrows == near and said.right == len(near) and said.places == 35
        lines = said.lines(problem.prompt)
        assert sum(glyph in STEP for line in lines for glyph in line) == len(near) and [len(line) for line in lines] == [6] * 6
        pytest.importorskip("matplotlib")
        assert plot_flood([said], problem, tmp_path / "maze.png").read_bytes()[:4] == b"\x89PNG"
        with pytest.raises(InputError, match=r"\.png or \.svg"):
            plot_flood([said], problem, tmp_path / "maze.pdf")


def test_what_is_not_known_yet_weighs_as_much_as_what_is() -> None:
    """Four places, one of which is reached: three "not yet" together weigh as much as its arrow."""
    labels, depth = torch.tensor([[1, 1, 1, 1]]), torch.tensor([[1, 5, 5, 5]])
    logits = torch.tensor([[[0.0, 2.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]])
    each = torch.nn.functional.cross_entropy(logits[0], torch.tensor([1, 2, 2, 2]), reduction="none")

    class Said(torch.nn.Module):
        def begin(self, ids: torch.Tensor, generator: object = None) -> Thought:
            return Thought.start(torch.zeros(1, 4, 3))

        def think(self, thought: Thought) -> Thought:
            return thought.advance(logits)

        def read(self, thought: Thought) -> Readout:
            return Readout(logits=thought.state)

    batch = Batch(labels, labels, depth, torch.zeros_like(labels, dtype=torch.bool))
    terms = EveryStep(unknown=2)(Said(), batch, (0, 1), seed=0)
    assert float(terms.loss) == pytest.approx(float(each[0] + each[1:].mean()) / 2)
    assert float(terms.report["accuracy"]) == 1


def test_the_shipped_model_floods_one_move_a_step_and_nothing_falls_at_four_times_as_many() -> None:
    table = accuracy_against_steps(lw.load("weaver-mazes", device="cpu"), tasks.Flood(), [1, 11, 12, 80], [12], problems=20, seed=9)
    assert [table.cell(12, steps).right for steps in (1, 11)] == [0, 0]
    assert min(table.cell(12, steps).right for steps in (12, 80)) >= 19
