"""Problems from published files, a path given for each side: GSM8K (arXiv 2110.14168) and ProsQA (arXiv 2412.06769).

    Recorded.of("gsm8k", "train.jsonl", "test.jsonl")

The files say which side a problem is on. A question that is in both is refused: files mixed up, or one named twice, would make every
number measured with them worthless. The difficulty is the number of steps of the recorded solution.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from latentweaver.errors import InputError
from latentweaver.tasks import prosqa
from latentweaver.tasks.problem import Problem, Split, Task

NUMBER = re.compile(r"-?[\d,]*\.?\d+")


@dataclass(frozen=True)
class Recorded(Task):
    """Problems of two lists.

    Attributes:
        name: what they are called.
        train, test: the problems of each side.
    """

    name: str
    train: tuple[Problem, ...] = field(repr=False)
    test: tuple[Problem, ...] = field(repr=False)

    def __post_init__(self) -> None:
        for side in ("train", "test"):
            if not getattr(self, side):
                raise InputError(f"{self.name} has no {side} problems")
        if both := set(map(_same, self.train)) & set(map(_same, self.test)):
            raise InputError(f"{len(both)} questions of {self.name} are in both files, among them {min(both)[:60]!r}")

    @classmethod
    def of(cls, kind: str, train: str | Path, test: str | Path) -> Recorded:
        """The problems of two files of that kind, "gsm8k" or "prosqa".

        Raises:
            InputError: if a file cannot be read or is not of that kind, or a question is in both.
        """
        if kind not in READERS:
            raise InputError(f"unknown kind of file {kind!r}; there are {', '.join(READERS)}")
        return cls(kind, tuple(READERS[kind](Path(train))), tuple(READERS[kind](Path(test))))

    @property
    def characters(self) -> str:  # type: ignore[override]
        return "".join(sorted({character for problem in (*self.train, *self.test) for character in problem.prompt + problem.answer}))

    @property
    def difficulties(self) -> tuple[int, int]:  # type: ignore[override]
        depths = [problem.difficulty for problem in (*self.train, *self.test)]
        return min(depths), max(depths)

    def draw(self, rng: random.Random, difficulty: int, size: float) -> Problem:
        of_it = [problem for problem in (*self.train, *self.test) if problem.difficulty == difficulty]
        if not of_it:
            raise InputError(f"{self.name} has no problem of difficulty {difficulty}")
        return rng.choice(of_it)

    def split(self, problem: Problem) -> Split:
        """The side of the file it is in."""
        return "test" if problem in self.test else "train"

    def judge(self, problem: Problem, answer: str) -> bool:
        """Whether `answer` is right; of a number only the value counts, wherever in the answer it is the last."""
        said = NUMBER.findall(answer)
        if NUMBER.fullmatch(problem.answer) and said:
            return float(said[-1].replace(",", "")) == float(problem.answer)
        return answer.strip() == problem.answer


def _same(problem: Problem) -> str:
    """The question without what makes no difference to it: case, and how much space there is."""
    return " ".join(problem.prompt.lower().split())


def read_gsm8k(path: Path) -> Iterator[Problem]:
    """The problems of a published file: lines with a question and an answer whose last line is "#### number".

    Raises:
        InputError: if the file cannot be read or a line is not of that form.
    """
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            steps, mark, answer = row["answer"].rpartition("####")
            question = row["question"].strip()
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}, line {number} is not a row of GSM8K ({type(error).__name__}: {error})") from error
        answer = answer.strip().replace(",", "")
        if not (mark and NUMBER.fullmatch(answer)):
            raise InputError(f"{path}, line {number} is not a row of GSM8K: its answer does not end with '#### number'")
        yield Problem(f"{question}\n", answer, max(1, len([step for step in steps.splitlines() if step.strip()])))


def read_prosqa(path: Path) -> Iterator[Problem]:
    """The problems of a published file of ProsQA; see `prosqa.load`."""
    return (Problem(f"{item.question} ", item.answer, len(item.steps)) for item in prosqa.load(path))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


READERS: dict[str, Callable[[Path], Iterator[Problem]]] = {"gsm8k": read_gsm8k, "prosqa": read_prosqa}
