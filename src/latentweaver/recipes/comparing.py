"""Methods side by side on the same problems: what `lw compare` prints.

A `Result` is what one trained model did with every problem; a `Comparison` puts results of several methods and seeds into rows:
accuracy with a 95 % interval over problems and seeds, what an answer costs, and a paired test against one of the methods. An accuracy
is to be read against the floors: how far one gets on these very problems without searching.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from latentweaver.errors import InputError
from latentweaver.evaluate.ablate import ABLATIONS, Effect, ablate, cut_to
from latentweaver.evaluate.answers import Says, seconds_per_answer
from latentweaver.evaluate.paired import bootstrap, difference, mcnemar
from latentweaver.recipes.methods import METHODS
from latentweaver.recipes.stepwise import Stepwise, graded, prompts_for
from latentweaver.recipes.wording import MARK, answer_in, examples

SOFT = "soft"
"""Soft thinking: the model that learned "cot", thinking in mixtures of tokens, without training."""


@dataclass(frozen=True)
class Result:
    """What one model did.

    Attributes:
        method, seed: which one.
        right: problem by problem.
        tokens: thoughts and tokens of an answer, on average: columns computed one after another behind the question.
        seconds: wall time of an answer asked alone; None if it was not measured.
        complete: whether its training was.
    """

    method: str
    seed: int
    right: tuple[bool, ...]
    tokens: float
    seconds: float | None = None
    complete: bool = True

    @property
    def accuracy(self) -> float:
        return sum(self.right) / len(self.right)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, `right` as a string of 0 and 1."""
        return {**asdict(self), "right": "".join("01"[right] for right in self.right), "accuracy": self.accuracy}

    @classmethod
    def of(cls, content: dict[str, Any]) -> Result:
        """The inverse of `as_dict`."""
        fields = {name: value for name, value in content.items() if name in cls.__dataclass_fields__}
        return cls(**{**fields, "right": tuple(letter == "1" for letter in content["right"])})


@dataclass(frozen=True)
class Row:
    """A method in the table.

    Attributes:
        method: which.
        accuracies: of each seed.
        mean, low, high: over seeds and problems, with a 95 % bootstrap interval.
        tokens, seconds: of an answer.
        gain, gain_low, gain_high: mean accuracy minus that of the method compared with, on the same problems and seeds; None for itself.
        p_values: McNemar's, for each seed; empty for itself.
        complete: whether all its trainings were.
    """

    method: str
    accuracies: tuple[float, ...]
    mean: float
    low: float
    high: float
    tokens: float
    seconds: float | None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    p_values: tuple[float, ...] = ()
    complete: bool = True


@dataclass(frozen=True)
class Comparison:
    """Results of methods and seeds on the same problems.

    Attributes:
        results: what was measured.
        against: the method that the others are tested against.
        floors: accuracy of shortcuts that do not search, on the same problems.
    """

    results: tuple[Result, ...]
    against: str = "coconut"
    floors: dict[str, float] = field(default_factory=dict)

    def of(self, method: str) -> list[Result]:
        """A method's results, by seed."""
        return sorted((result for result in self.results if result.method == method), key=lambda result: result.seed)

    def rows(self) -> list[Row]:
        """The table, methods in the order in which they were given."""
        return [self._row(method) for method in dict.fromkeys(result.method for result in self.results)]

    def _row(self, method: str) -> Row:
        mine = self.of(method)
        whole = bootstrap([result.right for result in mine])
        seconds = [result.seconds for result in mine if result.seconds is not None]
        row = Row(
            method=method,
            accuracies=tuple(result.accuracy for result in mine),
            mean=whole.mean,
            low=whole.low,
            high=whole.high,
            tokens=sum(result.tokens for result in mine) / len(mine),
            seconds=sum(seconds) / len(seconds) if seconds else None,
            complete=all(result.complete for result in mine),
        )
        theirs = {result.seed: result for result in self.of(self.against)}
        pairs = [(result.right, theirs[result.seed].right) for result in mine if result.seed in theirs]
        if method == self.against or not pairs:
            return row
        gain = difference([a for a, _ in pairs], [b for _, b in pairs])
        p_values = tuple(mcnemar(a, b) for a, b in pairs)
        return replace(row, gain=gain.mean, gain_low=gain.low, gain_high=gain.high, p_values=p_values)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "against": self.against,
            "floors": self.floors,
            "rows": [asdict(row) for row in self.rows()],
            "results": [result.as_dict() for result in self.results],
        }


