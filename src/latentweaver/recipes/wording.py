"""Problems in words as tokens, the way COCONUT writes them: question, a step a line, "### " and the answer.

From nothing, a word is a token: `word_tokenizer` makes a transformers tokenizer of the words of a task. A pretrained decoder
brings its own tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from latentweaver.training.curriculum import Example

MARK = "###"
PAD, UNKNOWN, END = "<pad>", "<unk>", "<end>"
PIECES = r"###|\n|[.,:?!]"

NOUNS = (
    "apple", "river", "table", "chair", "bread", "stone", "cloud", "tiger", "horse", "piano", "lemon", "bottle", "castle", "garden", "window",
    "ladder", "hammer", "spider", "rabbit", "pencil", "guitar", "island", "camera", "basket", "candle", "butter", "pepper", "cotton", "silver",
    "rocket", "tunnel", "bridge", "market", "forest", "desert", "planet", "saddle", "anchor",
)  # fmt: skip
"""What a pretrained decoder takes made-up names of concepts for at first: a token each in most vocabularies, where all concepts end in the same one."""


class WithSteps(Protocol):
    """A problem in words: what the published files of COCONUT hold."""

    @property
    def question(self) -> str: ...
    @property
    def steps(self) -> tuple[str, ...]: ...
    @property
    def answer(self) -> str: ...


def texts(item: WithSteps) -> tuple[str, list[str], str]:
    """Question, steps and answer as they are written."""
    return item.question + "\n", [step + "\n" for step in item.steps], f"{MARK} {item.answer}"


def word_tokenizer(
    words: Iterable[str],
    markers: Iterable[str],
    phrases: Iterable[str] = (),
    silent: Iterable[str] = (),
    grammar: Mapping[str, str] | None = None,
) -> Any:
    """A transformers tokenizer with a token for each of the words, marks and markers.

    Args:
        words: the words.
        markers: tokens that no text has.
        phrases: words that stand together as one token.
        silent: words and marks that are no token at all.
        grammar: patterns that become something else, in texts and in `words`, all in small letters then; None to leave texts as they are.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    unheard = "|".join(rf"\b{word}\b" if word.isalpha() else re.escape(word) for word in silent)
    rules = [*([(unheard, "")] if unheard else []), *(grammar or {}).items()]
    small = [normalizers.Lowercase()] if grammar else []
    normalizer = normalizers.Sequence([*small, *(normalizers.Replace(Regex(pattern), become) for pattern, become in rules)])
    heard = sorted({normalizer.normalize_str(word).strip() for word in words} - {""})
    vocabulary = dict.fromkeys([PAD, UNKNOWN, END, MARK, "\n", ".", ",", ":", "?", "!", *heard, *phrases, *markers])
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(vocabulary)}, unk_token=UNKNOWN))
    if rules:
        inner.normalizer = normalizer  # pyright: ignore[reportAttributeAccessIssue]
    pieces = Regex("|".join([PIECES, *(rf"{phrase}(?!\w)" for phrase in phrases), r"[^\s.,:?!]+"]))
    inner.pre_tokenizer = pre_tokenizers.Split(pieces, "removed", invert=True)  # pyright: ignore[reportAttributeAccessIssue]
    special = {"pad_token": PAD, "unk_token": UNKNOWN, "eos_token": END}
    return PreTrainedTokenizerFast(tokenizer_object=inner, padding_side="left", extra_special_tokens=list(markers), **special)


def words_of(items: Iterable[WithSteps]) -> set[str]:
    """Every word of some problems."""
    found: set[str] = set()
    for item in items:
        question, steps, answer = texts(item)
        found.update(re.findall(r"[^\s.,:?!#]+", " ".join([question, *steps, answer])))
    return found


def examples(items: list[Any], tokenizer: Any) -> list[Example]:
    """Problems as tokens, the answer with the token that ends it."""
    written = [texts(item) for item in items]
    pieces = [text for question, steps, answer in written for text in (question, *steps, answer)]
    ids = iter(tokenizer(pieces, add_special_tokens=False)["input_ids"])
    found = []
    for _, steps, _ in written:
        question = next(ids)
        found.append(Example(question, [next(ids) for _ in steps], [*next(ids), tokenizer.eos_token_id]))
    return found


def answer_in(text: str) -> str:
    """The answer that a text gives: what is after its last "#", without commas."""
    return " ".join(text.split("#")[-1].replace(",", "").split())
