"""Problems in words with their steps, from files in COCONUT's form: a list of {question, steps, answer}.

ProsQA's, ProntoQA's and GSM8k-Aug's files have this form. ProntoQA in COCONUT's own split: drawn by the original's generator
(asaparov/prontoqa at f0145b8), rows 0 to 8,999 train, 9,000 to 9,199 validate, 9,200 to 9,999 test.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from latentweaver.errors import InputError


@dataclass(frozen=True)
class SteppedProblem:
    """A question, the steps to its answer, and the answer."""

    question: str
    steps: tuple[str, ...]
    answer: str


def load(path: str | Path) -> list[SteppedProblem]:
    """The problems of a file.

    Raises:
        InputError: if the file is missing, empty, or not of that form.
    """
    path = Path(path)
    try:
        rows = json.loads(path.read_text())
        problems = [SteppedProblem(str(row["question"]), tuple(map(str, row["steps"])), str(row["answer"])) for row in rows]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a list of {{question, steps, answer}}: {type(error).__name__} {error}") from error
    if not problems:
        raise InputError(f"{path} holds no problems")
    return problems