def measure(model: Any, tokenizer: Any, items: list[Any], method: str, seed: int, timed: int = 0, batch_size: int = 64) -> Result:
    """What a trained model does with some problems; `timed` of them are also asked one at a time, by the clock.

    Raises:
        InputError: if the model was not trained by a recipe of problems with steps.
    """
    prompts, limit = prompts_for(model, tokenizer, items), model.config.task["limit"]
    options: dict[str, Any] = {}
    if method == SOFT:
        options["halting"] = Says(tokenizer.convert_tokens_to_ids(MARK))
    right, said = graded(model, tokenizer, items, prompts, limit, batch_size=batch_size, **options)
    seconds = None
    if timed:
        latent = model.config.latent_token_id
        seconds = seconds_per_answer(model, prompts[:timed], tokenizer.eos_token_id, limit, latent, **options)
    return Result(method, seed, tuple(right), sum(each.cost for each in said) / len(said), seconds)


def ablated(model: Any, tokenizer: Any, items: list[Any], seed: int = 0, batch_size: int = 64) -> list[Effect]:
    """What becomes of a trained model's answers when its thoughts are swapped, permuted, noised, ..., or cut.

    Raises:
        InputError: a model without thoughts, or whose thoughts do not depend on the question (pause tokens).
    """
    prompts, config = prompts_for(model, tokenizer, items), model.config
    if not config.task["thoughts"]:
        raise InputError(f"this model learned {config.task['method']!r}: it has no thoughts to ablate")
    if config.feedback == "pause":
        raise InputError(f"this model learned {config.task['method']!r}: pause tokens are the same whatever the question")
    plain = [prompt[: prompt.index(config.latent_token_id)] for prompt in prompts]
    wanted = [answer_in(text) for text in _decoded(tokenizer, [example.answer for example in examples(items, tokenizer)])]
    thoughts = config.task["thoughts"]
    cuts = {f"cut to {count}": cut_to(count) for count in sorted({0, 1, thoughts // 2}) if count < thoughts}
    if isinstance(getattr(config, "refine", None), str):
        cuts.pop("cut to 0")  # a block that is empty is no block

    def judge(i: int, tokens: list[int]) -> bool:
        return answer_in(_decoded(tokenizer, [tokens])[0]) == wanted[i]

    count = config.num_steps
    return ablate(model, plain, judge, count, tokenizer.eos_token_id, config.task["limit"], {**ABLATIONS, **cuts}, batch_size, seed)


def _decoded(tokenizer: Any, rows: list[list[int]]) -> list[str]:
    return tokenizer.batch_decode(rows, skip_special_tokens=True)


def softened(model: Any) -> Any:
    """A model that learned to write its steps, made to think in mixtures of tokens instead."""
    from latentweaver.models.continuous_thought import continuous_thought

    soft = continuous_thought(model.base, feedback="soft").eval()
    soft.config.task = model.config.task
    return soft


def compare(
    recipe: Stepwise,
    folder: Path,
    methods: Sequence[str],
    seeds: int = 3,
    timed: int = 20,
    report: Callable[[str, dict[str, Any]], None] | None = None,
    measured: Callable[[Comparison], None] | None = None,
) -> Comparison:
    """Train what is not there yet, read the rest, ask all of them the recipe's test problems.

    Args:
        recipe: its fields go for all methods, but `method` and `seed`.
        folder: a run is kept in `folder`/METHOD-SEED; one that was stopped goes on.
        methods: out of `METHODS`, and "soft".
        seeds: how many of each.
        timed: problems that are asked one at a time for the wall time.
        report: is given the run's name and each line of its log.
        measured: is given the comparison so far whenever one more run has answered, its result last: hours may lie between two of them.

    Raises:
        InputError: an unknown method, or fewer than one seed.
    """
    if unknown := [method for method in methods if method not in (*METHODS, SOFT)]:
        raise InputError(f"unknown method {', '.join(unknown)}; there are {', '.join((*METHODS, SOFT))}")
    if seeds < 1:
        raise InputError(f"seeds must be at least 1, got {seeds}")
    items = recipe.test_items()
    found = Comparison((), "coconut" if "coconut" in methods else methods[0], floors_of(items) | recipe.floors(items))
    for method in methods:
        for seed in range(seeds):
            name = f"{'cot' if method == SOFT else method}-{seed}"
            place = folder / name
            if not (place / "model" / "config.json").is_file():
                one = replace(recipe, method="cot" if method == SOFT else method, seed=seed)
                one.run(place, resume=place.exists(), report=None if report is None else lambda line, name=name: report(name, line))
            model, tokenizer = _opened(place / "model", recipe.device)
            result = measure(softened(model) if method == SOFT else model, tokenizer, items, method, seed, timed)
            found = replace(found, results=(*found.results, result))
            if measured is not None:
                measured(found)
    return found


def floors_of(items: list[Any]) -> dict[str, float]:
    """How far shortcuts get on these problems, where they are graphs."""
    from latentweaver.tasks.graphs import shortcut_floors

    return shortcut_floors([item.graph for item in items]) if all(hasattr(item, "graph") for item in items) else {}


def _opened(folder: Path, device: str | None) -> tuple[Any, Any]:
    from latentweaver.checkpoints.loading import load, load_tokenizer

    return load(folder, device=device or "auto"), load_tokenizer(folder)
