"""One token a character: the vocabulary of the tasks."""

from __future__ import annotations

from latentweaver.errors import InputError

PAD, END = "<pad>", "<end>"


class Characters:
    """A vocabulary: padding, the end of an answer, then the characters of a task in their own order."""

    def __init__(self, characters: str) -> None:
        if len(set(characters)) != len(characters):
            raise InputError(f"the characters of a vocabulary must differ, got {characters!r}")
        self.tokens = [PAD, END, *characters]
        self.ids = {token: number for number, token in enumerate(self.tokens)}
        self.pad, self.end = 0, 1

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """The ids of a text.

        Raises:
            InputError: if a character is not in the vocabulary.
        """
        try:
            return [self.ids[character] for character in text]
        except KeyError as error:
            raise InputError(f"the vocabulary has no character {error.args[0]!r}") from error

    def decode(self, ids: list[int]) -> str:
        """The text of ids up to the end of the answer, padding left out."""
        text = "".join(self.tokens[number] for number in ids if number != self.pad)
        return text.partition(END)[0]
