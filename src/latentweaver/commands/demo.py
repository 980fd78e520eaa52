"""`lw demo`: what thinking looks like, on a model that was never trained to loop and on two that were."""

from __future__ import annotations

from dataclasses import dataclass

QUESTIONS = (
    "What is the capital of France?",
    "How many legs do three spiders have?",
    "Name three primary colors.",
)

CHAINS = ("r=3 k=r+4 q=k+r ?q=", "a=3 b=a+4 c=b+a d=c+b e=d+d f=e+1 g=f+e h=g+b ?h=")

WORDS = {
    "Swaps. Hugo has yellow. Susan has white. Sam has red. Sara has blue. Sam and Sara swap. Hugo and Sam swap. Susan and Hugo swap. Susan and "
    "Hugo swap. What does Hugo have? Answer:": "blue",
    "Logic. Ruth is false. Kay is not Ruth. Lucy is Kay or Ruth. Ted is not Lucy and Kay. Ada is not Ted. Anna is not Ada. Max is Anna or Ruth. "
    "Guy is Ruth or not Max. Dan is Max or not Guy. What is Dan? Answer:": "false",
}
"""Questions in plain English, each with its right answer."""


@dataclass(frozen=True)
class Demo:
    """A real pretrained model thinks about real questions, at several settings of the dial."""

    model: str = "smollm2-135m"
    """A name, a checkpoint folder, a GGUF file, or owner/repository on the hub."""

    tokens: int = 24
    """At most this many new tokens for each answer."""

    def __call__(self) -> None:
        from latentweaver.commands.think import Think, Thinker

        thinker = Thinker(Think(question="", model=self.model, tokens=self.tokens, threshold=0.01))
        for question in QUESTIONS:
            thinker.console.rule(question, align="left")
            for setting in ("1", "2", "4", "auto"):
                thinker.answer(question, setting)
        thinker.console.print(
            f"{self.model} is a pretrained model that was cut open and never trained to loop: more steps change its answers and do not "
            "improve them. weaver-chains, below, was trained to: each step adds two digits, and it knows the answer when it has had one "
            "step more than the chain is deep.\n"
        )
        chains = Thinker(Think(question="", model="weaver-chains", tokens=1, rule="confidence"))
        for question in CHAINS:
            chains.console.rule(question, align="left")
            for setting in ("1", "4", "12", "auto"):
                chains.answer(question, setting)
        chains.console.print(
            "smollm2-weaver is the pretrained model from above, trained a little with its loop: it follows what is said in plain English.\n"
        )
        words = Thinker(Think(question="", model="smollm2-weaver", tokens=1))
        for question, right in WORDS.items():
            words.console.rule(f"right: {right}", align="left")
            words.console.print(question, markup=False)
            for setting in ("1", "4", "16"):
                words.answer(question, setting)
