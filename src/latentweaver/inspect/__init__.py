"""Looking inside: record a model's thoughts and say, with evidence, how they move, what they hold and whether it matters.

    trajectory = lw.record(model, input_ids, steps=128)
    labels = lw.inspect.label(trajectory)

trajectory, recorder  the states of every step
dynamics, labels      how a path moves: quantities, and names for it with their evidence
rotation              is there an orbit, and of what period
portrait              principal components beside a random walk's
interventions         replay, extend, kick, reseed: what only the owner of the map can ask
spectra               eigenvalues, singular values, Lyapunov exponents, matrix-free
lens, tuned, bank     what the model would have said at each step
separability, probes, information   what a state holds
labelled, probe_table a probe after each step of texts with labels, its controls beside it
patching              whether it is used
stated                whether the model goes by what it writes
reporting             all of it about one input, as one HTML file (report_findings, report_packing, report_page, page/)

numpy is imported with this package; scipy, scikit-learn and pandas only by the functions that use them.
"""

# ruff: noqa: F401 (the names below are for type checkers; they are loaded on first use)
from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Trajectory": "trajectory",
    "record": "recorder",
    "report": "reporting",
    "Findings": "report_findings",
    "Recorder": "recorder",
    "Dynamics": "dynamics",
    "measure": "dynamics",
    "Rotation": "rotation",
    "Label": "labels",
    "Labels": "labels",
    "label": "labels",
    "label_path": "labels",
    "Bench": "interventions",
    "draw_portrait": "portrait",
    "Portrait": "portrait",
    "examine": "interventions",
    "Examination": "interventions",
    "leading_eigenvalues": "spectra",
    "largest_singular_value": "spectra",
    "lyapunov_exponents": "spectra",
    "Jacobian": "spectra",
    "task_decodability": "separability",
    "separability_by_step": "separability",
    "probe": "probes",
    "probe_by_step": "probes",
    "train_monitor": "probes",
    "probe_steps": "probe_table",
    "states_after": "labelled",
    "hint_test": "stated",
    "truncation_test": "stated",
    "held_against": "stated",
    "Writer": "stated",
    "LeakWarning": "probes",
    "bits_about": "information",
    "calibrate_bits": "information",
    "token_bits": "information",
    "read_steps": "lens",
    "coda_lens": "lens",
    "head_lens": "lens",
    "find_flips": "lens",
    "alarm_threshold": "lens",
    "block_effect": "lens",
    "tune_lens": "tuned",
    "lens_divergence": "tuned",
    "build_bank": "bank",
    "interchange": "patching",
    "disturb": "patching",
    "think_with": "patching",
    "verdict": "patching",
}

__all__ = [*_HOME]

if TYPE_CHECKING:
    from latentweaver.inspect.bank import build_bank
    from latentweaver.inspect.dynamics import Dynamics, measure
    from latentweaver.inspect.information import bits_about, calibrate_bits, token_bits
    from latentweaver.inspect.interventions import Bench, Examination, examine
    from latentweaver.inspect.labelled import states_after
    from latentweaver.inspect.labels import Label, Labels, label, label_path
    from latentweaver.inspect.lens import alarm_threshold, block_effect, coda_lens, find_flips, head_lens, read_steps
    from latentweaver.inspect.patching import disturb, interchange, think_with, verdict
    from latentweaver.inspect.portrait import Portrait, draw_portrait
    from latentweaver.inspect.probe_table import probe_steps
    from latentweaver.inspect.probes import LeakWarning, probe, probe_by_step, train_monitor
    from latentweaver.inspect.recorder import Recorder, record
    from latentweaver.inspect.report_findings import Findings
    from latentweaver.inspect.reporting import report
    from latentweaver.inspect.rotation import Rotation
    from latentweaver.inspect.separability import separability_by_step, task_decodability
    from latentweaver.inspect.spectra import Jacobian, largest_singular_value, leading_eigenvalues, lyapunov_exponents
    from latentweaver.inspect.stated import Writer, held_against, hint_test, truncation_test
    from latentweaver.inspect.trajectory import Trajectory
    from latentweaver.inspect.tuned import lens_divergence, tune_lens


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'latentweaver.inspect' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"latentweaver.inspect.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
