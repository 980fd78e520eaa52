"""The engine's promises: the answer of the request alone, whatever runs beside it; nothing shared, nothing leaked, nothing lost."""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentweaver import halting
from latentweaver.errors import InputError
from latentweaver.runtime.engine import Engine
from latentweaver.runtime.request import Busy, Handle, Request
from latentweaver.runtime.slots import Pass, Slots, Span

from .conftest import MAX_STEPS, VOCABULARY, alone, requests, tiny


def pairs(step: int, layer: int) -> tuple[int, int]:
    """A cache policy of one's own: two steps share a bank."""
    return step // 2, layer


POLICIES = ("full", "shared", "shared:3", "anchor:2", pairs)
few = settings(max_examples=25, deadline=None, derandomize=True)


def run(engine: Engine, *wanted: Request) -> list[Handle]:
    handles = [engine.submit(request) for request in wanted]
    while not engine.idle:
        engine.tick()
    return handles


def assert_empty(engine: Engine) -> None:
    """Every slot is back and nothing is held."""
    assert engine.idle
    assert sorted(engine.free) == list(range(engine.slots.slots))
    assert not engine.running
    assert not engine.waiting


@dataclass(frozen=True)
class Visit:
    """A request that arrives at a tick and may be cancelled some ticks later."""

    request: Request
    arrives: int
    leaves: int | None


visits = st.lists(
    st.builds(Visit, requests(), st.integers(0, 30), st.one_of(st.none(), st.none(), st.integers(0, 30))), min_size=1, max_size=8
)


