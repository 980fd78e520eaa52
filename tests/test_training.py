"""Training: samplers as published, objectives on hand-computed cases, runs that survive a kill bit for bit."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from latentweaver import recipes
from latentweaver.errors import CheckpointError, InputError
from latentweaver.tasks.batches import Stream
from latentweaver.thought import Readout, Thought
from latentweaver.training import checkpoint, products
from latentweaver.training.depth import Curriculum, Fixed, LogNormalPoisson, TruncatedPoisson, Uniform, generator_for
from latentweaver.training.loop import Diverged, Settings, train
from latentweaver.training.objectives import (
    IGNORED,
    EachSequence,
    EveryStep,
    ExpectedExit,
    GateOnly,
    LastStep,
    exit_distribution,
    shifted,
    token_losses,
)
from latentweaver.training.optimisers import Muon, optimisers, trapezoid
from latentweaver.training.products import wide_products
from latentweaver.training.watch import Watch, token_correlation


def near(value: float, tolerance: float = 1e-4) -> object:
    return pytest.approx(value, rel=tolerance, abs=1e-6)


class TestDepth:
    def test_huginns_sampler_has_the_measured_moments(self) -> None:
        totals = LogNormalPoisson(mean=32, backprop=8).totals(400_000, generator_for(0, 0)).double()
        assert totals.mean() == pytest.approx(32.98, abs=0.12)
        assert totals.std() == pytest.approx(17.97, abs=0.15)
        shares = torch.tensor([0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999], dtype=torch.float64)
        published = torch.tensor([8, 12, 20, 29, 41, 67, 93, 137])
        ordered = totals.sort().values
        found = ordered[(shares * len(ordered)).long()]
        assert ((found - published).abs() <= torch.tensor([1, 1, 1, 1, 1, 1, 2, 4])).all(), found
        assert (totals <= 8).double().mean() == pytest.approx(0.015, abs=0.002)

    def test_short_draws_are_all_gradient(self) -> None:
        draws = [LogNormalPoisson(mean=8, backprop=8)(update) for update in range(300)]
        assert all(k == min(n + k, 8) for n, k in draws)
        assert any(n == 0 and k < 8 for n, k in draws)

    def test_parcaes_sampler_draws_for_each_sequence(self) -> None:
        totals = TruncatedPoisson(mean=8, backprop=4).per_sequence(0, 200_000).double()
        assert totals.mean() == pytest.approx(8, abs=0.03)
        assert totals.std() == pytest.approx(8**0.5, abs=0.03)
        assert totals.min() == 1

    @pytest.mark.parametrize("sampler", [LogNormalPoisson(), TruncatedPoisson(), Uniform(1, 20, 6), Fixed(2, 3)])
    def test_an_update_has_one_depth_on_every_rank_and_after_every_resume(self, sampler: object) -> None:
        assert [sampler(update) for update in range(20)] == [sampler(update) for update in range(20)]  # type: ignore[operator]

    def test_a_curriculum_waits_and_then_rises(self) -> None:
        sampler = Curriculum(Uniform(1, 20, 20), start=2, updates=100, field="high", hold=50)
        assert max(sum(sampler(update)) for update in range(50)) == 2
        assert max(sum(sampler(update)) for update in range(150, 400)) == 20
        mean = Curriculum(LogNormalPoisson(mean=32), start=4, updates=10)
        assert sum(sum(mean(update)) for update in range(10, 110)) > 100 * 20

    def test_nonsense_is_refused_by_name(self) -> None:
        with pytest.raises(InputError, match="mean"):
            LogNormalPoisson(mean=0)
        with pytest.raises(InputError, match="high"):
            Uniform(5, 4, 1)
        with pytest.raises(InputError, match="width"):
            Curriculum(Uniform(1, 2, 1), start=1, updates=1, field="width")


@dataclass
class Plain:
    """Three tokens, of which two are labelled."""

    input_ids: Tensor
    labels: Tensor
    depth: Tensor
    is_answer: Tensor


class Counting(nn.Module):
    """A reasoner whose logits after t steps are known: t times a weight for token 1, 0 for token 0. Two tokens in all."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.gates = nn.Parameter(torch.zeros(16))

    def begin(self, input_ids: Tensor, generator: object = None) -> Thought:
        return Thought.start(torch.zeros(*input_ids.shape, 1))

    def think(self, thought: Thought) -> Thought:
        return thought.advance(thought.state + self.weight)

    def read(self, thought: Thought) -> Readout:
        return Readout(torch.cat([torch.zeros_like(thought.state), thought.state], -1))

    def exit_logit(self, thought: Thought) -> Tensor:
        return self.gates[thought.step.to(torch.long)]


