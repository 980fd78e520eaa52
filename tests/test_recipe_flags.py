"""`lw train` and `lw compare`: a recipe's fields as flags, every one of them explained."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from latentweaver import recipes
from latentweaver.cli import main
from latentweaver.commands.recipe_flags import explained, read
from latentweaver.commands.train import Place
from latentweaver.errors import InputError


@dataclass(frozen=True)
class Base:
    """A recipe.

    Attributes:
        width, depth: of its
            blocks: all.
        lr, seed: see
            `training.Settings`.

    Raises:
        InputError: never.
    """

    width: int = 4
    depth: int = 2
    lr: float = 1e-3
    seed: int = 0


@dataclass(frozen=True)
class Deep(Base):
    """Another.

    Attributes:
        depth: of the deep one.
    """

    depth: int = 20


def test_a_line_explains_all_the_fields_it_names() -> None:
    assert explained(Deep) == {
        "width": "of its blocks: all.",
        "depth": "of the deep one.",
        "lr": "peak learning rate.",
        "seed": "what batches, depths, first states and dropout are functions of, beside the update's number.",
    }


@pytest.mark.parametrize("name", list(recipes.RECIPES))
def test_every_flag_of_a_recipe_is_explained(name: str) -> None:
    told, flags = explained(recipes.RECIPES[name]), {field.name for field in fields(recipes.RECIPES[name])}
    assert set(told) == flags, "every field stands in a docstring, and nothing else does"
    assert not [flag for flag in flags if "training.Settings" in told[flag]]


def test_help_says_it_at_each_flag(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main(["train", "chains", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", "").split())
    for said in ("--coda INT blocks of each part. (default: 1)", "--lr FLOAT peak learning rate. (default: 0.002)", "--folder", "--resume"):
        assert said in shown


def test_flags_are_read_into_the_recipe_itself() -> None:
    place, recipe = read(Place, Deep, "lw", ["--folder=runs/a", "--resume", "--depth", "7"])
    assert (place, recipe) == (Place(Path("runs/a"), True), Deep(depth=7))
    assert type(recipe) is Deep
    assert read(Place, Deep, "lw", []) == (Place(), Deep())
    with pytest.raises(InputError, match=r"--depth.*deep.*--help says what there is"):
        read(Place, Deep, "lw", ["--depth", "deep"])


def test_a_run_is_kept_where_it_is_said_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = "--width=16 --inner=16 --heads=2 --depth=2 --statements=5 --high-steps=3 --backprop=2 --batch-size=4 --evaluate-problems=2 --device=cpu"
    asked = ["train", "chains", f"--folder={tmp_path / 'run'}", "--updates=2", *tiny.split()]
    main(asked)
    assert (tmp_path / "run" / "model" / "config.json").exists()
    with pytest.raises(SystemExit):
        main(asked)
    assert "already holds a training run" in capsys.readouterr().err
    main([*asked, "--resume"])