class TestAnswersAreThoseOfTheRequestAlone:
    @few
    @given(
        visits=visits,
        policy=st.sampled_from(POLICIES),
        slots=st.integers(1, 4),
        chunk=st.sampled_from([5, 16, 64]),
        patience=st.integers(0, 3),
    )
    def test_any_mix_of_arrivals_dials_and_cancellations(
        self, visits: list[Visit], policy: str, slots: int, chunk: int, patience: int
    ) -> None:
        model = tiny()
        engine = Engine(model, slots=slots, capacity=48, max_steps=MAX_STEPS, policy=policy, chunk=chunk, patience=patience)
        handles: dict[int, Handle] = {}
        said: dict[int, list[int]] = {}
        tick = 0
        while tick <= 30 or not engine.idle:
            for number, visit in enumerate(visits):
                if visit.arrives == tick:
                    handles[number] = engine.submit(visit.request)
                if visit.leaves is not None and tick == visit.arrives + visit.leaves:
                    handles[number].cancel()
            for event in engine.tick():
                if event.token is not None:
                    said.setdefault(id(event.handle), []).append(event.token)
            tick += 1
        assert_empty(engine)
        for number, visit in enumerate(visits):
            handle = handles[number]
            tokens, steps = alone(model, visit.request, policy)
            assert said.get(id(handle), []) == handle.tokens
            if handle.reason == "cancelled":
                assert (handle.tokens, handle.steps) == (tokens[: len(handle.tokens)], steps[: len(handle.steps)])
            else:
                assert (handle.tokens, handle.steps) == (tokens, steps)

    @pytest.mark.parametrize(
        "fields",
        [
            {"injection": "none", "norm_in_loop": True, "block": "peri", "initial_state": "input", "prelude_layers": 0, "coda_layers": 0},
            {"injection": "diagonal", "rope_layout": "interleaved", "num_key_value_heads": 1, "qk_norm": True},
            {"injection": "add", "block": "pre", "attention_bias": "qkv", "mlp_bias": True},
        ],
        ids=["ouro", "diagonal", "add"],
    )
    def test_other_forms_of_model(self, fields: dict) -> None:
        model = tiny(**fields)
        engine = Engine(model, slots=3, capacity=48, max_steps=MAX_STEPS, chunk=7)
        wanted = [Request(range(n, 2 * n), 6, num_steps=1 + n % 5, seed=n) for n in (1, 4, 9, 16, 20)]
        assert [(h.tokens, h.steps) for h in run(engine, *wanted)] == [alone(model, request) for request in wanted]

    def test_a_learned_gate(self) -> None:
        model = tiny(exit_gate=True)
        engine = Engine(model, slots=2, capacity=48, max_steps=MAX_STEPS)
        wanted = [Request(range(n, 2 * n), 6, num_steps=9, halting=halting.LearnedGate(q)) for n, q in ((3, 0.7), (8, 0.9), (12, 0.7))]
        assert [(h.tokens, h.steps) for h in run(engine, *wanted)] == [alone(model, request) for request in wanted]

    def test_eager_attention(self) -> None:
        model = tiny()
        model.set_attn_implementation("eager")
        wanted = [Request(range(n, 2 * n), 6, num_steps=3) for n in (1, 8, 20)]
        engine = Engine(model, slots=3, capacity=48, max_steps=MAX_STEPS, chunk=8)
        assert [(h.tokens, h.steps) for h in run(engine, *wanted)] == [alone(model, request) for request in wanted]

    def test_a_long_prompt_leaves_room_for_others(self, model) -> None:
        """While a prompt of many chunks is read, a neighbour writes a token every three ticks as if it were alone."""
        engine = Engine(model, slots=2, capacity=256, max_steps=MAX_STEPS, chunk=16)
        short = engine.submit(Request([1, 2, 3], 40, num_steps=3))
        long = engine.submit(Request(list(range(90)) * 2, 4, num_steps=5))
        for _ in range(36):
            engine.tick()
        assert len(short.tokens) == 12
        assert not long.tokens
        while not engine.idle:
            engine.tick()
        assert (long.tokens, long.steps) == alone(model, long.request)

    def test_a_padded_batch_attends_as_rows_do(self) -> None:
        """What an accelerator does in one call and a CPU row by row is the same."""
        slots = Slots(1, 2, 2, 8, slots=3, capacity=16, max_steps=4)
        torch.manual_seed(0)
        slots.keys.normal_()
        slots.values.normal_()
        spans = [Span(0, 3, 1, 2), Span(2, 15, 1, 0), Span(1, 0, 1, 3)]
        q, k, v = torch.randn(3, 4, 1, 8), torch.randn(3, 2, 1, 8), torch.randn(3, 2, 1, 8)

        def attend(q, k, v, mask):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True).transpose(1, 2)

        one, other = Pass(slots, spans), Pass(slots, spans)
        other.padded = True
        torch.testing.assert_close(one.attend(attend, q, k, v, 2), other.attend(attend, q, k, v, 2))


class TestNobodySeesAnothersText:
    def test_nothing_is_read_that_the_request_did_not_write(self, model) -> None:
        """Poison everything in the buffer before a request comes: its answer is the same."""
        for policy in POLICIES:
            engine = Engine(model, slots=2, capacity=48, max_steps=MAX_STEPS, policy=policy, reuse=False)
            run(engine, Request(range(20), 10, num_steps=9), Request(range(30, 50), 10, num_steps=9))
            engine.slots.keys.fill_(torch.nan)
            engine.slots.values.fill_(torch.nan)
            wanted = Request([5, 6, 7], 10, num_steps=8, halting=halting.StateChange(0.1))
            handle = run(engine, wanted)[0]
            assert (handle.tokens, handle.steps) == alone(model, wanted, policy)

    def test_a_neighbour_that_breaks_is_alone_in_it(self, model) -> None:
        engine = Engine(model, slots=2, capacity=48, max_steps=MAX_STEPS, reuse=False)
        broken, sound = (engine.submit(Request(range(n, n + 5), 10, seed=n, sampling={"do_sample": True})) for n in (1, 20))
        for _ in range(9):
            engine.tick()
        engine.slots.values[:, engine.running[0].slot] = torch.nan
        while not engine.idle:
            engine.tick()
        assert broken.reason == "error"
        assert sound.reason == "length"
        assert (sound.tokens, sound.steps) == alone(model, sound.request)
        assert_empty(engine)

    def test_a_processor_or_rule_that_raises_ends_its_own_request_only(self, model) -> None:
        class Wrong(halting.StateChange):
            def measure(self, memory, view):
                raise ValueError("no value today")

        def wrong(ids, scores):
            raise KeyError("no scores today")

        engine = Engine(model, slots=4, capacity=48, max_steps=MAX_STEPS)
        sound = Request([1, 2, 3], 8)
        handles = run(engine, Request([4, 5], 8, halting=Wrong()), sound, Request([6], 8, processors=[wrong]))
        assert [handle.reason for handle in handles] == ["error", "length", "error"]
        assert "no value today" in (handles[0].error or "")
        assert handles[1].tokens == alone(model, sound)[0]
        assert_empty(engine)


