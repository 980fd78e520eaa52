"""Making transformers' Auto classes know our models, whichever of the two is imported first, and at no cost to either.

`import latentweaver` must not import transformers (six seconds), yet `AutoModelForCausalLM.from_pretrained(folder)` must work
after it. Our model modules register themselves where they end. So all that is needed is to import them when the module that
holds the Auto classes is imported, now, later or already: `wrapt`'s post-import hook does that. (If our module is what pulled
the Auto classes in, it is already being imported, and the hook's import does nothing.)
"""

from __future__ import annotations

import importlib

import wrapt

_OURS = {
    "transformers.models.auto.configuration_auto": ("config", "continuous_thought_config"),
    "transformers.models.auto.modeling_auto": ("recurrent_depth", "continuous_thought", "latent_block"),
}


def register() -> None:
    """Have our models known to the Auto classes as soon as these are there."""
    for theirs, ours in _OURS.items():
        for name in ours:
            wrapt.register_post_import_hook(lambda _, name=name: importlib.import_module(f"latentweaver.models.{name}"), theirs)
