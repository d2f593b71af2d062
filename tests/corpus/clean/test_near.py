from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest

from finetune.corpus.clean import Facts, settle, sign
from finetune.corpus.clean.near import SLOTS, choose_bands, find_near
from finetune.corpus.split import Side
from finetune.recipe.tree import Clean
from finetune.records import from_object

NEAR = Clean(deduplicate="near", near=0.8)
WORDS = [f"word{number}" for number in range(500)]


def text(words):
    return from_object("text", {"text": " ".join(words)})


def chat(answer, *, system=None, image=None, prompt="What is it?"):
    content = [{"type": "text", "text": prompt}]
    content += [{"type": "image_url", "image_url": image}] if image else []
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return from_object("chat", {"messages": messages})


def removals(records, sides=None, clean=NEAR):
    facts = Facts()
    sides = sides or [Side.TRAIN] * len(records)
    for side, signature in zip(sides, sign(records), strict=True):
        facts.add(side, 0, 0, None, signature)
    return [tuple(removal) for removal in settle(facts, clean).removals]


def sequences(words):
    return {tuple(words[at : at + 3]) for at in range(len(words) - 2)}


def jaccard(one, other):
    return len(sequences(one) & sequences(other)) / len(sequences(one) | sequences(other))


def edited(words, count, chance):
    copy = list(words)
    for place in chance.sample(range(len(copy)), count):
        copy[place] = chance.choice(WORDS)
    return copy


def test_what_is_clearly_near_goes_and_what_is_clearly_not_stays():
    chance = random.Random(5)
    texts = [[chance.choice(WORDS) for _ in range(chance.randint(80, 200))] for _ in range(150)]
    pairs = [(one, edited(one, chance.randint(0, 25), chance)) for one in texts]
    gone = {r for r, _, _ in removals([text(words) for pair in pairs for words in pair])}
    seen = {True: 0, False: 0}
    for number, (one, other) in enumerate(pairs):
        index = jaccard(one, other)
        if index >= 0.92 or index <= 0.68:
            seen[index >= 0.92] += 1
            assert (2 * number + 1 in gone) == (index >= 0.92), index
        assert 2 * number not in gone
    assert min(seen.values()) >= 20


def test_signatures_estimate_the_share_of_common_sequences():
    chance = random.Random(6)
    errors = []
    for count in (0, 2, 5, 9, 15, 30) * 5:
        one = [chance.choice(WORDS) for _ in range(150)]
        other = edited(one, count, chance)
        first, second = (np.frombuffer(s, "<u2") for s in sign([text(one), text(other)]))
        errors.append((first == second).mean() - jaccard(one, other))
    assert np.abs(errors).max() < 0.15
    assert abs(np.mean(errors)) < 0.03


