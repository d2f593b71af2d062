"""Text and images together on tiny models of the classes that see."""

import base64
import io
import json
from types import SimpleNamespace

import pytest
import torch
import transformers
from PIL import Image
from safetensors import safe_open

from finetune import records, runs
from finetune.backends.local import train
from finetune.backends.local.attention import attend_within
from finetune.backends.local.chat import Chat
from finetune.backends.local.loss import packed_loss
from finetune.backends.local.merge import merge
from finetune.backends.local.model import load_adapter, load_model
from finetune.backends.local.quiet import quiet
from finetune.backends.local.samples import collate, pack
from finetune.errors import UsageError
from finetune.evaluation.cases import choose_cases, read_cases
from finetune.evaluation.exam import Exam
from finetune.recipe import Recipe
from finetune.tokens import load_tokenizer
from finetune.tokens.images import make_pixels
from tests.export.conftest import make_tekken

VISION = {
    "model_type": "pixtral",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 16,
    "image_size": 64,
    "patch_size": 16,
}
TEXT = {
    "vocab_size": 282,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "sliding_window": None,
    "initializer_range": 0.2,
}
FAMILIES = {
    "ministral-3": ("Mistral3", "ministral3", 2),
    "mistral-small-3.1": ("Mistral3", "mistral", 2),
    "pixtral-12b": ("Llava", "mistral", 1),
}
COLOURS = ["red", "lime", "blue", "white"]


@pytest.fixture(params=FAMILIES)
def base(request, tmp_path):
    """The folder of a random model and a tokenizer that knows images."""
    name, text, merged = FAMILIES[request.param]
    torch.manual_seed(0)
    facts = {"spatial_merge_size": merged} if name == "Mistral3" else {}
    if name == "Llava":
        facts = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
    with quiet():
        config = getattr(transformers, f"{name}Config")(
            text_config={"model_type": text, **TEXT},
            vision_config=VISION,
            image_token_index=10,
            tie_word_embeddings=False,
            **facts,
        )
        model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
        model.save_pretrained(tmp_path / "base")
    patches = {"image_patch_size": 16, "max_image_size": 64, "spatial_merge_size": merged}
    write_tokenizer(tmp_path / "base", image=patches)
    return tmp_path / "base"


def write_tokenizer(folder, **more):
    (folder / "tekken.json").write_text(json.dumps(make_tekken() | more), encoding="utf-8")


