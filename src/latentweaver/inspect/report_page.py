"""Findings into one HTML file, and into JSON: the same facts and the same arrays in both.

The page is the files in `page/`, put together: style sheet and script inline, facts as JSON, arrays and what is said of each token packed. Nothing is ever
fetched, and the page forbids it to itself: its Content-Security-Policy allows no source at all beyond the script and style that
are in it (by their hashes), so that nothing in a prompt could run or call home.

A page has a size limit. What does not fit is given up in a fixed order, `FIDELITIES`, and the footer says what.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, is_dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from numpy import ndarray

from latentweaver.errors import InputError
from latentweaver.inspect.interventions import Examination
from latentweaver.inspect.labels import Label
from latentweaver.inspect.lens import Flips
from latentweaver.inspect.portrait import Portrait
from latentweaver.inspect.report_findings import CODA, SETTLED, Findings
from latentweaver.inspect.report_packing import Array, Rounding, pack

LIMIT = 1_500_000
DIGITS = 7
"""Of the single numbers among the facts: what a float32 holds."""
SCRIPTS = (
    "data.js", "palette.js", "state.js", "draw.js", "export.js",
    "summary.js", "strip.js", "heatmap.js", "portrait.js", "decode.js", "card.js", "footer.js", "main.js",
)  # fmt: skip
"""In this order they make one script; each may use what comes before it."""


@dataclass(frozen=True)
class Fidelity:
    """How much of the findings a page carries.

    Attributes:
        exact: numbers as float32, not rounded to 16 bits.
        components: of the portraits.
        top: how many likeliest tokens of each step.
        starts: how many other starts are drawn.
        every: every which kept step.
    """

    exact: bool = True
    components: int = 6
    top: int = 10
    starts: int = 8
    every: int = 1


FIDELITIES = (
    Fidelity(),
    Fidelity(exact=False),
    Fidelity(exact=False, top=5, starts=3),
    Fidelity(exact=False, components=4, top=3, starts=2),
    Fidelity(exact=False, components=2, top=3, starts=1),
    *(Fidelity(exact=False, components=2, top=3, starts=1, every=every) for every in (2, 4, 8, 16)),
)


def contents(found: Findings, fidelity: Fidelity) -> tuple[dict[str, Any], dict[str, Array]]:
    """The facts (plain data) and the arrays (token first) of a report."""
    at = slice(None, None, fidelity.every)
    arrays = {"speed": Array(found.speed[:, at], "log"), "distance": Array(found.distance[:, at], "log")}
    vocabulary = np.zeros(0, np.int64)
    if (said := found.said) is not None:
        ids = said.top_ids[:, at, : fidelity.top]
        vocabulary, places = np.unique(ids, return_inverse=True)
        arrays["top"] = Array(places.reshape(ids.shape), "whole")
        arrays["top_logprobs"] = Array(said.top_logprobs[:, at, : fidelity.top])
        read: tuple[tuple[str, ndarray | None, Rounding], ...] = (
            ("entropy", said.entropy, "linear"),
            ("answer_probability", None if said.answer_logprob is None else np.exp(said.answer_logprob), "log"),
            ("answer_rank", said.answer_rank, "whole"),
            ("kl_final", None if said.kl_final is None else np.maximum(said.kl_final, 0), "log"),
            ("control_rank", said.control_rank, "whole"),
            ("pair_difference", said.pair_difference, "linear"),
        )
        for name, values, how in read:
            if values is not None:
                arrays[name] = Array(values[:, at], how)
    arrays |= _drawn(found, fidelity)
    facts = {
        "provenance": asdict(found.provenance),
        "steps": found.steps[at].tolist(),
        "settled_below": SETTLED,
        "distance_to": found.distance_to,
        "tokens": [_token(found, token) for token in range(found.tokens)],
        "vocabulary": [{"id": int(token), "text": found.text(int(token))} for token in vocabulary],
        "starts": None if found.starts is None else {"kind": found.starts.kind, "count": len(found.starts.states)},
        "control": None if said is None or said.control is None else found.text(said.control),
        "pair": None if said is None or said.pair is None else [found.text(token) for token in said.pair],
        "ghosts": found.ghosts,
        "read_to": None if said is None else said.read_to,
        "lens": None if said is None or said.lens == CODA else said.lens,
        "not_shown": not_shown(found, fidelity),
    }
    return plain(facts, DIGITS), arrays


def _drawn(found: Findings, fidelity: Fidelity) -> dict[str, Array]:
    """Paths, ghosts and other starts on each token's own components; NaN where there is nothing to draw."""
    kept, width = len(found.steps), fidelity.components
    starts = 0 if found.starts is None else min(fidelity.starts, len(found.starts.states))
    points, ghosts = (np.full((found.tokens, kept, width), np.nan) for _ in range(2))
    others = np.full((found.tokens, starts, kept, min(width, 2 if not fidelity.exact else width)), np.nan)
    for token, portrait in enumerate(found.portraits):
        if isinstance(portrait, str):
            continue
        first = int(found.steps[0] == 0)  # the start is not in the portrait, but can be put on its components
        drawn = slice(first, first + len(portrait.points))
        axes = portrait.components[:width]
        path = found.states[: drawn.stop, token].astype(np.float64)
        middle = path[first:].mean(0)
        points[token, : drawn.stop, : len(axes)] = (path - middle) @ axes.T
        few = min(width, portrait.ghost.shape[1])
        ghosts[token, drawn, :few] = portrait.ghost[:, :few]
        if starts:
            assert found.starts is not None
            axes = axes[: others.shape[-1]]
            with np.errstate(invalid="ignore", over="ignore"):
                others[token, ..., : len(axes)] = (found.starts.states[:starts, :, token] - middle) @ axes.T
    at = slice(None, None, fidelity.every)
    out = {"points": Array(points[:, at]), "ghost": Array(ghosts[:, at])}
    return out | ({"others": Array(others[:, :, at])} if starts else {})


