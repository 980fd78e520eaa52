"""The three verbs on any decoder: what the library promises of every reasoner, and what is new with thoughts that grow."""

import dataclasses

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

import latentweaver as lw
from latentweaver.models.continuous_thought import ContinuousThoughtForCausalLM

MARKERS = {"latent_token_id": 63, "start_token_id": 61, "end_token_id": 62}
PROMPT = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 13, 14]])


@pytest.fixture
def model(base: PreTrainedModel) -> ContinuousThoughtForCausalLM:
    return lw.continuous_thought(base, **MARKERS, num_steps=3)


def by_hand(base: PreTrainedModel, prompt: list[int], thoughts: int, rest: tuple[int, ...] = ()) -> torch.Tensor:
    """Logits after the last position, with no cache and no batch: the definition."""
    embed = base.get_input_embeddings()
    inputs = embed(torch.tensor([prompt]))
    for _ in range(thoughts):
        hidden = base.base_model(inputs_embeds=inputs).last_hidden_state[:, -1:]
        inputs = torch.cat([inputs, hidden], 1)
    inputs = torch.cat([inputs, *(embed(torch.tensor([[token]])) for token in rest)], 1)
    return base(inputs_embeds=inputs).logits[0, -1]


class TestVerbs:
    def test_equals_the_definition(self, base: PreTrainedModel, model: ContinuousThoughtForCausalLM) -> None:
        thought = model.begin(PROMPT)
        for count in range(4):
            logits = model.read(thought).logits
            assert logits.shape == (2, 1, 64)
            for row, prompt in enumerate(PROMPT.tolist()):
                torch.testing.assert_close(logits[row, 0], by_hand(base, [*prompt, 61], count, (62,)), rtol=1e-4, atol=1e-4)
            thought = model.think(thought)

    def test_without_markers_read_is_the_head_of_the_state(self, base: PreTrainedModel) -> None:
        model = lw.continuous_thought(base)
        thought = model.think(model.begin(PROMPT))
        assert torch.equal(model.read(thought).logits, base.get_output_embeddings()(thought.state))
        torch.testing.assert_close(model.read(thought).logits[0, 0], by_hand(base, PROMPT[0].tolist(), 1), rtol=1e-4, atol=1e-4)

    def test_is_a_reasoner(self, model: ContinuousThoughtForCausalLM) -> None:
        assert isinstance(model, lw.Reasoner)

    def test_thinking_twice_gives_the_same(self, model: ContinuousThoughtForCausalLM) -> None:
        thought = model.think(model.begin(PROMPT))
        model.read(thought)
        first = model.think(thought)
        model.think(model.think(first))
        assert first.same_as(model.think(thought))
        assert (first.step == 2).all()
        assert first.parent == thought.identity

    def test_branches_do_not_disturb_each_other(self, model: ContinuousThoughtForCausalLM) -> None:
        thought = model.think(model.begin(PROMPT))
        alone = model.think(model.think(thought))
        other = model.think(thought.branch(torch.randn_like(thought.state)))
        mine = model.think(thought)
        other = model.think(other)
        assert model.think(mine).same_as(alone)
        assert not torch.allclose(other.state, alone.state)

    def test_padding_on_either_side_changes_nothing(self, model: ContinuousThoughtForCausalLM) -> None:
        expected = model.read(model.think(model.begin(PROMPT[:1]))).logits
        for left, right in ((3, 0), (0, 3), (1, 2)):
            ids = torch.nn.functional.pad(PROMPT[:1], (left, right), value=33)
            mask = torch.nn.functional.pad(torch.ones_like(PROMPT[:1]), (left, right))
            thought = model.begin(torch.cat([ids, ids * 0 + 3]), torch.cat([mask, mask * 0 + 1]))
            logits = model.read(model.think(thought)).logits
            torch.testing.assert_close(logits[:1], expected, rtol=1e-4, atol=1e-4)

    def test_rows_can_leave_the_batch(self, model: ContinuousThoughtForCausalLM) -> None:
        thought = model.think(model.begin(PROMPT))
        both = model.read(model.think(thought)).logits
        one = model.read(model.think(thought.rows(torch.tensor([1])))).logits
        torch.testing.assert_close(one, both[1:], rtol=1e-4, atol=1e-4)

    def test_is_restored_bit_for_bit(self, model: ContinuousThoughtForCausalLM, tmp_path) -> None:
        thought = model.think(model.begin(PROMPT))
        thought.save(tmp_path / "thought.safetensors")
        restored = lw.Thought.load(tmp_path / "thought.safetensors")
        assert restored.same_as(thought)
        assert model.think(restored).same_as(model.think(thought))

    def test_a_state_can_be_transplanted(self, model: ContinuousThoughtForCausalLM) -> None:
        other = model.begin(PROMPT.flip(0)).state
        thought = model.begin(PROMPT, initial_state=other)
        assert torch.equal(thought.state, other)

    def test_latent_tokens_in_a_prompt_are_thought(self, model: ContinuousThoughtForCausalLM) -> None:
        by_verbs = model.think(model.think(model.begin(PROMPT)))
        marked = torch.cat([PROMPT, torch.tensor([[61, 63, 63]] * 2)], 1)
        torch.testing.assert_close(model.begin(marked).state, by_verbs.state, rtol=1e-4, atol=1e-4)


