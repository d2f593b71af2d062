from __future__ import annotations

import gzip
import json
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.corpus.clean import Contamination
from finetune.errors import DataError, UsageError
from finetune.records import from_object

WORDS = [f"word{number}" for number in range(2000)]
QUESTION = (
    "A train leaves Lyon at nine and drives 120 km/h; when does it arrive in Paris, 460 km away?"
)
SHORT = "Quel fleuve traverse la ville de Besançon en France ?"  # 9 words
TINY = "What is the capital of France?"


@pytest.fixture
def evaluation(tmp_path):
    path = tmp_path / "eval.jsonl"
    others = [{"question": " ".join(WORDS[n : n + 20])} for n in range(0, 400, 20)]
    items = [{"question": QUESTION, "answer": "no"}, {"q": [SHORT]}, {"question": TINY}, *others]
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return path


def text(content):
    return from_object("text", {"text": content})


@pytest.mark.parametrize(
    ("content", "item"),
    [
        (QUESTION, "eval.jsonl:1"),
        (f"Solve this: {QUESTION.upper()} Thanks.", "eval.jsonl:1"),
        (QUESTION.replace(" ", "\n\t").replace("?", "").replace(",", " –"), "eval.jsonl:1"),
        (" ".join(QUESTION.split()[:12]), "eval.jsonl:1"),  # 13 words: km/h are two
        (" ".join(QUESTION.split()[:11]), None),
        (QUESTION.replace("drives", "goes").replace("arrive", "come"), None),
        (f"Dis-moi: {SHORT.replace('ç', 'c')} Merci", "eval.jsonl:2"),
        (SHORT.replace("en", "de"), None),
        (TINY, None),
        (f"{SHORT} {QUESTION}", "eval.jsonl:1"),
        ("", None),
    ],
)
def test_a_shared_sequence_is_found_and_its_item_named(evaluation, content, item):
    assert Contamination([evaluation]).find(text(content)) == item


def test_all_messages_are_searched_but_the_system_prompt(evaluation):
    contamination = Contamination([evaluation])

    def chat(system, user, assistant):
        contents = {"system": system, "user": user, "assistant": assistant}
        messages = [{"role": role, "content": content} for role, content in contents.items()]
        return from_object("chat", {"messages": messages})

    assert contamination.find(chat("S", "Q", QUESTION)) == "eval.jsonl:1"
    assert contamination.find(chat("S", QUESTION, "A")) == "eval.jsonl:1"
    assert contamination.find(chat(QUESTION, "Q", "A")) is None


def test_facts_say_what_was_searched(evaluation):
    assert Contamination([evaluation]).facts == {
        "eval.jsonl": {"items": 23, "too_short": 1, "shared": 0}
    }


@pytest.mark.parametrize("items", [3, 8, 40])
def test_a_template_is_no_contamination_and_what_fills_it_is(tmp_path, items):
    path = tmp_path / "eval.jsonl"
    template = "Read the ticket below and answer with one of the labels delivery, refund or other: "
    texts = [" ".join(WORDS[n * 20 : n * 20 + 20]) for n in range(items)]
    rows = [
        {
            "messages": [
                {"role": "system", "content": "You help. " * 20},
                {"role": "user", "content": template + filling},
            ]
        }
        for filling in texts
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    contamination = Contamination([path])

    assert contamination.facts["eval.jsonl"]["shared"] > 0
    assert contamination.find(text(template + "My parcel has not come.")) is None
    assert contamination.find(text("You help. " * 20)) is None
    assert contamination.find(text(template + texts[-1])) == f"eval.jsonl:{items}"


def test_items_that_are_nothing_but_template_find_nothing(tmp_path):
    path = tmp_path / "eval.jsonl"
    rows = [{"q": QUESTION, "a": " ".join(WORDS[n * 9 : n * 9 + 9])} for n in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    contamination = Contamination([path])
    assert contamination.find(text(QUESTION)) is None
    assert contamination.find(text(rows[1]["a"])) == "eval.jsonl:2"


def test_the_same_item_many_times_is_no_template(tmp_path):
    path = tmp_path / "eval.jsonl"
    path.write_text((json.dumps({"q": QUESTION}) + "\n") * 50, encoding="utf-8")
    assert Contamination([path]).find(text(QUESTION)) == "eval.jsonl:1"


def test_files_are_read_in_any_container_and_the_first_is_named(tmp_path, evaluation):
    (tmp_path / "more").mkdir()
    table = tmp_path / "more" / "a.csv"
    table.write_text(f'question,answer\n"{SHORT}",Doubs\n', encoding="utf-8")
    packed = tmp_path / "more" / "b.json.gz"
    packed.write_bytes(gzip.compress(json.dumps([{"q": QUESTION}]).encode()))
    contamination = Contamination([tmp_path / "more", evaluation])

    assert list(contamination.facts) == ["a.csv", "b.json.gz", "eval.jsonl"]
    assert contamination.find(text(SHORT)) == "a.csv:2"
    assert contamination.find(text(QUESTION)) == "b.json.gz:1"
    again = pickle.loads(pickle.dumps(contamination))
    assert again.find(text(SHORT)) == "a.csv:2"


def test_a_row_that_cannot_be_read_stops_instead_of_letting_its_item_through(tmp_path):
    path = tmp_path / "eval.jsonl"
    path.write_text('{"q": "fine"}\n{"q": \n', encoding="utf-8")
    with pytest.raises(DataError) as caught:
        Contamination([path])
    assert (caught.value.file, caught.value.line) == ("eval.jsonl", 2)
    with pytest.raises(UsageError, match="no such file"):
        Contamination([tmp_path / "none.jsonl"])


@given(st.integers(0, 2**32), st.integers(8, 30), st.integers(0, 40))
def test_a_record_is_contaminated_just_when_it_shares_a_sequence(tmp_path_factory, seed, size, at):
    chance = random.Random(seed)
    few = WORDS[:3]  # so that parts of sequences are shared by chance, too
    item = [chance.choice(few) for _ in range(size)]
    record = [chance.choice(few) for _ in range(40)]
    if chance.random() < 0.5:
        record[at:at] = item[: chance.randint(6, size)]
    path = tmp_path_factory.getbasetemp() / "property.jsonl"
    path.write_text(json.dumps({"q": " ".join(item)}), encoding="utf-8")

    length = min(13, size)
    wanted = {tuple(item[n : n + length]) for n in range(size - length + 1)}
    shared = any(tuple(record[n : n + length]) in wanted for n in range(len(record)))
    found = Contamination([path]).find(text(" ".join(record)))
    assert found == ("property.jsonl:1" if shared else None)