def plain() -> Plain:
    return Plain(
        input_ids=torch.zeros(1, 3, dtype=torch.long),
        labels=torch.tensor([[1, IGNORED, 1]]),
        depth=torch.tensor([[1, 0, 3]]),
        is_answer=torch.tensor([[False, False, True]]),
    )


def loss_after(steps: int) -> float:
    return float(torch.log1p(torch.exp(torch.tensor(-float(steps)))))


class TestObjectives:
    def test_the_last_step_is_read_once(self) -> None:
        terms = LastStep()(Counting(), plain(), (2, 3), seed=0)
        assert terms.loss.item() == near(loss_after(5))
        assert float(terms.report["accuracy"]) == 1

    def test_gradients_stop_before_the_last_k_steps(self) -> None:
        model = Counting()
        LastStep()(model, plain(), (2, 3), seed=0).loss.backward()
        # d/dw log(1 + exp(-(2 w' + 3 w))) with w' held: -3 sigmoid(-5)
        assert float(model.weight.grad) == near(-3 * float(torch.sigmoid(torch.tensor(-5.0))))

    def test_every_step_counts_alike_or_late_ones_more(self) -> None:
        losses = [loss_after(step) for step in (1, 2, 3)]
        even = EveryStep(solvable_only=False)(Counting(), plain(), (0, 3), seed=0)
        assert even.loss.item() == near(sum(losses) / 3)
        late = EveryStep(solvable_only=False, growth=2)(Counting(), plain(), (0, 3), seed=0)
        assert late.loss.item() == near((losses[0] + 2 * losses[1] + 4 * losses[2]) / 7)

    def test_a_label_is_asked_for_once_it_can_be_known(self) -> None:
        batch = plain()
        batch.labels[0, 2] = 0  # a wrong label, of depth 3: the loss shows when it comes in
        asked = EveryStep()(Counting(), batch, (0, 3), seed=0)
        wrong = loss_after(3) + 3
        assert asked.loss.item() == near((loss_after(1) + loss_after(2) + (loss_after(3) + wrong) / 2) / 3)

    def test_the_answer_can_weigh_more(self) -> None:
        batch = plain()
        batch.labels[0, 2] = 0
        terms = EveryStep(answer_weight=3)(Counting(), batch, (2, 1), seed=0)
        assert terms.loss.item() == near((loss_after(3) + 3 * (loss_after(3) + 3)) / 4)

    def test_truncation_trains_each_step_on_its_own(self) -> None:
        model = Counting()
        EveryStep(solvable_only=False, truncate=True)(model, plain(), (0, 2), seed=0).loss.backward()
        expected = -sum(float(torch.sigmoid(torch.tensor(-float(step)))) for step in (1, 2)) / 2
        assert float(model.weight.grad) == near(expected)

    def test_each_sequence_takes_its_own_number_of_steps(self) -> None:
        sampler = TruncatedPoisson(mean=3, backprop=2)
        batch = plain()
        rows = Plain(*(tensor.repeat(4, 1) for tensor in (batch.input_ids, batch.labels, batch.depth, batch.is_answer)))
        totals = sampler.per_sequence(9, 4).tolist()
        model = Counting()
        loss = EachSequence(sampler)(model, rows, (0, 1), seed=9).loss
        assert len(set(totals)) > 1
        assert loss.item() == near(sum(loss_after(total) for total in totals) / 4)
        loss.backward()
        expected = -sum(min(total, 2) * float(torch.sigmoid(torch.tensor(-float(total)))) for total in totals) / 4
        assert float(model.weight.grad) == near(expected)

    def test_the_exit_distribution_gives_the_last_step_the_rest(self) -> None:
        even = exit_distribution(torch.zeros(3, 1, 1)).flatten()
        assert even.tolist() == pytest.approx([0.5, 0.25, 0.25])
        assert float(exit_distribution(torch.randn(5, 2, 3)).sum(0).std()) == near(0)

    def test_the_expected_loss_weighs_steps_by_their_exit(self) -> None:
        terms = ExpectedExit(beta=0.1)(Counting(), plain(), (0, 3), seed=0)
        entropy = 1.5 * float(torch.log(torch.tensor(2.0)))
        expected = 0.5 * loss_after(1) + 0.25 * loss_after(2) + 0.25 * loss_after(3) - 0.1 * entropy
        assert terms.loss.item() == near(expected)
        assert float(terms.report["exit_step"]) == near(1.75)
        with pytest.raises(InputError, match="n must be 0"):
            ExpectedExit()(Counting(), plain(), (1, 3), seed=0)

    def test_the_second_stage_moves_only_the_gate(self) -> None:
        model = Counting()
        terms = GateOnly(slope=50, threshold=0.005)(model, plain(), (0, 3), seed=0)
        terms.loss.backward()
        assert model.weight.grad is None
        assert (model.gates.grad[1:3] > 0).all()  # steps still pay, so the gate's logit of leaving goes down
        assert float(terms.report["go_on"]) > 0.95

    def test_only_labelled_places_are_turned_into_logits(self) -> None:
        recipe = recipes.Chains(updates=1, **TINY)
        batch, seen = Stream(recipe.task, (1, 2), 4)[0], []
        whole, some = recipe.model().train(), recipe.model().train()
        some.lm_head.register_forward_hook(lambda module, given, said: seen.append(said.shape))
        mine = LastStep()(some, batch, (1, 2), seed=1)
        thought = whole.begin(batch.input_ids, generator=1)
        with torch.no_grad():
            thought = whole.think(thought)
        expected = token_losses(whole.read(whole.think(whole.think(thought))).logits, batch.labels).sum() / (batch.labels != IGNORED).sum()
        assert seen == [(int((batch.labels != IGNORED).sum()), whole.config.vocab_size)]
        assert mine.loss.item() == near(float(expected.detach()))
        mine.loss.backward(), expected.backward()
        for one, other in zip(some.parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)

    def test_next_tokens_are_the_shifted_input(self) -> None:
        assert shifted(torch.tensor([[5, 6, 7]])).tolist() == [[6, 7, IGNORED]]