class TestTools:
    def test_halting_row_by_row_equals_each_row_alone(self, model: ContinuousThoughtForCausalLM) -> None:
        prompts = torch.randint(1, 60, (6, 5), generator=torch.Generator().manual_seed(1))
        rule = lw.halting.StateChange(threshold=0.25)
        settled = lw.think_until(model, model.begin(prompts), rule, 12)
        steps = settled.step[:, 0].tolist()
        assert len(set(steps)) > 2  # the threshold tells rows apart, or this test shows nothing
        following = model.read(model.begin(prompts[:, :1], after=settled)).logits
        for row in range(len(prompts)):
            alone = lw.think_until(model, model.begin(prompts[row : row + 1]), rule, 12)
            assert int(alone.step) == steps[row]
            torch.testing.assert_close(settled.state[row : row + 1], alone.state, rtol=1e-4, atol=1e-4)
            expected = model.read(model.begin(prompts[row : row + 1, :1], after=alone)).logits
            torch.testing.assert_close(following[row : row + 1], expected, rtol=1e-4, atol=1e-4)

    def test_generate_thinks_then_writes(self, base: PreTrainedModel, model: ContinuousThoughtForCausalLM) -> None:
        seen = []
        output = model.generate(
            PROMPT, num_steps=2, max_new_tokens=4, do_sample=False, eos_token_id=None, watch=seen.append, return_dict_in_generate=True
        )
        assert len(seen) == 2
        assert output.steps.tolist() == [[2, 0, 0, 0]] * 2
        for row, prompt in enumerate(PROMPT.tolist()):
            answer: list[int] = []
            for _ in range(4):
                answer.append(int(by_hand(base, [*prompt, 61], 2, (62, *answer)).argmax()))
            assert output.sequences[row].tolist() == prompt + answer

    def test_the_dial(self, model: ContinuousThoughtForCausalLM) -> None:
        def steps(**options) -> list[int]:
            output = model.generate(PROMPT, max_new_tokens=1, do_sample=False, return_dict_in_generate=True, **options)
            return output.steps[:, 0].tolist()

        assert steps() == [3, 3]
        assert steps(num_steps=1) == [1, 1]
        assert steps(num_steps=0) == [0, 0]
        assert steps(num_steps=5, halting=lw.halting.Fixed(4)) == [4, 4]

    def test_sampling_and_left_padding_through_generate(self, model: ContinuousThoughtForCausalLM) -> None:
        expected = model.generate(PROMPT[:1], max_new_tokens=3, do_sample=False, eos_token_id=None)[:, 5:]
        ids = torch.cat([torch.tensor([[0, 0, *PROMPT[0]]]), torch.tensor([[1, 2, *PROMPT[1]]])])
        mask = (torch.arange(7) > 1).long().expand(2, -1).clone()
        mask[1] = 1
        output = model.generate(ids, attention_mask=mask, max_new_tokens=3, do_sample=False, eos_token_id=None)
        assert torch.equal(output[:1, 7:], expected)
        model.generate(PROMPT, max_new_tokens=3, do_sample=True, top_k=5, num_return_sequences=2)