def _token(found: Findings, token: int) -> dict[str, Any]:
    """What is said of one token in words and single numbers."""
    label, portrait = found.labels[token], found.portraits[token]
    fact: dict[str, Any] = {
        "text": found.name(token),
        "id": None if found.ids is None else found.ids[token],
        "position": int(found.positions[token]),
        "generated": found.generated[token],
        "settled": found.settled[token],
        "label": _label(label),
        "portrait": portrait if isinstance(portrait, str) else _portrait(portrait),
    }
    if (said := found.said) is not None:
        answer = int(said.answers[token])
        fact["answer"] = {"id": None, "text": "NaN"} if answer < 0 else {"id": answer, "text": found.text(answer)}
        flips = said.flips[token] if said.flips else None
        fact["flips"] = None if flips is None else _flips(flips)
    if (starts := found.starts) is not None:
        fact["starts"] = {
            "independence": starts.independence[token],
            "spread": starts.spread[token],
            "same_answer": starts.same_answer[token],
            "labels": [names[token] for names in starts.labels],
        }
    if token in found.examined:
        fact["examined"] = _examination(found.examined[token])
    return fact


def _label(label: Label) -> dict[str, Any]:
    fact: dict[str, Any] = {
        "name": label.name,
        "text": str(label),
        "reasons": label.reasons,
        "period": label.period,
        "period_error": label.period_error,
        "confidence": label.confidence,
        "candidate": label.candidate,
        "flags": label.flags,
    }
    if (e := label.evidence) is not None:
        names = ("speed", "floor", "norm", "last_step", "rate", "remaining", "excursion", "turning", "straightness", "drift_r2", "radius")
        fact["evidence"] = {name: getattr(e, name) for name in (*names, "spread", "determinism")}
        r = e.rotation
        fact["evidence"] |= {"theta": r.theta, "theta_error": r.error} if r.lines else {}
        fact["evidence"] |= {"skill": r.skill, "turns": r.turns, "energy": r.energy, "coherence": r.coherence}
        fact["recurrence"] = e.recurrence
    return fact


def _portrait(portrait: Portrait) -> dict[str, Any]:
    return {
        "caption": portrait.caption(),
        "explained": portrait.explained,
        "ghost_explained": portrait.ghost_explained,
        "turns": portrait.turns,
        "ghost_turns": portrait.ghost_turns,
        "like_a_walk": portrait.like_a_walk,
    }


def _flips(flips: Flips) -> dict[str, Any]:
    return {"steps": flips.steps, "last": flips.last, "lead": flips.lead, "score": flips.score, "unstable": flips.unstable}


def _examination(found: Examination) -> dict[str, Any]:
    kick, replay, extension = found.kick, found.replay, found.extension
    return {
        "verdict": found.verdict,
        "reasons": found.reasons,
        "replay": {"deterministic": replay.deterministic, "error": replay.error, "floor": replay.floor, "autonomous": replay.autonomous},
        "extension": {"times": extension.times, "label": str(extension.label), "holds": extension.holds, "refused": extension.refused},
        "kick": {"outcome": kick.outcome, "size": kick.size, "returned": kick.returned, "growth": kick.growth, "diverged": kick.diverged},
    }


