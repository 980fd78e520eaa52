"""Tasks: the generator against an independent judge, difficulty as promised, and no overlap between train and test."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentweaver import tasks
from latentweaver.errors import InputError
from latentweaver.tasks import prosqa
from latentweaver.tasks.batches import IGNORED, Epochs, Stream, collate
from latentweaver.tasks.chains import evaluate
from latentweaver.tasks.characters import END, Characters
from latentweaver.tasks.multiplication import MARK, problem_of, read_row, steps_of
from latentweaver.tasks.sudoku import solve

CHAINS = tasks.Chains()


@given(seed=st.integers(0, 2**32), difficulty=st.integers(1, 51), size=st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_a_chain_has_the_answer_and_the_depth_it_says(seed: int, difficulty: int, size: float) -> None:
    problem = CHAINS.draw(random.Random(seed), difficulty, size)
    assert evaluate(problem.prompt) == (problem.answer, difficulty)
    assert max(hint.depth for hint in problem.hints) == difficulty + 1
    assert CHAINS.judge(problem, problem.answer + " ")
    assert not CHAINS.judge(problem, str((int(problem.answer) + 1) % 10))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_every_hint_is_true_and_known_from_the_text_before_it(seed: int) -> None:
    rng = random.Random(seed)
    problem = CHAINS.draw(rng, rng.randint(1, 16), rng.random())
    for place, value, depth in problem.hints:
        before = problem.prompt[: place + 1]
        if before.endswith(" "):
            name = before.rstrip().rsplit(" ", 1)[-1][0]
            assert evaluate(f"{before}?{name}=") == (value, depth)
        else:
            whole = before[: before.rindex(" ") + 1]
            assert evaluate(f"{whole}?{before[-1]}=") == (value, depth - 1)


def test_answers_alone_are_not_guessable() -> None:
    rng = random.Random(0)
    answers = [CHAINS.draw(rng, 8, rng.random()).answer for _ in range(3000)]
    assert max(answers.count(digit) for digit in "0123456789") < 0.13 * len(answers)


@pytest.mark.parametrize("name", sorted(tasks.TASKS))
def test_train_and_test_never_overlap(name: str) -> None:
    task = tasks.task(name)
    rng, low = random.Random(0), task.difficulties[0]
    sides = {
        split: {
            task.essence(tasks.draw(task, split, rng.randint(low, min(low + 2, task.difficulties[1])), rng, size=0.1))
            for _ in range(40 if name == "sudoku" else 150)
        }
        for split in ("train", "test")
    }
    assert not sides["train"] & sides["test"]


@pytest.mark.parametrize("name", sorted(tasks.TASKS))
def test_every_task_judges_its_own_answers_and_speaks_its_characters(name: str) -> None:
    task = tasks.task(name)
    low, high = task.difficulties
    characters = Characters(task.characters)
    for seed in range(30):
        problem = tasks.draw(task, "train", min(low + seed % 4, high), seed)
        assert task.judge(problem, problem.answer)
        assert characters.decode(characters.encode(problem.prompt + problem.answer)) == problem.prompt + problem.answer
        assert problem.difficulty == min(low + seed % 4, high)


def test_a_renamed_problem_is_on_the_same_side() -> None:
    one = tasks.Problem("a=3 b=a+4 ?b=", "7", 1)
    other = tasks.Problem("X=3 q=X+4 ?q=", "7", 1)
    assert CHAINS.essence(one) == CHAINS.essence(other)
    assert tasks.split_of(CHAINS, one) == tasks.split_of(CHAINS, other)


def test_the_same_seed_draws_the_same_problem() -> None:
    assert tasks.draw(CHAINS, "test", 5, 3) == tasks.draw(CHAINS, "test", 5, 3)
    assert tasks.draw(CHAINS, "test", 5, 3) != tasks.draw(CHAINS, "test", 5, 4)


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(InputError, match="difficulties 1 to 51, got 52"):
        tasks.draw(CHAINS, "train", 52, 0)
    with pytest.raises(InputError, match="validation"):
        tasks.draw(CHAINS, "validation", 5, 0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="chains"):
        tasks.task("chess")
    with pytest.raises(InputError, match="'-'"):
        Characters(CHAINS.characters).encode("a-b")


def test_labels_stand_where_they_should_be_said() -> None:
    characters = Characters(CHAINS.characters)
    problem = tasks.Problem("a=3 ?a=", "3", 0, (tasks.Hint(3, "3", 0),))
    batch = collate([problem], characters, multiple=4)
    three, end = characters.ids["3"], characters.ids[END]
    assert batch.input_ids.shape == (1, 8)
    assert batch.labels.tolist() == [[IGNORED] * 3 + [three] + [IGNORED] * 2 + [three, end]]
    assert batch.depth.tolist() == [[0] * 6 + [1, 0]]
    assert batch.is_answer.tolist() == [[False] * 6 + [True, True]]
    assert (collate([problem], characters, hints=False).labels != IGNORED).sum() == 2


def test_a_batch_depends_on_its_number_alone() -> None:
    stream = Stream(CHAINS, (1, 4), batch_size=3, seed=5)
    first, again = stream[7], Stream(CHAINS, (1, 4), batch_size=3, seed=5)[7]
    assert first.input_ids.equal(again.input_ids)
    assert not first.input_ids.equal(stream[8].input_ids)


class TestMultiplication:
    ROW = (
        "5 6 3 2 * 7 4 3 4||5 5 5 6 1 + 0 0 6 4 9 0 ( 5 5 1 1 1 1 ) + 0 0 5 9 0 7 0 ( 5 5 6 0 2 8 0 ) + 0 0 0 0 6 4 9 0"
        " #### 5 5 6 0 8 2 0 1"
    )  # the first row of the published 4x4 validation file

    def test_a_published_row_is_read_and_its_steps_are_written_alike(self) -> None:
        problem = read_row(self.ROW)
        assert problem.prompt + problem.answer == "5 6 3 2 * 7 4 3 4 #### 5 5 6 0 8 2 0 1"
        assert f"{problem.prompt.removesuffix(MARK)}||{steps_of(2365, 4347, 4)} #### {problem.answer}" == self.ROW

    def test_a_broken_row_is_named(self) -> None:
        with pytest.raises(InputError, match="not a line"):
            read_row("2 + 2")
        with pytest.raises(InputError, match="the line says"):
            read_row(self.ROW[:-1] + "2")

    def test_factors_may_change_places(self) -> None:
        task = tasks.Multiplication()
        assert task.essence(problem_of(12, 34, 2)) == task.essence(problem_of(34, 12, 2))


class TestMaze:
    @given(seed=st.integers(0, 2**32), difficulty=st.integers(1, 20), size=st.floats(0, 1))
    @settings(max_examples=40, deadline=None)
    def test_the_path_is_as_long_as_promised_and_no_wall_is_crossed(self, seed: int, difficulty: int, size: float) -> None:
        task = tasks.Maze()
        problem = task.draw(random.Random(seed), difficulty, size)
        assert len(problem.answer) == difficulty
        assert task.judge(problem, problem.answer)
        assert not task.judge(problem, problem.answer[:-1])
        assert not task.judge(problem, problem.answer + "UD")
        assert not task.judge(problem, "X")


class TestSudoku:
    def test_a_puzzle_has_one_solution_and_the_empty_cells_it_says(self) -> None:
        problem = tasks.Sudoku().draw(random.Random(0), 40, 0.0)
        assert problem.prompt.count(".") == 40
        assert solve(problem.prompt[:-1]) == problem.answer

    def test_a_wrong_digit_or_a_changed_given_is_not_accepted(self) -> None:
        task = tasks.Sudoku()
        problem = task.draw(random.Random(1), 10, 0.0)
        swapped = problem.answer.translate(str.maketrans("12", "21"))  # a valid grid, of another puzzle
        assert not task.judge(problem, swapped)
        assert not task.judge(problem, "1" * 81)
        assert not task.judge(problem, problem.answer[:-1])

    def test_unsolvable_and_ambiguous_puzzles_are_named(self) -> None:
        with pytest.raises(InputError, match="no solution"):
            solve("11" + "." * 79)
        with pytest.raises(InputError, match="more than one"):
            solve("." * 81)
        with pytest.raises(InputError, match="81"):
            solve("123")


class TestRecorded:
    ROW = {"question": "Ann has 1,200 pens and buys 3. How many?", "answer": "She has 1200 + 3 = <<1200+3=1203>>1203.\n#### 1,203"}

    def written(self, path: Path, *rows: object) -> Path:
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
        return path

    def test_rows_of_gsm8k_are_read_and_judged_by_value(self, tmp_path: Path) -> None:
        train = self.written(tmp_path / "a.jsonl", {**self.ROW, "question": "Other?"})
        test = self.written(tmp_path / "b.jsonl", self.ROW, "")
        task = tasks.task(f"gsm8k:{train},{test}")
        problem = tasks.draw(task, "test", 1, 0)
        assert (problem.prompt, problem.answer) == (self.ROW["question"] + "\n", "1203")
        assert task.judge(problem, "So it is 1,203.") and task.judge(problem, "1203.0")
        assert not task.judge(problem, "1203 and then 4") and not task.judge(problem, "many")
        assert tasks.draw(task, "train", 1, 0).prompt == "Other?\n"
        assert Characters(task.characters).encode(problem.prompt)

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ('{"question": "cut o', r"b.jsonl, line 2 is not a row of GSM8K \(JSONDecodeError"),
            ({"question": "q"}, r"line 2 is not a row of GSM8K \(KeyError: 'answer'"),
            ({"question": "q", "answer": "no mark"}, "does not end with '#### number'"),
            ([1, 2], "line 2 is not a row"),
        ],
    )
    def test_a_broken_row_is_named_with_its_line(self, tmp_path: Path, row: object, said: str) -> None:
        train, test = self.written(tmp_path / "a.jsonl", self.ROW), self.written(tmp_path / "b.jsonl", {**self.ROW, "question": "x"}, row)
        with pytest.raises(InputError, match=said):
            tasks.task(f"gsm8k:{train},{test}")

    def test_mixed_up_files_are_refused(self, tmp_path: Path) -> None:
        file = self.written(tmp_path / "a.jsonl", self.ROW)
        with pytest.raises(InputError, match="1 questions of gsm8k are in both files"):
            tasks.task(f"gsm8k:{file},{file}")
        with pytest.raises(InputError, match="ProsQA's form"):
            tasks.task(f"prosqa:{file},{file}")
        with pytest.raises(InputError, match="cannot read"):
            tasks.task(f"gsm8k:{tmp_path}/none.jsonl,{file}")
        with pytest.raises(InputError, match="two files"):
            tasks.task(f"gsm8k:{file}")
        with pytest.raises(InputError, match="no train problems"):
            tasks.task(f"gsm8k:{self.written(tmp_path / 'empty.jsonl')},{file}")

    def test_prosqa_is_read_from_its_files(self, tmp_path: Path) -> None:
        rng = random.Random(0)
        items = [prosqa.ProsQA().draw(rng) for _ in range(4)]
        for name, part in (("train", items[:3]), ("test", items[3:])):
            (tmp_path / name).write_text(json.dumps([item.record() for item in part]))
        task = tasks.task(f"prosqa:{tmp_path}/train,{tmp_path}/test")
        problem = tasks.draw(task, "test", len(items[3].steps), 0)
        assert problem.prompt == items[3].question + " "
        assert task.judge(problem, items[3].answer)


class TestGym:
    gym = pytest.importorskip("reasoning_gym", reason="an optional extra")

    @pytest.mark.parametrize("name", ["chain_sum", "knights_knaves", "mini_sudoku"])
    def test_problems_get_harder_are_judged_and_keep_to_their_side(self, name: str) -> None:
        task = tasks.task(f"reasoning-gym:{name}")
        low, high = task.difficulties
        assert high > low
        sides = {}
        for split in ("train", "test"):
            drawn = [tasks.draw(task, split, low, seed) for seed in range(10)]
            assert all(task.judge(problem, problem.answer) and not task.judge(problem, "nonsense") for problem in drawn)
            sides[split] = {problem.prompt for problem in drawn}
        assert not sides["train"] & sides["test"]
        assert tasks.draw(task, "train", low, 3) == tasks.draw(task, "train", low, 3)
        assert tasks.draw(task, "train", high, 3).prompt != tasks.draw(task, "train", low, 3).prompt

    def test_what_it_does_not_have_is_named(self) -> None:
        with pytest.raises(InputError, match="chain_sum"):
            tasks.task("reasoning-gym:chain_sun")
        with pytest.raises(InputError, match="not drawn from reasoning-gym"):
            tasks.task("reasoning-gym:chain_sum").judge(tasks.Problem("1 + 1 =", "2", 1), "2")


class TestEpochs:
    def problems(self) -> list[tasks.Problem]:
        rng = random.Random(0)
        return [tasks.Problem("a" * rng.randint(1, 200), str(place % 10), place) for place in range(403)]

    def test_like_lengths_share_a_batch_and_every_problem_comes_once_a_pass(self) -> None:
        characters = Characters("a0123456789")
        epochs = Epochs(self.problems(), characters, batch_size=8, multiple=1)
        count = 403 // 8

        def padding(epochs: Epochs) -> float:
            batches = [epochs[index].input_ids for index in range(count)]
            return sum(int((ids == characters.pad).sum()) for ids in batches) / sum(ids.numel() for ids in batches)

        assert padding(epochs) < 0.03 < 0.3 < padding(Epochs(self.problems(), characters, batch_size=8, multiple=1, window=1))
        lengths = [
            sorted(int(row) for index in range(count) for row in (epochs[index + turn * count].input_ids > 1).sum(1)) for turn in (0, 1)
        ]
        assert abs(sum(lengths[0]) - sum(lengths[1])) < 1000, "the same problems in another order, but for three left over"
        assert not epochs[0].input_ids.equal(epochs[count].input_ids)
        assert epochs[5].input_ids.equal(Epochs(self.problems(), characters, batch_size=8, multiple=1)[5].input_ids)

    def test_too_few_problems_are_named(self) -> None:
        with pytest.raises(InputError, match="403 problems do not fill a batch of 500"):
            Epochs(self.problems(), Characters("a0123456789"), batch_size=500)