class TestOptimisers:
    def test_muon_has_the_matrices_and_nothing_decays_that_should_not(self) -> None:
        model = nn.Module()
        model.embed, model.inner, model.lm_head = nn.Embedding(4, 8), nn.Linear(8, 8), nn.Linear(8, 4, bias=False)
        adamw, muon = optimisers(model, "muon", 1e-3, 0.1)
        assert [id(p) for group in muon.param_groups for p in group["params"]] == [id(model.inner.weight)]
        decaying, still = adamw.param_groups
        assert {id(p) for p in decaying["params"]} == {id(model.embed.weight), id(model.lm_head.weight)}
        assert still["weight_decay"] == 0
        with pytest.raises(InputError, match="sgd"):
            optimisers(model, "sgd", 1e-3, 0.1)  # type: ignore[arg-type]

    def test_muon_is_torchs(self) -> None:
        torch.manual_seed(0)
        ours = [nn.Parameter(torch.randn(shape)) for shape in ((6, 4), (4, 6))]
        theirs = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
        kinds = {Muon: ours, torch.optim.Muon: theirs}
        mine, other = (kind(which, lr=0.1, weight_decay=0.2, adjust_lr_fn="match_rms_adamw") for kind, which in kinds.items())
        for _ in range(3):
            for one, two in zip(ours, theirs, strict=True):
                one.grad = torch.randn_like(one)
                two.grad = one.grad.clone()
            mine.step(), other.step()
        assert all(torch.equal(one, two) for one, two in zip(ours, theirs, strict=True))

    def test_the_rate_rises_stays_and_falls(self) -> None:
        rates = [trapezoid(update, 100, warmup=10, cooldown=0.2) for update in range(100)]
        assert rates[0] == 0.1
        assert rates[9:81] == [1.0] * 72
        assert rates[-1] == pytest.approx(1 / 20)


class TestProducts:
    def test_wide_products_stay_exact_and_leave_no_trace(self) -> None:
        generator = torch.Generator().manual_seed(1)
        x, w = torch.randn(300, 512, generator=generator), torch.randn(200, 512, generator=generator)
        exact, before = x.double() @ w.double().t(), torch.backends.mkldnn.matmul.fp32_precision
        with wide_products():
            error = float((torch.nn.functional.linear(x, w).double() - exact).abs().max())
        assert error < 1e-3, "factors rounded to bfloat16 would be 0.3 off"
        assert torch.backends.mkldnn.matmul.fp32_precision == before

    def test_they_are_not_used_where_they_round(self, monkeypatch: pytest.MonkeyPatch) -> None:
        errors = iter([4e-5, 0.3])
        monkeypatch.setattr(products, "_error", lambda: next(errors))
        before = torch.backends.mkldnn.matmul.fp32_precision
        with wide_products() as used:
            assert not used
            assert torch.backends.mkldnn.matmul.fp32_precision == before