class TestPrefixReuse:
    def talk(self, model, policy: str = "full", **fields) -> tuple[Handle, Handle]:
        """A prompt and its answer, then the two as the beginning of a longer prompt."""
        engine = Engine(model, slots=3, capacity=96, max_steps=MAX_STEPS, policy=policy)
        first = run(engine, Request(range(20), 10, **fields))[0]
        second = Request([*range(20), *first.tokens, 50, 51, 52], 10, **fields)
        return first, run(engine, Request([9, 8, 7], 3), second)[1]

    def test_a_conversation_goes_on_where_it_was(self, model) -> None:
        _, second = self.talk(model, num_steps=4)
        assert second.reused == 29  # all but the last token of the answer, which was never thought about
        assert (second.tokens, second.steps) == alone(model, second.request)

    def test_a_running_request_shares_its_prompt(self, model) -> None:
        engine = Engine(model, slots=2, capacity=96, max_steps=MAX_STEPS)
        first = engine.submit(Request(range(30), 20, num_steps=4))
        for _ in range(10):
            engine.tick()
        second = engine.submit(Request([*range(25), 70], 8, num_steps="first:4,9"))
        while not engine.idle:
            engine.tick()
        assert second.reused == 25
        for handle in (first, second):
            assert (handle.tokens, handle.steps) == alone(model, handle.request)

    @pytest.mark.parametrize(
        ("policy", "fields", "reused"),
        [
            ("full", {"num_steps": 4, "halting": halting.StateChange(0.1)}, 0),
            ("shared", {"num_steps": 4}, 0),
            ("shared", {"num_steps": 1}, 29),
            ("anchor:3", {"num_steps": 4}, 29),
            ("full", {"num_steps": 4, "warm_start": True}, 20),
            ("full", {"num_steps": "first:4,2"}, 20),
        ],
    )
    def test_only_where_it_is_exact(self, model, policy: str, fields: dict, reused: int) -> None:
        _, second = self.talk(model, policy, **fields)
        assert second.reused == reused
        assert (second.tokens, second.steps) == alone(model, second.request, policy)

    def test_another_seed_is_another_noise(self, model) -> None:
        engine = Engine(model, slots=2, capacity=96, max_steps=MAX_STEPS)
        run(engine, Request(range(20), 2, seed=1))
        assert run(engine, Request(range(20), 2, seed=2))[0].reused == 0
        assert run(engine, Request(range(20), 2, seed=1))[0].reused == 19

    @few
    @given(turns=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6), st.sampled_from([2, 4])), min_size=2, max_size=8))
    def test_requests_that_begin_alike_answer_as_alone(self, turns: list[tuple[int, int, int]]) -> None:
        model = tiny()
        engine = Engine(model, slots=3, capacity=96, max_steps=MAX_STEPS, chunk=8)
        wanted = [Request([*range(length), 60 + number], tokens, num_steps=steps) for number, (length, tokens, steps) in enumerate(turns)]
        for request, handle in zip(wanted, run(engine, *wanted), strict=True):
            assert (handle.tokens, handle.steps) == alone(model, request)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("fields", "about"),
        [
            ({"prompt": []}, "empty"),
            ({"prompt": [VOCABULARY]}, "vocabulary"),
            ({"prompt": [-1]}, "vocabulary"),
            ({"max_new_tokens": 0}, "max_new_tokens"),
            ({"max_new_tokens": 46}, "room for 48"),
            ({"num_steps": 0}, "at least 1"),
            ({"num_steps": MAX_STEPS + 1}, "at most 9"),
            ({"num_steps": "first:4,400"}, "at most 9"),
            ({"num_steps": "often"}, "unknown schedule"),
            ({"min_steps": 0}, "min_steps"),
            ({"initial_state": "rust"}, "initial_state"),
            ({"halting": "soon"}, "HaltingRule"),
            ({"seed": 2**70}, "seed"),
            ({"logprobs": -1}, "logprobs"),
            ({"sampling": {"temperature": -1.0, "do_sample": True}}, "temperature"),
            ({"sampling": {"colour": "red"}}, "colour"),
            ({"sampling": {"num_beams": 2}}, "num_beams"),
        ],
    )
    def test_input_that_cannot_be_used_is_named(self, model, fields: dict, about: str) -> None:
        engine = Engine(model, slots=1, capacity=48, max_steps=MAX_STEPS)
        with pytest.raises(InputError, match=about):
            engine.submit(Request(**{"prompt": [1, 2, 3], "max_new_tokens": 8, **fields}))
        assert_empty(engine)

    def test_a_full_queue(self, model) -> None:
        engine = Engine(model, slots=1, capacity=48, max_steps=MAX_STEPS, queue=2)
        for _ in range(3):  # one has a slot from the next tick on
            engine.submit(Request([1], 2))
        with pytest.raises(Busy):
            engine.submit(Request([1], 2))
        with pytest.raises(InputError, match="num_steps"):  # what is wrong is said, room or no room
            engine.submit(Request([1], 2, num_steps=MAX_STEPS + 1))


