"""Problems in plain English that need a number of dependent steps: the training mixture of `smollm2-weaver`.

    sums      Ann is three. Bob is Ann plus four. What is Bob?                  (last digits only)
    homes     Ann lives in Paris. Bob lives with Ann. Where does Bob live?
    logic     Ann is true. Bob is not Ann. Cid is Ann and Bob. What is Cid?
    counters  Ann starts at four. Ann adds seven. What is Ann?                  (last digits only; several counters)
    swaps     Ann has red. Bob has blue. Ann and Bob swap. What does Ann have?
    arrows    Ann points to Bob. Bob points to Ann. Start at Ann. Step. Step. Where?

Every name and every value is one word, so that what is known after a word can be asked for there (`Hint`). A problem may also
carry `thoughts`: the text that writes every value on the way down.
"""

from __future__ import annotations

from collections.abc import Callable

from latentweaver.tasks.worded.dependent import Counters, Homes, Logic, Sums
from latentweaver.tasks.worded.moving import Arrows, Swaps
from latentweaver.tasks.worded.writing import NAMES, Worded, WordedProblem

WORDED: dict[str, Callable[..., Worded]] = {
    "sums": Sums,
    "homes": Homes,
    "logic": Logic,
    "counters": Counters,
    "swaps": Swaps,
    "arrows": Arrows,
}

__all__ = ["NAMES", "WORDED", "Arrows", "Counters", "Homes", "Logic", "Sums", "Swaps", "Worded", "WordedProblem"]
