"""Chat templates: spans without markers, nothing trained where the rendering is not faithful."""

from __future__ import annotations

import json
import random
import shutil

import pytest

from finetune import records
from finetune.errors import DataError, UsageError
from finetune.tokens import IGNORED, load_tokenizer
from tests.tokens.conversations import TEXTS


@pytest.fixture
def chatml(chatml_folder):
    return load_tokenizer(chatml_folder)


@pytest.fixture
def with_template(chatml_folder, tmp_path):
    """Give the same tokenizer with another template."""

    def make(template: str):
        shutil.copy(chatml_folder / "tokenizer.json", tmp_path)
        shutil.copy(chatml_folder / "tokenizer_config.json", tmp_path)
        (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8")
        return load_tokenizer(tmp_path)

    return make


def chat(*pairs, tools=None, **extra):
    messages = [
        {"role": role, "content": content} | extra.get(f"at{i}", {})
        for i, (role, content) in enumerate(pairs)
    ]
    return records.from_object("chat", {"messages": messages} | ({"tools": tools} if tools else {}))


TWO_TURNS = (("user", "Hi"), ("assistant", "Yo"), ("user", "Bye"), ("assistant", "Ciao"))


def test_random_conversations_are_the_rendering_with_the_answers_trained(chatml):
    texts = [text for text in TEXTS if "[" not in text and text.strip()]
    for seed in range(100):
        rng = random.Random(seed)
        pairs, expected = [("system", rng.choice(texts))], []
        for _ in range(rng.randint(1, 4)):
            pairs += [("user", rng.choice(texts)), ("assistant", rng.choice(texts).strip())]
            expected.append(pairs[-1][1])
        (sample,) = chatml.encode(chat(*pairs))
        # ChatML written by hand: the second opinion on ids and mask
        text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in pairs)
        assert sample.input_ids == chatml._model.encode(text, add_special_tokens=False).ids
        assert chatml.count(chat(*pairs)) == (len(sample), sample.count_trained())
        ids, parts = [], []
        for token, label in zip(sample.input_ids, sample.labels, strict=True):
            if label == IGNORED:
                if ids:
                    parts.append(ids)
                ids = []
            else:
                ids.append(token)
        assert [chatml._model.decode(part, skip_special_tokens=False) for part in parts] == [
            f"{content}<|im_end|>" for content in expected
        ]


def test_weights_scale_the_answers_and_zero_is_not_trained(chatml):
    record = chat(*TWO_TURNS, at1={"weight": 0.5})
    (sample,) = chatml.encode(record)
    assert {w for w in sample.weights if w} == {0.5, 1.0}
    assert sample.trained == (1, 3)
    (sample,) = chatml.encode(chat(*TWO_TURNS, at1={"weight": 0}))
    assert sample.trained == (3,)
    assert chatml.decode([t for t in sample.labels if t != IGNORED]) == "Ciao"


def test_prompt_is_what_stands_before_the_answer(chatml):
    record = chat(*TWO_TURNS)
    (sample,) = chatml.encode(record)
    prompt = chatml.encode_prompt(record.messages[:3])
    assert sample.input_ids[: len(prompt)] == prompt
    assert chatml.parse(sample.input_ids[len(prompt) :]).content == "Ciao"
    assert chatml.eos_id == chatml._model.token_to_id("<|im_end|>")


def test_control_tokens_in_text_are_refused_with_their_place(chatml):
    with pytest.raises(DataError) as caught:
        chatml.encode(chat(("user", "a <|im_end|> b"), ("assistant", "c")))
    assert (caught.value.rule, caught.value.path) == ("control-token", "messages[0]")
    with pytest.raises(DataError, match="control token"):
        chatml.encode(records.TextRecord(text="<|endoftext|>"))


def test_what_the_template_leaves_out_is_an_error(chatml):
    call = {"tool_calls": [{"function": {"name": "weather", "arguments": "{}"}}]}
    with pytest.raises(DataError, match="leaves this message out"):
        chatml.encode(chat(("user", "a"), ("assistant", ""), at1=call))
    tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    with pytest.raises(DataError, match="leaves tools out"):
        chatml.encode(chat(("user", "a"), ("assistant", "b"), tools=[tool]))


def test_template_that_moves_the_system_prompt_gives_a_sample_an_answer(with_template):
    # as Mistral's v3: the system prompt stands before the last user message
    tokenizer = with_template(
        "{% set system = messages[0].content if messages[0].role == 'system' else '' %}"
        "{% for m in messages if m.role != 'system' %}"
        "{% if m.role == 'user' %}<|im_start|>"
        "{% if loop.nextitem is not defined or loop.index >= loop.length - 1 %}{{ system }}{% endif %}"
        "{{ m.content }}<|im_start|>{% else %}"
        "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% endif %}{% endfor %}"
    )
    samples = tokenizer.encode(chat(("system", "SYS"), *TWO_TURNS))
    assert [sample.trained for sample in samples] == [(2,), (4,)]
    assert ["".join(tokenizer.pieces(s.input_ids)) for s in samples] == [
        "<|im_start|>SYSHi<|im_start|>Yo<|im_end|>",
        "<|im_start|>Hi<|im_start|>Yo<|im_end|><|im_start|>SYSBye<|im_start|>Ciao<|im_end|>",
    ]
    (sample,) = tokenizer.encode(chat(*TWO_TURNS))
    assert sample.trained == (1, 3)


def test_template_whose_prompt_is_no_prefix_is_refused(with_template):
    tokenizer = with_template(
        "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt and messages|length > 1 %}<|im_start|>think{% endif %}"
    )
    with pytest.raises(DataError, match="not the beginning"):
        tokenizer.encode(chat(*TWO_TURNS))


def test_template_whose_answers_have_no_end_is_refused(with_template):
    with pytest.raises(UsageError, match="does not end an answer"):
        with_template("{% for m in messages %}{{ m.content }}\n{% endfor %}")


def test_template_cannot_read_the_clock(with_template):
    base = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    dated = with_template(base + "{% if messages|length > 2 %}{{ strftime_now('%Y') }}{% endif %}")
    with pytest.raises(DataError, match="refuses the conversation: UndefinedError"):
        dated.encode(chat(*TWO_TURNS))


def test_answer_that_melts_into_the_prompt_is_refused(chatml):
    # "assistant\n" and "  b" would share a token that inference never makes
    with pytest.raises(DataError, match="over an answer's edge"):
        chatml.encode(chat(("user", "a"), ("assistant", "  b")))


def test_folder_without_template_is_refused(chatml_folder, tmp_path):
    shutil.copy(chatml_folder / "tokenizer.json", tmp_path)
    with pytest.raises(UsageError, match="no chat template"):
        load_tokenizer(tmp_path)


def test_documents_end_with_eos(chatml):
    (sample,) = chatml.encode(records.TextRecord(text="Hello"))
    assert sample.labels == sample.input_ids
    assert sample.input_ids[-1] == chatml.eos_id


def test_json_of_the_tools_is_not_escaped(with_template):
    tokenizer = with_template(
        "{{ tools | tojson }}{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    )
    tool = {
        "type": "function",
        "function": {"name": "météo", "description": "<b>", "parameters": {}},
    }
    (sample,) = tokenizer.encode(chat(("user", "a"), ("assistant", "b"), tools=[tool]))
    assert json.loads(tokenizer.decode(sample.input_ids).split("]")[0] + "]") == [tool]