def show(colour, size=(64, 32)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def ask(colour=None, size=(64, 32)):
    """A question about a picture, or one without."""
    content = "Which colour do you like?"
    if colour:
        image = {"type": "image_url", "image_url": show(colour, size)}
        content = [image, {"type": "text", "text": "Which?"}]
    answer = {"role": "assistant", "content": colour or "none"}
    return records.from_object("chat", {"messages": [{"role": "user", "content": content}, answer]})


def make_samples(base, *questions):
    tokenizer = load_tokenizer(base)
    return [sample for record in questions for sample in tokenizer.encode(record)]


def one_by_one(model, samples):
    """The summed loss by the model's own forward, each sample alone with its own images."""
    total = 0.0
    for sample in samples:
        images = {}
        if sample.images:
            pixels = [torch.from_numpy(make_pixels(one)) for one in sample.images]
            sizes = [(one.height, one.width) for one in sample.images]
            images = {"pixel_values": torch.stack(pixels), "image_sizes": torch.tensor(sizes)}
        logits = model(input_ids=torch.tensor([sample.input_ids]), **images).logits[0, :-1]
        labels = torch.tensor(sample.labels[1:])
        total += torch.nn.functional.cross_entropy(
            logits, labels, ignore_index=-100, reduction="sum"
        )
    return total


def test_a_packed_row_is_its_samples_one_by_one(base):
    samples = make_samples(base, ask("red"), ask(), ask("blue", (16, 64)), ask("lime", (40, 40)))
    model = load_model(base, dtype="float32")
    wanted = one_by_one(model, samples)
    with attend_within(model):
        got = packed_loss(model, collate([pack(sample) for sample in samples]))
    assert got.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_another_image_changes_its_own_sample_alone(base):
    model = load_model(base, dtype="float32")

    def losses(*questions):
        samples = make_samples(base, *questions)
        with attend_within(model):
            return packed_loss(model, collate([pack(sample) for sample in samples])).item()

    first = records.from_object("chat", json.loads(records.encode(ask("red"))))
    first.messages[0].content[0].image_url = show("blue")  # another picture, the same answer
    before, after = losses(ask("red"), ask()), losses(first, ask())
    assert abs(before - after) > 1e-3
    text = losses(ask())
    assert before - losses(ask("red")) == pytest.approx(text, abs=1e-4)
    assert after - losses(first) == pytest.approx(text, abs=1e-4)


def test_text_and_images_train_reload_and_merge(base, tmp_path):
    questions = [ask(colour) for colour in COLOURS] + [ask()]
    lines = [records.encode(record) for record in questions * 3]
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    source = SimpleNamespace(path=path, weight=1.0, records=len(lines))
    dataset = SimpleNamespace(folder=tmp_path, digest="d1", train=[source], validation=path)
    recipe = Recipe.model_validate(
        {
            "model": str(base),
            "data": {"train": [{"path": "a.jsonl"}]},
            "training": {"steps": 20, "learning_rate": 2e-2, "seq_len": 200},
            "local": {"batch_tokens": 200, "dtype": "float32", "save_every": 20},
        }
    )
    facts = {"dataset": tmp_path, "dataset_digest": "d1"}
    run = runs.Run.create(tmp_path / "run", recipe, identity="i", **facts)
    train(run, recipe, dataset)
    metrics = run.metrics()
    assert metrics[-1]["loss"] < metrics[0]["loss"] / 2
    with safe_open(run.adapter / "adapter_model.safetensors", "pt") as file:
        names = list(file.keys())
    assert names
    assert not [name for name in names if "vision" in name or "projector" in name]

    samples = make_samples(base, *questions)
    tuned = load_adapter(load_model(base, dtype="float32"), run.adapter)
    with torch.inference_mode():
        loss = one_by_one(tuned, samples) / sum(sample.count_trained() for sample in samples)
        assert loss.item() == pytest.approx(metrics[-1]["validation_loss"], rel=1e-4)
        (tmp_path / "merged").mkdir()
        merge(base, run.adapter, tmp_path / "merged")
        merged = load_model(tmp_path / "merged", dtype="float32")
        talk = Chat(recipe, run.adapter, max_new_tokens=3)
        assert talk.ask("Which?", [show("red")]).content == talk.tokenizer.decode(
            greedy(tuned, talk.tokenizer.encode_seen(talk.messages[:1]), limit=3)
        )
        assert one_by_one(merged, samples).item() == pytest.approx(
            one_by_one(tuned, samples).item(), rel=1e-3
        )


def greedy(model, prompt, *, limit):
    """Generation by the model's own forward, without cache or batch."""
    ids, images = list(prompt.ids), {}
    if prompt.images:
        sizes = [(one.height, one.width) for one in prompt.images]
        pixels = [torch.from_numpy(make_pixels(one)) for one in prompt.images]
        images = {"pixel_values": torch.stack(pixels), "image_sizes": torch.tensor(sizes)}
    for _ in range(limit):
        logits = model(input_ids=torch.tensor([ids]), use_cache=False, **images).logits
        ids.append(logits[0, -1].argmax().item())
    return ids[len(prompt.ids) :]


def test_held_out_images_are_asked_for_an_answer(base, tmp_path):
    questions = [ask("red"), ask(), ask("blue", (16, 64)), ask("lime", (40, 40))]
    lines = [records.encode(record) for record in questions]
    (tmp_path / "held.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    recipe = Recipe.model_validate({"model": str(base), "data": {"train": [{"path": "a.jsonl"}]}})
    tokenizer = load_tokenizer(base)
    cases, _ = read_cases(tmp_path / "held.jsonl", tokenizer, recipe)
    assert [case.has_images for case in cases] == [True, False, True, True]
    assert [case.number for case in choose_cases(cases, None, 0, images=False)] == [2]
    tokenizer.eos_id = -1  # so that each answer has its full length
    exam = Exam(cases, cases, [], tokenizer=tokenizer, limit=5, seed=0)
    model = load_model(base, dtype="float32")
    answers = exam.take("base", model).answers
    with torch.inference_mode():
        wanted = [greedy(model, case.question.encode(tokenizer), limit=5) for case in cases]
    assert [answer.text for answer in answers] == [tokenizer.decode(ids) for ids in wanted]


def test_a_model_that_cannot_see_is_refused(base, tmp_path):
    from finetune.backends.local.vision import check_vision

    tokenizer = load_tokenizer(base)
    check_vision(base, tokenizer)
    config = json.loads((base / "config.json").read_bytes())
    key = "image_token_id" if "image_token_id" in config else "image_token_index"
    (base / "config.json").write_text(json.dumps(config | {key: 9}))
    with pytest.raises(UsageError, match="the tokenizer's token for images is 10, the model's 9"):
        check_vision(base, tokenizer)
    del config["vision_config"]
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="the model has no vision tower"):
        check_vision(base, tokenizer)