def test_signatures_do_not_depend_on_company_or_process():
    records = [text(WORDS[:n]) for n in (0, 1, 2, 3, 4, 50)] * 50
    alone = [sign([record])[0] for record in records[:6]]
    assert sign(records) == alone * 50
    code = (
        "import sys; from finetune.corpus.clean import sign; from finetune.records import from_object;"
        "sys.stdout.buffer.write(sign([from_object('text', {'text': 'a b c d e'})])[0])"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert other == sign([text("abcde")])[0]
    assert sign([]) == []


def test_case_accents_and_system_prompts_make_no_difference():
    answer = "C'est une machine à écrire, une très vieille machine à écrire."
    upper = answer.upper().replace("É", "E").replace(",", " -")
    records = [chat(answer), chat(upper), chat(answer, system="Réponds. " * 50)]
    assert [(r, kept) for r, _, kept in removals(records)] == [(1, 0), (2, 0)]


def test_images_and_verdicts_set_equal_texts_apart():
    image, other = "data:image/png;base64,AAAA", "data:image/png;base64,BBBB"
    records = [chat("A cat.", image=image), chat("A cat.", image=other), chat("A cat.")]
    assert removals(records) == []
    assert removals([chat("A cat.", image=image)] * 2) != []
    rating = {
        "prompt": [{"role": "user", "content": "Is it good?"}],
        "completion": [{"role": "assistant", "content": "Yes."}],
    }
    good, bad = (from_object("rating", {**rating, "label": label}) for label in (True, False))
    assert removals([good, bad]) == []


def test_labels_set_records_apart_on_one_side_only():
    facts = Facts()
    (signature,) = sign([text(WORDS[:9])])
    for side, labels in [(0, b'{"t":"a"}'), (0, b'{"t":"b"}'), (1, b'{"t":"c"}')]:
        facts.add(Side(side), 0, 0, labels, signature)
    found = settle(facts, NEAR).removals
    assert [(r, rule) for r, rule, _ in found] == [
        (0, "near-duplicate-of-validation"),
        (1, "near-duplicate-of-validation"),
    ]
    facts = Facts()
    for labels in (b'{"t":"a"}', b'{"t":"b"}', b'{"t":"a"}'):
        facts.add(Side.TRAIN, 0, 0, labels, signature)
    assert [tuple(r) for r in settle(facts, NEAR).removals] == [(2, "near-duplicate", 0)]


def test_what_is_held_out_stays_wherever_it_comes():
    words = WORDS[:100]
    near = [*words[:50], "other", *words[51:]]
    records = [text(words), text(near), text(words), text(near)]
    sides = [Side.TRAIN, Side.VALIDATION, Side.TRAIN, Side.EVALUATION]
    assert removals(records, sides) == [
        (0, "near-duplicate-of-validation", 3),
        (1, "near-duplicate-of-validation", 3),
        (2, "near-duplicate-of-validation", 3),
    ]
    assert removals(records[:3], sides[:3]) == [
        (0, "near-duplicate-of-validation", 1),
        (2, "near-duplicate-of-validation", 1),
    ]


def test_a_chain_of_small_changes_removes_only_what_is_near_to_what_stays():
    chain = [list(WORDS[:200])]
    for step in range(1, 5):
        chain.append([*chain[-1]])
        for place in range(4 * step, 200, 40):  # 5 words, J = 0.86 from one to the next
            chain[-1][place] = f"new{step}"
    assert jaccard(chain[0], chain[1]) > 0.85
    assert jaccard(chain[0], chain[2]) < 0.75
    gone = {r: kept for r, _, kept in removals([text(words) for words in chain])}
    assert gone == {1: 0, 3: 2}


def test_a_thousand_equal_records_leave_one():
    records = [text(WORDS[:30])] * 1000
    assert removals(records) == [(n, "near-duplicate", 0) for n in range(1, 1000)]
    facts = Facts()
    for signature in sign(records):
        facts.add(Side.TRAIN, 0, 0, None, signature)
    (warned,) = settle(facts, NEAR).warnings
    assert warned.rule == "mostly-near-duplicates"


def test_records_that_all_resemble_each_other_are_compared_within_bounds():
    count = 200
    signatures = np.random.default_rng(0).integers(0, 2**16, (count, SLOTS), np.uint16)
    _, rows = choose_bands(0.8)
    signatures[:, :rows] = 1  # one bucket holds all
    zeros = np.zeros(count, np.int32)
    found = find_near(signatures, np.arange(count), 0.8, zeros.astype(np.uint8), zeros)
    assert found.kept == {}
    assert found.crowded == count - 64


@pytest.mark.parametrize("near", [0.51, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0])
def test_bands_are_as_wide_as_the_threshold_allows(near):
    def met(bands, rows):
        return 1 - (1 - near**rows) ** bands

    bands, rows = choose_bands(near)
    assert bands * rows <= SLOTS
    assert met(bands, rows) >= 0.98
    assert rows == SLOTS or met(SLOTS // (rows + 1), rows + 1) < 0.98


@pytest.mark.parametrize("near", [0.6, 1.0])
def test_the_threshold_of_the_recipe_decides(near):
    one = WORDS[:100]
    other = [*one[:60], "new", *one[61:80], "new", *one[81:90], "new", *one[91:]]
    records = [text(one), text(other), text(one)]
    gone = [r for r, _, _ in removals(records, clean=Clean(deduplicate="near", near=near))]
    assert gone == ([1, 2] if near < 0.7 else [2])