class TestFeedback:
    def test_pause_is_the_latent_tokens_embedding(self, base: PreTrainedModel) -> None:
        model = lw.continuous_thought(base, feedback="pause", **MARKERS)
        plain = base(torch.tensor([[*PROMPT[0].tolist(), 61, 63, 63, 62]])).logits[0, -1]
        thought = model.think(model.think(model.begin(PROMPT[:1])))
        torch.testing.assert_close(model.read(thought).logits[0, 0], plain, rtol=1e-4, atol=1e-4)

    def test_pause_in_several_passes_is_pause_in_one(self, base: PreTrainedModel) -> None:
        """So whatever a run finds between the two is noise of training."""
        ids = torch.tensor([[5, 6, 61, 63, 63, 63, 62, 9], [5, 6, 7, 61, 63, 62, 9, 0]])
        one, several = (lw.continuous_thought(base, feedback="pause", pause_passes=p, **MARKERS) for p in ("one", "several"))
        torch.testing.assert_close(one(ids).logits, several(ids).logits, rtol=1e-4, atol=1e-4)
        other = lw.continuous_thought(base, **MARKERS)(ids).logits
        assert not torch.allclose(one(ids).logits[:, -1], other[:, -1], atol=1e-2)

    def test_soft_with_one_token_is_greedy_decoding(self, base: PreTrainedModel) -> None:
        model = lw.continuous_thought(base, feedback="soft", soft_top_k=1)
        thought = model.begin(PROMPT[:1])
        tokens = []
        for _ in range(4):
            tokens.append(int(model.read(thought).logits.argmax()))
            thought = model.think(thought)
        assert base.generate(PROMPT[:1], max_new_tokens=4, do_sample=False, eos_token_id=None)[0, 5:].tolist() == tokens

    def test_soft_mixes_by_probability(self, base: PreTrainedModel) -> None:
        model = lw.continuous_thought(base, feedback="soft", soft_top_k=64, soft_temperature=0.7)
        thought = model.begin(PROMPT)
        mixed = model.feedback(model, thought.state, torch.tensor([[5], [5]]), thought.anchor["key"])
        probs = (model.head(thought.state) / 0.7).softmax(-1)
        torch.testing.assert_close(mixed, probs @ base.get_input_embeddings().weight, rtol=1e-4, atol=1e-4)

    def test_gumbel_noise_is_the_requests_own(self, base: PreTrainedModel) -> None:
        model = lw.continuous_thought(base, feedback="soft", soft_noise=1.0)
        think = lambda ids, seed: model.think(model.think(model.begin(ids, generator=seed))).state  # noqa: E731
        assert torch.equal(think(PROMPT, 1), think(PROMPT, 1))
        assert not torch.allclose(think(PROMPT, 1), think(PROMPT, 2))
        torch.testing.assert_close(think(PROMPT[1:], 1), think(PROMPT, 1)[1:], rtol=1e-3, atol=1e-3)
        copies = think(PROMPT[:1].expand(2, -1), 1)
        assert not torch.allclose(copies[0], copies[1])

    def test_gumbel_noise_is_gumbel(self) -> None:
        from latentweaver.models.feedback import gumbel_like

        noise = gumbel_like(torch.zeros(4, 1, 50_000), torch.ones(4, 1, dtype=torch.long), torch.arange(4))
        assert abs(float(noise.mean()) - 0.5772) < 0.02
        assert abs(float(noise.std()) - 1.2825) < 0.02

    def test_projection_is_saved_and_trained(self, base: PreTrainedModel, tmp_path) -> None:
        model = lw.continuous_thought(base, feedback="projected", projection_size=20, **MARKERS)
        ids = torch.tensor([[5, 6, 61, 63, 63, 62, 9, 0]])
        model.answer_loss(ids, None, torch.where(torch.arange(8) > 5, ids, -100)).backward()
        assert float(model.feedback.layers[0].weight.grad.abs().sum()) > 0
        model.save_pretrained(tmp_path)
        again = AutoModelForCausalLM.from_pretrained(tmp_path)
        torch.testing.assert_close(again(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-5)


class TestEcosystem:
    def test_saved_and_loaded_by_the_auto_classes(self, model: ContinuousThoughtForCausalLM, tmp_path) -> None:
        model.save_pretrained(tmp_path)
        config = AutoConfig.from_pretrained(tmp_path)
        assert config.model_type == "continuous_thought"
        assert config.text_config.model_type == model.config.text_config.model_type
        again = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert type(again) is ContinuousThoughtForCausalLM
        assert again.get_output_embeddings().weight is again.get_input_embeddings().weight
        assert torch.equal(again.read(again.think(again.begin(PROMPT))).logits, model.read(model.think(model.begin(PROMPT))).logits)
        options = {"max_new_tokens": 3, "do_sample": False}
        assert torch.equal(again.generate(PROMPT, **options), model.generate(PROMPT, **options))

    def test_text_without_thoughts_is_the_decoders_own(self, base: PreTrainedModel, model: ContinuousThoughtForCausalLM) -> None:
        torch.testing.assert_close(model(PROMPT).logits, base(PROMPT).logits)
        output = model(PROMPT, labels=PROMPT, logits_to_keep=0)
        torch.testing.assert_close(output.loss, base(PROMPT, labels=PROMPT).loss)
        assert model(PROMPT, logits_to_keep=1).logits.shape == (2, 1, 64)

    def test_weights_of_the_base_are_used_not_changed(self, base: PreTrainedModel) -> None:
        before = {name: parameter.clone() for name, parameter in base.named_parameters()}
        base.base_model.extra = torch.nn.RMSNorm(4)  # not one of transformers' own: its initialisation must not touch it
        base.base_model.extra.weight.data.fill_(3)
        model = lw.continuous_thought(base)
        assert all(torch.equal(before[name], parameter) for name, parameter in base.named_parameters() if name in before)
        assert (model.base.base_model.extra.weight == 3).all()


class TestBadInput:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"feedback": "telepathy"}, "feedback must be one of"),
            ({"feedback": "pause"}, "latent_token_id must be given"),
            ({"latent_token_id": 64}, "latent_token_id must be a token"),
            ({"num_steps": 0}, "num_steps must be at least 1"),
            ({"soft_temperature": 0}, "soft_temperature must be above 0"),
            ({"soft_top_k": 0}, "soft_top_k must be at least 1"),
        ],
    )
    def test_fields(self, base: PreTrainedModel, fields: dict, words: str) -> None:
        with pytest.raises(lw.InputError, match=words):
            lw.continuous_thought(base, **fields)

    def test_a_base_without_a_head(self, base: PreTrainedModel) -> None:
        with pytest.raises(lw.InputError, match="no language-model head"):
            lw.continuous_thought(base.base_model)
        with pytest.raises(lw.InputError, match="no causal language model"):
            lw.continuous_thought(torch.nn.Linear(3, 3))

    def test_a_base_that_scales_its_logits(self, base: PreTrainedModel) -> None:
        head = base.get_output_embeddings()
        base.lm_head = torch.nn.Sequential(head, torch.nn.Linear(64, 64))
        base.get_output_embeddings = lambda: head
        with pytest.raises(lw.InputError, match="more than a norm and a head"):
            lw.continuous_thought(base)

    def test_more_thoughts_than_positions(self, model: ContinuousThoughtForCausalLM) -> None:
        with pytest.raises(lw.InputError, match="need 49 positions, the model's context has 48"):
            model.generate(PROMPT, num_steps=43, max_new_tokens=1)
        with pytest.raises(lw.InputError, match="the model's context has 48"):
            model.begin(torch.ones(1, 49, dtype=torch.long))

    def test_inputs(self, model: ContinuousThoughtForCausalLM) -> None:
        with pytest.raises(lw.InputError, match="at least one token"):
            model.begin(torch.zeros(1, 0, dtype=torch.long))
        with pytest.raises(lw.InputError, match="attention_mask must be"):
            model.begin(PROMPT, torch.ones(3, 5))
        with pytest.raises(lw.InputError, match="initial_state must be"):
            model.begin(PROMPT, initial_state=torch.zeros(1, 1, 32))
        with pytest.raises(lw.InputError, match="next to each other"):
            model(torch.tensor([[5, 63, 6, 63]]))
        with pytest.raises(lw.InputError, match="real token before it"):
            model(torch.tensor([[63, 6]]))
        with pytest.raises(lw.InputError, match="needs input_ids"):
            model(inputs_embeds=torch.zeros(1, 3, 32))
        with pytest.raises(lw.InputError, match="beam search"):
            model.generate(PROMPT, num_beams=2)
        with pytest.raises(lw.InputError, match="thinks once"):
            model.generate(PROMPT, warm_start=True)

    def test_tokens_missing_from_the_tokenizer(self, base: PreTrainedModel) -> None:
        class Tokenizer:
            def get_vocab(self) -> dict[str, int]:
                return {"a": 1, "<|latent|>": 63}

        with pytest.raises(lw.InputError, match=r"no token <\|start-latent\|>, <\|end-latent\|>"):
            lw.continuous_thought(base, Tokenizer())
        assert lw.continuous_thought(base, Tokenizer(), markers={"latent": "<|latent|>"}).config.latent_token_id == 63


def test_a_thought_is_immutable(model: ContinuousThoughtForCausalLM) -> None:
    thought = model.begin(PROMPT)
    with pytest.raises(dataclasses.FrozenInstanceError):
        thought.state = thought.state
    with pytest.raises(TypeError):
        thought.anchor["mask"] = None


def test_markers_begin_as_another_token(base: PreTrainedModel) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from latentweaver.models.continuous_thought import add_markers

    words = {f"w{number}": number for number in range(63)} | {"<<": 63}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")))
    with pytest.raises(lw.InputError, match="no token '>>'"):
        add_markers(base, tokenizer, like=">>")
    add_markers(base, tokenizer)
    model = lw.continuous_thought(base, tokenizer)
    assert [model.config.latent_token_id, model.config.start_token_id, model.config.end_token_id] == [64, 65, 66]
    for matrix in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        assert matrix.shape[0] == 67
        assert (matrix[64:] == matrix[63]).all()
    assert model.read(model.think(model.begin(PROMPT))).logits.shape == (2, 1, 67)
