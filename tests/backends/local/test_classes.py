"""Every class and config shape of a Mistral model, tiny and random, through the whole of a run."""

import json
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import load_file

from finetune import records, runs
from finetune.backends.local import train
from finetune.backends.local.generate import generate
from finetune.backends.local.merge import merge
from finetune.backends.local.model import is_adapter, load_model, load_tuned
from finetune.backends.local.quiet import quiet
from finetune.recipe import Recipe
from finetune.tokens import IGNORED, load_tokenizer
from tests.export.conftest import make_tekken

TALK = [
    ("What is the capital of France?", "Paris."),
    ("And of Italy?", "Rome, of course."),
    ("Translate: good morning", "Bonjour !"),
    ("Say something long", "The quick brown fox jumps over the lazy dog."),
]
SHAPE = {
    "vocab_size": 282,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "sliding_window": None,
    "initializer_range": 0.2,
    "pad_token_id": 11,
}
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
YARN = {
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 16.0,
        "original_max_position_embeddings": 32,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.1,
    }
}
PIXTRAL = {
    "model_type": "pixtral",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "head_dim": 16,
    "image_size": 28,
    "patch_size": 14,
}
LATENT = {
    "moe_intermediate_size": 24,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "num_key_value_heads": 4,
    "kv_lora_rank": 8,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "rope_parameters": {
        **YARN["rope_parameters"],
        "partial_rotary_factor": 0.5,
    },
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.02}
ADAPT_EXPERTS = {"lora": {"rank": 4, "experts": True}}

# Name: class, what differs from SHAPE, what differs in the recipe's `local`. A class that takes
# images wraps the text model of the given type.
FAMILIES = {
    "mistral-7b-v0.1": ("Mistral", {"sliding_window": 8}, {}),
    "mistral-7b-v0.3": ("Mistral", ROPE, {}),
    "mistral-nemo": ("Mistral", {**ROPE, "hidden_size": 48, "head_dim": 16}, {}),
    "codestral-22b": ("Mistral", {"num_attention_heads": 6, "hidden_size": 48, **ROPE}, {}),
    "ministral-8b": (
        "Ministral",
        {
            "head_dim": 8,
            "sliding_window": 8,
            "layer_types": ["full_attention", "sliding_attention"],
        },
        {},
    ),
    "ministral-3-8b": ("Mistral3/ministral3", {**YARN, "head_dim": 8}, {}),
    "ministral-3-3b": (
        "Mistral3/ministral3",
        {**YARN, "head_dim": 8, "tie_word_embeddings": True},
        {},
    ),
    "mistral-small-3.1": ("Mistral3/mistral", {"head_dim": 12, **ROPE}, {}),
    "pixtral-12b": ("Llava/mistral", {"head_dim": 12, **ROPE}, {}),
    "mixtral-8x7b": ("Mixtral", {**EXPERTS, **ROPE}, {}),
    "mixtral-8x7b-experts": ("Mixtral", {**EXPERTS, **ROPE}, ADAPT_EXPERTS),
    "mixtral-8x22b-experts": (
        "Mixtral",
        {**EXPERTS, "num_attention_heads": 6, "hidden_size": 48, "num_local_experts": 8, **ROPE},
        ADAPT_EXPERTS,
    ),
    "mistral-small-4": ("Mistral3/mistral4", LATENT, {}),
    "mistral-small-4-experts": ("Mistral4", LATENT, ADAPT_EXPERTS),
    "ministral-3-3b-full": (
        "Mistral3/ministral3",
        {**YARN, "head_dim": 8, "tie_word_embeddings": True},
        {"full": True},
    ),
    "mixtral-8x7b-full": ("Mixtral", {**EXPERTS, **ROPE}, {"full": True}),
    "community": ("Mistral", ROPE, {}),
    "dora": ("Mistral3/ministral3", {**YARN, "head_dim": 8}, {"lora": {"rank": 4, "dora": True}}),
}


def make_base(folder, family, shape):
    """The folder of a random model of a family."""
    name, _, text = family.partition("/")
    torch.manual_seed(0)
    shape = SHAPE | shape
    with quiet():
        if text:
            config = getattr(transformers, f"{name}Config")(
                text_config={"model_type": text, **shape},
                vision_config=PIXTRAL,
                image_token_index=10,
                tie_word_embeddings=shape.get("tie_word_embeddings", False),
            )
            model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
        else:
            config = getattr(transformers, f"{name}Config")(**shape)
            model = getattr(transformers, f"{name}ForCausalLM")(config)
        model.save_pretrained(folder)
    return folder


