"""What an import costs, and that the Auto classes know our models in either order of imports."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_bare_import_imports_neither_torch_nor_transformers():
    assert run("import sys, latentweaver; print([name for name in ('torch', 'transformers') if name in sys.modules])") == "[]"


def test_help_imports_nothing_heavy():
    code = """
import sys
from latentweaver.cli import main
try:
    main(["--help"])
except SystemExit:
    print([name for name in ("torch", "transformers", "numpy") if name in sys.modules])
"""
    assert run(code).endswith("[]")


def test_every_public_name_can_be_had():
    assert run("import latentweaver as lw; print(all(getattr(lw, name) is not None for name in lw.__all__))") == "True"


@pytest.mark.slow
@pytest.mark.parametrize("module", ["models.blocks", "models.config", "models.continuous_thought", "runtime.engine", "checkpoints.formats"])
def test_any_module_can_be_the_first(module):
    assert run(f"import latentweaver.{module}; print('fine')") == "fine"


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "import latentweaver\nfrom transformers import AutoConfig, AutoModel, AutoModelForCausalLM",
        "from transformers import AutoConfig, AutoModel, AutoModelForCausalLM\nimport latentweaver",
        "import transformers, latentweaver\nfrom transformers import AutoConfig, AutoModel, AutoModelForCausalLM",
        "import latentweaver as lw\nlw.RecurrentDepthForCausalLM\nfrom transformers import AutoConfig, AutoModel, AutoModelForCausalLM",
        "import latentweaver\nfrom transformers import AutoConfig\nfrom transformers import AutoModel, AutoModelForCausalLM",
    ],
)
def test_auto_classes(imports, tiny, tmp_path):
    tiny().save_pretrained(tmp_path)
    code = f"""
import sys
{imports}
folder = sys.argv[1]
print(type(AutoConfig.from_pretrained(folder)).__name__, type(AutoModel.from_pretrained(folder)).__name__,
      type(AutoModelForCausalLM.from_pretrained(folder)).__name__)
"""
    assert run(code, str(tmp_path)) == "RecurrentDepthConfig RecurrentDepthModel RecurrentDepthForCausalLM"
