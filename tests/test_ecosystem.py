"""What people use models with works on ours, without `trust_remote_code`: PEFT, TRL, lm-eval, pipelines."""

from __future__ import annotations

import json

import pytest
import torch

import latentweaver as lw

pytestmark = pytest.mark.slow
IDS = torch.tensor([[5, 9, 2, 7]])
GREEDY = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}


@pytest.fixture(scope="module")
def tokenizer():
    """Words of a tiny vocabulary, with a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", "user", "assistant", *(f"w{place}" for place in range(56))]
    core = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    fast.chat_template = "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' ' }}{% endfor %}"
    return fast


@pytest.fixture
def model(tiny):
    model = tiny()
    model.generation_config.pad_token_id = model.config.pad_token_id = 0
    model.generation_config.eos_token_id = model.config.eos_token_id = 1
    return model


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], "all-linear"])
def test_peft_lora(model, tiny, tmp_path, targets):
    from peft import LoraConfig, PeftModel, get_peft_model

    before = model.generate(IDS, num_steps=4, **GREEDY)
    with torch.no_grad():
        plain = model(IDS, num_steps=4).logits
    wrapped = get_peft_model(model, LoraConfig(target_modules=targets, r=4, task_type="CAUSAL_LM"))
    assert torch.equal(wrapped.generate(input_ids=IDS, num_steps=4, **GREEDY), before), "a fresh adapter changes nothing"
    optimiser = torch.optim.SGD([p for p in wrapped.parameters() if p.requires_grad], lr=0.5)
    wrapped.train()
    for _ in range(3):
        optimiser.zero_grad()
        wrapped(input_ids=IDS, labels=IDS, num_steps=(1, 2)).loss.backward()
        optimiser.step()
    wrapped.eval().save_pretrained(tmp_path)
    with torch.no_grad():
        tuned = wrapped(input_ids=IDS, num_steps=4).logits
        assert not torch.allclose(tuned, plain, atol=1e-3)
        text = wrapped.generate(input_ids=IDS, num_steps=4, **GREEDY)
        merged = wrapped.merge_and_unload()
        assert torch.allclose(merged(IDS, num_steps=4).logits, tuned, atol=1e-4)
        assert torch.equal(merged.generate(IDS, num_steps=4, **GREEDY), text), "the adapter is heard while generating too"
    assert (tmp_path / "adapter_model.safetensors").is_file()
    again = PeftModel.from_pretrained(tiny(), tmp_path)
    with torch.no_grad():
        assert torch.allclose(again(input_ids=IDS, num_steps=4).logits, tuned, atol=1e-5)


def trainer_options(tmp_path):
    return {
        "output_dir": str(tmp_path),
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "report_to": "none",
        "use_cpu": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }


def test_trl_supervised_fine_tuning(model, tokenizer, tmp_path):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    before = model.model.core[0].mlp.down_proj.weight.detach().clone()
    data = Dataset.from_list([{"text": f"w{place} w{place + 1} w{place + 2}"} for place in range(8)])
    SFTTrainer(
        model, args=SFTConfig(**trainer_options(tmp_path), max_length=16, learning_rate=1e-2, bf16=False), train_dataset=data,
        processing_class=tokenizer,
    ).train()  # fmt: skip
    assert not torch.equal(model.model.core[0].mlp.down_proj.weight, before)


def test_trl_group_relative_policy_optimisation(model, tokenizer, tmp_path):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    model.generation_config.num_steps = 5  # TRL hands on nothing else
    steps = []
    model.model.core[0].register_forward_hook(lambda *_: steps.append(1))
    before = model.model.core[0].mlp.down_proj.weight.detach().clone()
    data = Dataset.from_list([{"prompt": f"w{place} w{place + 1}"} for place in range(4)])
    options = {**trainer_options(tmp_path), "max_completion_length": 6, "num_generations": 2, "learning_rate": 1e-2, "bf16": False}
    GRPOTrainer(
        model,
        reward_funcs=lambda completions, **_: [float(hash(text) % 97) for text in completions],
        args=GRPOConfig(**options),
        train_dataset=data,
        processing_class=tokenizer,
    ).train()
    assert not torch.equal(model.model.core[0].mlp.down_proj.weight, before)
    assert len(steps) % 5 == 0, "every pass took the generation config's five steps, the model without its head too"


@pytest.fixture
def task(tmp_path):
    """A task of lm-eval from local files: one multiple choice, one to generate."""
    rows = [{"q": f"w{place} w{place + 1}", "a": f"w{place + 2}", "b": "w50"} for place in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    common = (
        f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {tmp_path}/rows.jsonl\ntest_split: test\ndoc_to_text: '{{{{q}}}}'\n"
    )
    (tmp_path / "pick.yaml").write_text(
        f'task: pick\n{common}doc_to_choice: "{{{{[a, b]}}}}"\ndoc_to_target: 0\noutput_type: multiple_choice\nmetric_list:\n  - metric: acc\n'
    )
    (tmp_path / "write.yaml").write_text(
        f"task: write\n{common}doc_to_target: '{{{{a}}}}'\noutput_type: generate_until\ngeneration_kwargs:\n  until: ['w3']\n  max_gen_toks: 4\n"
        "  do_sample: false\nmetric_list:\n  - metric: exact_match\n"
    )
    return tmp_path


def test_lm_eval_with_the_dial_as_a_model_argument(model, tokenizer, tmp_path, task, monkeypatch):
    import lm_eval
    from lm_eval.tasks import TaskManager

    from latentweaver.models.recurrent_depth import RecurrentDepthModel

    folder = tmp_path / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    seen, think = set(), RecurrentDepthModel.think

    def watched(self, thought):
        after = think(self, thought)
        seen.add(int(after.step.max()))
        return after

    monkeypatch.setattr(RecurrentDepthModel, "think", watched)

    def run(tasks, arguments, **options):
        seen.clear()
        manager = TaskManager(include_path=str(task), include_defaults=False)
        result = lm_eval.simple_evaluate(
            model="hf", model_args=f"pretrained={folder},{arguments}", tasks=tasks, task_manager=manager, device="cpu", batch_size=2,
            bootstrap_iters=0, **options,
        )  # fmt: skip
        assert result is not None
        return result["results"], max(seen)

    result, deepest = run(["pick"], "num_steps=7")
    assert deepest == 7 and 0 <= result["pick"]["acc,none"] <= 1
    assert run(["pick"], "num_steps=2")[1] == 2
    assert run(["write"], "num_steps=2")[1] == 2
    assert run(["write"], "num_steps=2", gen_kwargs="num_steps=6")[1] == 6


@pytest.mark.parametrize("steps", [1, 3, 9])
def test_the_continuous_batching_of_transformers(model, steps):
    from transformers import GenerationConfig

    model.generation_config.num_steps = steps  # nothing else is handed on
    prompts = [[5, 9, 2, 7], [3, 8, 4, 11, 12, 40], [20]]
    wanted = GenerationConfig(max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=-1)
    written = [output.generated_tokens for output in model.generate_batch(prompts, generation_config=wanted).values()]
    alone = [model.generate(torch.tensor([prompt]), generation_config=wanted)[0, len(prompt) :].tolist() for prompt in prompts]
    assert written == alone
    with pytest.raises(lw.InputError, match=rf"model.generation_config \({steps}\).*5"):
        model.generate_batch(prompts, generation_config=GenerationConfig(num_steps=5, max_new_tokens=6))


def test_speculation_of_transformers_writes_the_same(model, tiny):
    expected = model.generate(IDS, **GREEDY)
    assert torch.equal(model.generate(IDS, assistant_model=tiny(seed=1), **GREEDY), expected)
    assert torch.equal(model.generate(IDS, prompt_lookup_num_tokens=2, **GREEDY), expected)


def test_a_pipeline(model, tokenizer):
    from transformers import pipeline

    write = pipeline("text-generation", model=model, tokenizer=tokenizer, device="cpu")
    text = write("w1 w2 w3", num_steps=5, max_new_tokens=4, do_sample=False, return_full_text=False)[0]["generated_text"]
    ids = tokenizer("w1 w2 w3", return_tensors="pt").input_ids
    expected = model.generate(ids, num_steps=5, max_new_tokens=4, do_sample=False)
    assert text.strip() == tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True).strip()


def test_the_trainer_of_transformers(model, tmp_path):
    from transformers import Trainer, TrainingArguments

    data = [{"input_ids": [5, 6, 7, 8], "labels": [5, 6, 7, 8]}] * 4
    trainer = Trainer(model, args=TrainingArguments(**trainer_options(tmp_path)), train_dataset=data)  # pyright: ignore
    assert trainer.train().training_loss > 0
    trainer.save_model(tmp_path / "saved")
    assert lw.load(tmp_path / "saved", device="cpu").config.num_steps == 3


@torch.no_grad()
def test_other_attention_functions_give_the_same(tiny):
    model = tiny(num_key_value_heads=2)
    expected = model(IDS).logits
    for name in ("eager", "flex_attention"):
        model.set_attn_implementation(name)
        assert torch.allclose(model(IDS).logits, expected, atol=1e-4), name


def test_compiled(tiny):
    model = tiny(num_steps=2).train()
    eager = model(IDS, labels=IDS).loss
    for block in (*model.model.prelude, *model.model.core, *model.model.coda):
        block.compile(fullgraph=True)
    compiled = model(IDS, labels=IDS).loss
    compiled.backward()
    assert compiled.item() == pytest.approx(eager.item(), abs=1e-4)