def write_tokenizer(folder, name):
    if name != "community":
        (folder / "tekken.json").write_text(json.dumps(make_tekken()), encoding="utf-8")
        return
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    controls = ["<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in controls])
    tokenizer.save(str(folder / "tokenizer.json"))
    template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{{ message['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    facts = {"chat_template": template, "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    facts["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(facts), encoding="utf-8")


def write_records(path, talk):
    lines = []
    for question, answer in talk:
        user = {"role": "user", "content": question}
        messages = [user, {"role": "assistant", "content": answer}]
        lines.append(records.encode(records.from_object("chat", {"messages": messages})))
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def run_twenty_steps(folder, base, local):
    """Train, and return run, samples of the validation file, and tokenizer."""
    train_file = write_records(folder / "train.jsonl", TALK * 5)
    validation = write_records(folder / "validation.jsonl", TALK[:3])
    source = SimpleNamespace(path=train_file, weight=1.0, records=len(TALK) * 5)
    dataset = SimpleNamespace(folder=folder, digest="d1", train=[source], validation=validation)
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "model": str(base),
            "data": {"train": [{"path": "a.jsonl"}]},
            "training": {"steps": 20, "learning_rate": 2e-2, "seq_len": 200},
            "local": {"batch_tokens": 150, "dtype": "float32", "save_every": 20} | local,
        }
    )
    facts = {"dataset": folder, "dataset_digest": "d1"}
    run = runs.Run.create(folder / "run", recipe, identity="i", **facts)
    train(run, recipe, dataset)
    tokenizer = load_tokenizer(base)
    samples = []
    for line in validation.read_bytes().splitlines():
        samples += tokenizer.encode(records.decode("chat", line))
    return run, samples, tokenizer


def logits(model, ids):
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0]


def mean_loss(model, samples):
    """The mean loss as the model's own attention computes it, sample by sample."""
    losses = []
    for sample in samples:
        labels = torch.tensor(sample.labels[1:])
        scores = logits(model, sample.input_ids)[:-1]
        losses.append(
            torch.nn.functional.cross_entropy(
                scores, labels, ignore_index=IGNORED, reduction="none"
            )[labels != IGNORED]
        )
    return torch.cat(losses).mean().item()


def assert_only_language_is_trained(base, run):
    """Vision tower and projector have no adapter, and are what they were where all was saved."""

    def sees(name):
        return "vision" in name or "projector" in name

    if is_adapter(run.tuned):
        names = list(load_file(run.tuned / "adapter_model.safetensors"))
        assert names
        assert not any(map(sees, names))
        return
    before, after = (load_file(place / "model.safetensors") for place in (base, run.tuned))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        assert torch.equal(weight, after[name]) == sees(name), name


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_trains_reloads_merges_and_generates(name, tmp_path):
    family, shape, local = FAMILIES[name]
    base = make_base(tmp_path / "base", family, shape)
    write_tokenizer(base, name)
    run, samples, tokenizer = run_twenty_steps(tmp_path, base, local)

    metrics = run.metrics()
    assert len(metrics) == 20
    assert metrics[-1]["loss"] < metrics[0]["loss"] - 0.5
    routed = name.endswith("experts") or name == "mixtral-8x7b-full"
    assert ("router_loss" in metrics[0]) == routed
    assert_only_language_is_trained(base, run)
    tuned = load_tuned(base, run.tuned, dtype="float32")
    assert mean_loss(tuned, samples) == pytest.approx(metrics[-1]["validation_loss"], abs=1e-4)

    (tmp_path / "merged").mkdir()
    merge(base, run.tuned, tmp_path / "merged")
    merged = load_model(tmp_path / "merged", dtype="float32")
    ids = samples[-1].input_ids
    before = logits(load_model(base, dtype="float32"), ids)
    torch.testing.assert_close(logits(merged, ids), logits(tuned, ids), rtol=0, atol=1e-4)
    assert (logits(tuned, ids) - before).abs().max() > 0.1
    prompts = [sample.input_ids[:9] for sample in samples]
    ends = {"eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id, "max_new_tokens": 5}
    answers = generate(tuned, prompts, **ends)
    assert answers == generate(merged, prompts, **ends)
    assert any(answers)
