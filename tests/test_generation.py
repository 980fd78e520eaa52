"""Generating: the same tokens whatever else is in the batch, with and without a cache, and the dial where people look for it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, GenerationConfig

import latentweaver as lw
from latentweaver.halting import ArgmaxStability, Fixed, StateChange

PROMPTS = [[5, 9, 2, 7, 1, 30], [3, 8, 4], [44, 2, 19, 20]]
GREEDY = {"do_sample": False, "max_new_tokens": 8, "pad_token_id": 0}


@pytest.fixture
def model(tiny):
    return tiny()


def padded(prompts, side="left"):
    longest = max(map(len, prompts))
    rows, masks = [], []
    for prompt in prompts:
        pad = [0] * (longest - len(prompt))
        rows.append(pad + prompt if side == "left" else prompt + pad)
        masks.append([0] * len(pad) + [1] * len(prompt) if side == "left" else [1] * len(prompt) + [0] * len(pad))
    return torch.tensor(rows), torch.tensor(masks)


class TestInvariances:
    """The default first state is noise, so these hold for noise too."""

    @torch.no_grad()
    @pytest.mark.parametrize("side", ["left", "right"])
    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    @pytest.mark.parametrize("layout", ["half", "interleaved"])
    def test_padding_and_company_do_not_change_logits(self, tiny, side, attention, layout):
        model = tiny(rope_layout=layout, initializer_range=0.1)
        model.set_attn_implementation(attention)
        ids, mask = padded(PROMPTS, side)
        together = model(ids, attention_mask=mask).logits
        for row, prompt in enumerate(PROMPTS):
            alone = model(torch.tensor([prompt])).logits[0]
            assert torch.allclose(together[row][mask[row].bool()], alone, atol=1e-5)

    @torch.no_grad()
    @settings(max_examples=25, deadline=None)
    @given(data=st.data())
    def test_any_batch_any_order(self, data):
        from tiny_models import tiny_config

        torch.manual_seed(1)
        model = lw.RecurrentDepthForCausalLM(tiny_config(initializer_range=0.1)).eval()  # larger ones amplify rounding
        prompts = data.draw(st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=9), min_size=1, max_size=4, unique_by=tuple))
        steps = data.draw(st.integers(1, 5))
        ids, mask = padded(prompts)
        together = model(ids, attention_mask=mask, num_steps=steps).logits[:, -1]
        for row, prompt in enumerate(prompts):
            assert torch.allclose(together[row], model(torch.tensor([prompt]), num_steps=steps).logits[0, -1], atol=1e-5)

    @pytest.mark.parametrize(
        "options",
        [
            {"num_steps": 1},
            {"num_steps": 7},
            {"num_steps": 12, "halting": StateChange(0.2)},
            {"num_steps": 6, "halting": ArgmaxStability(2)},
            {"num_steps": 4, "warm_start": True},
            {"num_steps": 4, "cache_policy": "shared"},
            {"num_steps": "first:6,2"},
            {"num_steps": 4, "initial_state": "zeros"},
        ],
        ids=str,
    )
    def test_a_padded_batch_writes_what_each_row_writes_alone(self, model, options):
        ids, mask = padded(PROMPTS)
        together = model.generate(ids, attention_mask=mask, return_dict_in_generate=True, **GREEDY, **options)
        for row, prompt in enumerate(PROMPTS):
            alone = model.generate(torch.tensor([prompt]), return_dict_in_generate=True, **GREEDY, **options)
            assert together.sequences[row, -8:].tolist() == alone.sequences[0, -8:].tolist()
            assert together.steps[row].tolist() == alone.steps[0].tolist()

    @pytest.mark.parametrize("steps", [1, 2, 5, 9])
    def test_a_cache_changes_nothing(self, model, steps):
        ids, mask = padded(PROMPTS)
        runs = [
            model.generate(ids, attention_mask=mask, num_steps=steps, **GREEDY, **options).tolist()
            for options in ({}, {"use_cache": False}, {"cache_implementation": "static"}, {"past_key_values": DynamicCache()})
        ]
        assert all(run == runs[0] for run in runs)

    @torch.no_grad()
    def test_texts_packed_into_one_row_do_not_see_each_other_and_may_be_longer_together_than_the_context(self, tiny):
        model = tiny(max_position_embeddings=8, initializer_range=0.1)
        row = torch.tensor([[token for prompt in PROMPTS for token in prompt]])
        positions = torch.tensor([[place for prompt in PROMPTS for place in range(len(prompt))]])
        packed = model(row, position_ids=positions, use_cache=False).logits[0].split([len(prompt) for prompt in PROMPTS])
        for logits, prompt in zip(packed, PROMPTS, strict=True):
            assert torch.allclose(logits, model(torch.tensor([prompt])).logits[0], atol=1e-5)
        with pytest.raises(lw.InputError, match=r"13.*8"):
            model(row, position_ids=torch.arange(row.shape[1])[None])

    def test_embeddings_in_place_of_tokens(self, model):
        ids = torch.tensor(PROMPTS[:1])
        embeds = model.get_input_embeddings()(ids)
        expected = model.generate(ids, **GREEDY)[:, ids.shape[1] :].tolist()
        assert model.generate(inputs_embeds=embeds, **GREEDY).tolist() == expected
        assert model.generate(inputs_embeds=embeds, use_cache=False, **GREEDY).tolist() == expected

    def test_rows_that_have_ended_change_nothing_and_take_no_steps(self, model):
        ids, mask = padded(PROMPTS)
        end = int(model.generate(ids, attention_mask=mask, **GREEDY)[1, -6])
        out = model.generate(ids, attention_mask=mask, eos_token_id=end, return_dict_in_generate=True, **GREEDY)
        for row, prompt in enumerate(PROMPTS):
            alone = model.generate(torch.tensor([prompt]), eos_token_id=end, return_dict_in_generate=True, **GREEDY)
            length = alone.steps.shape[1]
            new = out.sequences[row, ids.shape[1] :]
            assert new[:length].tolist() == alone.sequences[0, len(prompt) :].tolist()
            assert (new[length:] == 0).all() and (out.steps[row, length:] == 0).all()
        assert (out.steps[1] == 0).any()


class TestFirstState:
    @torch.no_grad()
    def test_noise_is_what_it_says(self, tiny):
        state = tiny(hidden_size=256, initial_state_std=0.5).begin(torch.arange(60)[None]).state
        assert state.mean().abs() < 0.02 and abs(state.std() - 0.5 * 0.9866) < 0.01  # cut at three deviations
        assert state.abs().max() <= 1.5

    @torch.no_grad()
    def test_rows_positions_and_copies_differ(self, model):
        state = model.begin(torch.tensor([[5, 5, 5]] * 3)).state.flatten(0, 1)
        assert len({tuple(row.tolist()) for row in state}) == len(state)

    def test_greedy_decoding_repeats_and_a_seed_changes_it(self, model):
        ids = torch.tensor(PROMPTS[:1])
        seeded = [model.generate(ids, generator=torch.Generator().manual_seed(seed), **GREEDY).tolist() for seed in (1, 1, 2, 3)]
        assert model.generate(ids, **GREEDY).tolist() == model.generate(ids, **GREEDY).tolist()
        assert seeded[0] == seeded[1] and any(run != seeded[0] for run in seeded[2:])

    def test_sampling_repeats_under_a_generator(self, model):
        ids = torch.tensor(PROMPTS[:1])
        runs = [
            model.generate(ids, do_sample=True, max_new_tokens=12, generator=torch.Generator().manual_seed(s)).tolist() for s in (1, 1, 2)
        ]
        assert runs[0] == runs[1] != runs[2]

    def test_a_given_state(self, model):
        ids = torch.tensor(PROMPTS[:1])
        zeros = torch.zeros(1, ids.shape[1], 32)
        first = {"max_new_tokens": 1, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
        given_ = model.generate(ids, initial_state=zeros, **first).logits[0]
        assert torch.equal(given_, model.generate(ids, initial_state="zeros", **first).logits[0])
        assert not torch.allclose(given_, model.generate(ids, initial_state=zeros + 1, **first).logits[0])

    @torch.no_grad()
    def test_a_warm_start_hands_on_the_raw_state(self, model):
        ids = torch.tensor(PROMPTS[:1])
        out = model.generate(ids, num_steps=3, warm_start=True, **GREEDY)
        cache, tokens, state, text = model.new_cache(), ids, None, ids[0].tolist()
        for _ in range(8):
            thought = lw.think_for(model, model.begin(tokens, initial_state=state, cache=cache), 3)
            tokens, state = model.read(thought).logits[:, -1].argmax(-1, keepdim=True), thought.state[:, -1:]
            text.append(int(tokens))
        assert out[0].tolist() == text


class TestDial:
    def steps(self, model, **options):
        return model.generate(torch.tensor(PROMPTS[:1]), return_dict_in_generate=True, **GREEDY, **options).steps[0].tolist()

    def test_the_call_before_the_generation_config_before_the_config(self, model):
        assert self.steps(model) == [3] * 8
        model.generation_config.num_steps = 5
        assert self.steps(model) == [5] * 8
        assert self.steps(model, num_steps=2) == [2] * 8
        handed = GenerationConfig(num_steps=4, **GREEDY, return_dict_in_generate=True)
        assert model.generate(torch.tensor(PROMPTS[:1]), generation_config=handed).steps[0].tolist() == [4] * 8
        assert torch.equal(model(torch.tensor(PROMPTS[:1])).logits, model(torch.tensor(PROMPTS[:1]), num_steps=5).logits)

    def test_more_steps_than_the_configuration_knows(self, model):
        assert self.steps(model, num_steps=40) == [40] * 8

    def test_a_schedule_spends_more_on_some(self, model):
        assert self.steps(model, num_steps="first:6,2") == [6] + [2] * 7
        assert self.steps(model, num_steps="every:3:5,1") == [5, 1, 1, 5, 1, 1, 5, 1]
        assert self.steps(model, num_steps=lambda place: place + 1) == list(range(1, 9))

    def test_a_rule_stops_early_and_the_dial_is_its_maximum(self, model):
        assert self.steps(model, num_steps=9, halting=Fixed(4)) == [4] * 8
        assert self.steps(model, num_steps=3, halting=Fixed(4)) == [3] * 8
        assert self.steps(model, num_steps=6, halting=StateChange(1e9)) == [1] * 8
        assert self.steps(model, num_steps=6, halting=StateChange(1e9), min_steps=4) == [4] * 8
        assert self.steps(model, num_steps=6, halting=StateChange(1e9, min_steps=3)) == [3] * 8
        assert self.steps(model, num_steps=6, halting=StateChange(1e-12)) == [6] * 8

    @given(first=st.integers(1, 50), later=st.integers(1, 50), place=st.integers(0, 1000))
    def test_named_schedules(self, first, later, place):
        from latentweaver.runtime.schedule import schedule

        assert schedule(f"first:{first},{later}")(place) == (later if place else first)
        assert schedule(str(first))(place) == schedule(first)(place) == first

    def test_beams_and_returned_sequences(self, model):
        ids = torch.tensor(PROMPTS[:2][:1])
        out = model.generate(ids, num_beams=4, num_return_sequences=3, num_steps=3, **GREEDY)
        assert out.shape == (3, ids.shape[1] + 8) and len({tuple(row) for row in out.tolist()}) == 3
        uncached = model.generate(ids, num_beams=4, num_return_sequences=3, num_steps=3, use_cache=False, **GREEDY)
        assert out.tolist() == uncached.tolist()
        sampled = model.generate(ids, do_sample=True, num_return_sequences=3, max_new_tokens=4)
        assert sampled.shape == (3, ids.shape[1] + 4)

    def test_streaming_gives_tokens_and_their_steps(self, model):
        class Listener:
            def __init__(self):
                self.tokens, self.steps, self.ended = [], [], False

            def put(self, tokens):
                self.tokens += tokens.flatten().tolist()

            def put_steps(self, steps):
                self.steps += steps.tolist()

            def end(self):
                self.ended = True

        listener, ids = Listener(), torch.tensor(PROMPTS[:1])
        out = model.generate(ids, num_steps=9, halting=StateChange(0.2), streamer=listener, return_dict_in_generate=True, **GREEDY)
        assert listener.tokens == out.sequences[0].tolist() and listener.steps == out.steps[0].tolist() and listener.ended

    def test_watching_changes_nothing(self, model):
        ids, seen = torch.tensor(PROMPTS[:1]), []
        out = model.generate(ids, num_steps=4, watch=lambda thought: seen.append(int(thought.step[0, -1])), **GREEDY)
        assert seen == [1, 2, 3, 4] * 8
        assert torch.equal(out, model.generate(ids, num_steps=4, **GREEDY))

    def test_a_prefix_in_the_cache_is_not_read_again(self, model):
        ids, cache = torch.tensor(PROMPTS[:1]), model.new_cache()
        with torch.no_grad():
            model(ids[:, :4], num_steps=3, past_key_values=cache)
        assert cache.get_seq_length() == 4
        out = model.generate(ids, num_steps=3, past_key_values=cache, **GREEDY)
        assert torch.equal(out, model.generate(ids, num_steps=3, **GREEDY))


class TestGradients:
    def test_reach_the_input_in_evaluation_mode_too(self, model):
        embeds = model.get_input_embeddings()(torch.tensor(PROMPTS[:1])).detach().requires_grad_()
        model(inputs_embeds=embeds).logits.sum().backward()
        assert embeds.grad is not None and embeds.grad.abs().sum() > 0

    def test_a_cache_that_cannot_carry_them_says_so(self, model):
        with pytest.raises(lw.InputError, match="gradients"):
            model(torch.tensor(PROMPTS[:1]), past_key_values=model.new_cache())

    def test_checkpointing_gives_the_same(self, tiny):
        ids, grads = torch.tensor(PROMPTS[:1]), []
        for checkpointing in (False, True):
            model = tiny().train()
            if checkpointing:
                model.gradient_checkpointing_enable()
            model(ids, labels=ids, num_steps=(2, 3)).loss.backward()
            grads.append({name: parameter.grad for name, parameter in model.named_parameters()})
        assert all(torch.allclose(grads[0][name], grads[1][name], atol=1e-6) for name in grads[0])