def not_shown(found: Findings, fidelity: Fidelity) -> list[str]:
    """What a reader might take this report for, and it is not."""
    unexamined = found.tokens - len(found.examined)
    last = int(found.steps[-1]) if len(found.steps) else 0
    lines = [
        "One input and one seed: nothing here says how often it happens elsewhere.",
        "A lens shows what is readable in a state, not what the model uses: that takes interventions (lw.inspect.interchange).",
        "One point of the cycle per step; what happens between the layers inside a step is not recorded.",
        "No probe was trained and nothing was tested against a model that is made to deceive its reader.",
    ]
    if unexamined:
        lines.append(
            f"{unexamined} of {found.tokens} tokens were labelled from the record alone; noise that drives a resonator can look like an "
            "orbit there. Those marked as examined were replayed, extended and kicked."
        )
    if found.said is not None and found.said.read_to < last:
        lines.append(f"After step {found.said.read_to} no state is finite: what it would have said is what it said then.")
    if found.said is not None and found.said.lens != CODA:
        lines.append(
            f"States were read through {found.said.lens}; what is called the final answer is the model's own. What a lens can read, the model need not use."
        )
    if found.said is None:
        lines.append("What the model would have said was not read: this report was made from a recording without readouts.")
    elif found.said.control is None:
        lines.append("No control token was followed: that the answer's rank falls says little where every rank falls.")
    if found.starts is None:
        lines.append("No other first states were tried, so nothing here tells whether the end depends on the start.")
    if found.provenance.every > 1:
        lines.append(f"Only every {found.provenance.every}th step was recorded; speeds and times are in recorded steps.")
    if not fidelity.exact:
        lines.append("To stay small the file carries numbers rounded to 16 bits (of each token's range); labels were made before that.")
    if fidelity.every > 1:
        lines.append(f"To stay small the file shows only every {fidelity.every}th recorded step; labels were made from all.")
    best = 0 if found.said is None else found.said.top_ids.shape[-1]
    if best > fidelity.top:
        lines.append(f"To stay small the file has {fidelity.top} of the {best} likeliest tokens of each step.")
    if found.starts is not None and len(found.starts.states) > fidelity.starts:
        lines.append(f"To stay small the file draws {fidelity.starts} of {len(found.starts.states)} other starts.")
    return lines


def html(found: Findings, title: str, limit: int = LIMIT) -> str:
    """The report as one self-contained page of at most `limit` bytes.

    Raises:
        InputError: if even the least of `FIDELITIES` is larger.
    """
    size = 0
    for fidelity in FIDELITIES:
        facts, arrays = contents(found, fidelity)
        page = _assembled({**facts, "title": title}, arrays, fidelity.exact)
        size = len(page.encode())
        if size <= limit:
            return page
    raise InputError(
        f"a report of {found.tokens} tokens and {len(found.steps)} steps takes {size:,} bytes of {limit:,}; choose fewer tokens"
    )


def as_json(found: Findings, title: str) -> str:
    """Everything that the page shows, as JSON, arrays unrounded; NaN and infinities are the strings "NaN", "Infinity", "-Infinity"."""
    facts, arrays = contents(found, Fidelity(top=10**6, starts=10**6))
    return json.dumps({"title": title, **facts, "arrays": plain({name: array.values for name, array in arrays.items()})})


def plain(value: Any, digits: int = 17) -> Any:
    """Plain data that JSON can hold, numbers with so many digits."""
    if isinstance(value, dict):
        return {str(name): plain(one, digits) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one, digits) for one in value]
    if isinstance(value, ndarray):
        return plain(value.tolist(), digits)
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value), digits)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def _assembled(facts: dict[str, Any], arrays: dict[str, Array], exact: bool) -> str:
    bulk = {name: facts[name] for name in ("tokens", "vocabulary")}
    blob, index = pack({**arrays, **bulk}, exact)
    facts = {name: value for name, value in facts.items() if name not in bulk}
    style, script = _part("report.css"), "\n".join(_scripts())
    # "<" never appears inside the JSON, so that no text from a prompt can end the element it stands in
    data = json.dumps({**facts, "arrays": index, "exact": exact}).replace("<", "\\u003c")
    policy = f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data: blob:; base-uri 'none'; form-action 'none'"
    parts = {"POLICY": policy, "STYLE": style, "FACTS": data, "BLOB": blob, "SCRIPT": script}
    # in one pass: what is put in is not looked through for places again
    return re.sub("@@([A-Z]+)@@", lambda place: parts[place[1]], _part("report.html"))


def _scripts() -> Iterator[str]:
    yield '"use strict";'
    for name in SCRIPTS:
        yield _part(name)


def _part(name: str) -> str:
    return (files("latentweaver.inspect") / "page" / name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