class TestWatch:
    def test_tokens_that_became_alike_are_reported(self) -> None:
        alike = torch.ones(2, 5, 8) + 0.01 * torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
        assert float(token_correlation(alike)) > 0.99
        assert float(token_correlation(torch.eye(8)[None])) == pytest.approx(0, abs=1e-6)
        _, warnings = Watch().collapse(alike + 1, alike)
        assert any("tokens alike" in warning for warning in warnings)

    def test_a_state_that_steps_do_not_move_is_reported(self) -> None:
        state = torch.randn(2, 5, 8)
        _, warnings = Watch().collapse(state, state)
        assert any("state ignored" in warning for warning in warnings)

    def test_a_spike_is_reported_and_noise_is_not(self) -> None:
        watch, noise = Watch(), torch.Generator().manual_seed(0)
        assert not any(watch.spike(1 + 0.1 * float(torch.randn((), generator=noise))) for _ in range(200))
        assert "loss spike" in (watch.spike(3.0) or "")


TINY = dict(  # noqa: C408
    width=16, inner=32, heads=2, statements=4, depth=2, high_steps=3, backprop=2, batch_size=4, warm_updates=2, rise_updates=4,
    evaluate_every=1000, log_every=1, device="cpu",
)  # fmt: skip


def weights(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / checkpoint.NAME, weights_only=True)["model"]


def losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    updates = [line["update"] for line in lines]
    assert updates == sorted(set(updates)), "every update is in the log once"
    return {line["update"]: line["loss"] for line in lines}