def test_logprobs_are_the_models(model) -> None:
    engine = Engine(model, slots=1, capacity=48, max_steps=MAX_STEPS)
    engine.submit(Request([1, 2, 3], 1, num_steps=4, logprobs=3))
    events = [event for _ in range(4) for event in engine.tick()]
    expected = model(torch.tensor([[1, 2, 3]]), num_steps=4).logits[0, -1].log_softmax(-1)
    (event,) = events
    assert event.token == int(expected.argmax())
    assert event.logprob == pytest.approx(float(expected.max()), abs=1e-5)
    assert [token for token, _ in event.likely] == expected.topk(3).indices.tolist()


def test_a_soak_leaves_memory_flat_and_every_slot_free(model) -> None:
    """Arrivals, deep and shallow dials, cancels: after the first ticks, no tensor and no megabyte is added."""
    engine = Engine(model, slots=6, capacity=64, max_steps=MAX_STEPS, queue=12)
    drawn = torch.Generator().manual_seed(0)
    rules = (None, halting.StateChange(0.1), halting.KL(0.05), None)

    def soak(ticks: int) -> None:
        handles: list[Handle] = []
        for tick in range(ticks):
            number = [int(n) for n in torch.randint(0, 1000, (4,), generator=drawn)]
            if len(engine.waiting) < engine.queue:
                request = Request([(7 * n + tick) % VOCABULARY for n in range(1 + number[0] % 20)], 1 + number[1] % 12)
                request = replace(request, num_steps=1 + number[2] % MAX_STEPS, halting=rules[number[3] % 4])
                handles = [*handles[-8:], engine.submit(request)]
            if number[3] < 150:
                handles[number[0] % len(handles)].cancel()
            engine.tick()
        while not engine.idle:
            engine.tick()

    def held() -> tuple[int, float]:
        gc.collect()
        tensors = sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())
        return tensors, psutil.Process().memory_info().rss / 2**20

    soak(200)
    tensors, megabytes = held()
    soak(600)
    tensors_after, megabytes_after = held()
    assert_empty(engine)
    assert engine.counts.ended is not None
    assert engine.counts.ended["cancelled"] > 10
    assert engine.counts.ended["error"] == 0
    assert abs(tensors_after - tensors) < 100
    assert megabytes_after - megabytes < 64