class TestRuns:
    @pytest.mark.parametrize("optimiser", ["adamw", "muon"])
    def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(self, tmp_path: Path, optimiser: str) -> None:
        settings = {**TINY, "updates": 9, "optimiser": optimiser, "checkpoint_every": 4}
        recipes.train("chains", tmp_path / "whole", **settings)

        class Stop(Exception):
            pass

        def stop(line: dict) -> None:
            if line["update"] == 6:  # two updates after a checkpoint: they are lost and made again
                raise Stop

        with pytest.raises(Stop):
            recipes.train("chains", tmp_path / "parts", report=stop, **settings)
        recipes.train("chains", tmp_path / "parts", resume=True, **settings)
        whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
        assert all(torch.equal(whole[name], parts[name]) for name in whole)
        assert losses(tmp_path / "whole") == losses(tmp_path / "parts")

    def test_a_run_killed_at_any_moment_resumes_bit_for_bit(self, tmp_path: Path) -> None:
        settings = {**TINY, "updates": 16, "checkpoint_every": 1}
        flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        command = [sys.executable, "-m", "latentweaver", "train", "chains", "--folder", str(tmp_path / "killed"), "--resume", *flags]
        environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        log = tmp_path / "killed" / "log.jsonl"
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if log.exists() and log.read_text().count("\n") >= 5:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.01)
        assert process.wait() == -signal.SIGKILL
        with log.open("a") as file:
            file.write('{"update": 99, "lo')  # a line cut off by the kill
        resumed = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert resumed.returncode == 0, resumed.stderr
        recipes.train("chains", tmp_path / "whole", **settings)
        killed, whole = weights(tmp_path / "killed"), weights(tmp_path / "whole")
        assert all(torch.equal(killed[name], whole[name]) for name in whole)
        assert losses(tmp_path / "killed") == losses(tmp_path / "whole")

    def test_a_loss_that_is_not_a_number_stops_with_the_checkpoint_intact(self, tmp_path: Path) -> None:
        model = Counting()

        def objective(model: Counting, batch: Plain, depth: tuple[int, int], seed: int):  # type: ignore[no-untyped-def]
            terms = LastStep()(model, batch, depth, seed)
            terms.loss = terms.loss * (float("nan") if seed >= 3 else 1.0)
            return terms

        class Batches:
            def __getitem__(self, index: int) -> Plain:
                batch = plain()
                batch.to = lambda device: batch  # type: ignore[attr-defined]
                return batch

        settings = Settings(updates=10, checkpoint_every=1, device="cpu")
        with pytest.raises(Diverged, match="at update 3"):
            train(model, objective, Fixed(0, 2), Batches(), settings, tmp_path)
        content = torch.load(tmp_path / checkpoint.NAME, weights_only=True)
        assert content["update"] == 3
        assert all(tensor.isfinite().all() for tensor in content["model"].values())

    def test_a_run_is_not_overwritten_nor_resumed_as_another(self, tmp_path: Path) -> None:
        recipes.train("chains", tmp_path, updates=1, **TINY)
        with pytest.raises(InputError, match="already holds"):
            recipes.train("chains", tmp_path, updates=1, **TINY)
        with pytest.raises(CheckpointError, match="lr was"):
            recipes.train("chains", tmp_path, resume=True, updates=1, lr=0.5, **TINY)
        (tmp_path / checkpoint.NAME).write_bytes(b"no checkpoint")
        with pytest.raises(CheckpointError, match="cannot read"):
            recipes.train("chains", tmp_path, resume=True, updates=1, **TINY)

    def test_recomputed_steps_give_the_same_gradients(self) -> None:
        recipe = recipes.Chains(updates=1, **TINY)
        reference, recomputing = recipe.model().train(), recipe.model().train()
        recomputing.gradient_checkpointing_enable({"use_reentrant": False})
        batch = Stream(recipe.task, (1, 2), 4)[0]
        for model in (reference, recomputing):
            EveryStep()(model, batch, (1, 2), seed=1).loss.backward()
        for mine, theirs in zip(reference.parameters(), recomputing.parameters(), strict=True):
            if mine.grad is not None:
                torch.testing.assert_close(mine.grad, theirs.grad)

    @pytest.mark.parametrize("name", ["chains-answers-only", "chains-no-loop", "chains-no-loop-deep"])
    def test_the_controls_train(self, tmp_path: Path, name: str) -> None:
        settings = {field: value for field, value in TINY.items() if field != "high_steps"}
        recipes.train(name, tmp_path, updates=2, **settings)
        depths = [json.loads(line)["depth"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
        if "no-loop" in name:
            assert depths == [[0, 1]] * 2
            assert len(recipes.RECIPES[name]().model().model.core) == (10 if "deep" in name else 2)
        else:
            batch = Stream(recipes.RECIPES[name]().task, (1, 2), 4, hints=recipes.RECIPES[name]().hints)[0]
            assert ((batch.labels != IGNORED) == batch.is_answer).all(), "nothing but the answer is supervised"

    def test_gradients_add_up_over_the_parts_of_an_update(self, tmp_path: Path) -> None:
        """Two half batches accumulated move the weights as one whole batch does."""

        class Batches:
            def __init__(self, halves: bool) -> None:
                self.halves = halves
                self.rows = Plain(*(tensor.repeat(4, 1) for tensor in vars(plain()).values()))
                self.rows.labels[2:, 2] = 0

            def __getitem__(self, index: int) -> Plain:
                part = slice(2 * (index % 2), 2 * (index % 2) + 2) if self.halves else slice(None)
                batch = Plain(*(tensor[part] for tensor in vars(self.rows).values()))
                batch.to = lambda device: batch  # type: ignore[attr-defined]
                return batch

        ends = []
        for accumulate in (1, 2):
            model = Counting(0.5)
            settings = Settings(updates=3, accumulate=accumulate, lr=0.1, warmup=0, device="cpu")
            train(model, LastStep(), Fixed(0, 2), Batches(accumulate == 2), settings, tmp_path / str(accumulate))
            ends.append(float(model.weight))
        assert ends[0] == near(ends[1]) and ends[0] != near(0.5)

    @pytest.mark.slow
    def test_compiled_steps_and_the_bfloat16_stream_train_alike(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))  # traced, but no C++ to wait for
        recipe = recipes.Chains(updates=1, **TINY)

        def after(name: str, **settings: object) -> tuple[list[float], list[torch.dtype]]:
            model, types = recipe.model(), []
            model.model.core[0].register_forward_hook(lambda module, given, said: types.append(given[0].dtype))
            lines = train(
                model, LastStep(compile=bool(settings.get("compile"))), Fixed(1, 2), Stream(recipe.task, (1, 2), 4),
                Settings(updates=3, log_every=1, device="cpu", **settings), tmp_path / name,
            )  # fmt: skip
            return [line["loss"] for line in lines], types

        plain_losses, plain_types = after("plain")
        assert after("compiled", compile="steps")[0] == pytest.approx(plain_losses, rel=1e-4)
        stream_losses, stream_types = after("stream", precision="bf16-stream")
        assert stream_losses == pytest.approx(plain_losses, rel=0.03)
        assert set(plain_types) == {torch.float32} and torch.bfloat16 in stream_types

    def test_the_trained_model_opens_with_the_auto_classes(self, tmp_path: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = recipes.train("chains", tmp_path, updates=1, **TINY)
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        ids = tokenizer("a=3 b=a+4 ?b=", return_tensors="pt").input_ids
        assert ids.shape == (1, 13)
        assert tokenizer.decode(ids[0]) == "a=3 b=a+4 ?b="
        assert model(ids, num_steps=2).logits.shape == (1, 13, len(tokenizer))

    def test_an_unknown_recipe_or_field_is_named(self) -> None:
        with pytest.raises(InputError, match="there are chains"):
            recipes.train("chess")
        with pytest.raises(InputError, match="depht"):
            recipes.train("chains", depht=3)
