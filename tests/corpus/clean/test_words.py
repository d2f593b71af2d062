from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.corpus.clean.words import fold, hash_sequences, hash_words, texts_of
from finetune.records import from_object


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("L’été, L'ETE — l’éte\u0301", "l ete l ete l ete"),
        ("Œuvre Cœur ŒUVRE", "oeuvre coeur oeuvre"),
        ("Straße STRASSE Straẞe", "strasse strasse strasse"),
        ("Łódź, ŁÓDŹ; Đ ø İstanbul ıs", "lodz lodz d o istanbul is"),
        ("x=1,5 €\u00a0(10 %)\t¼", "x 1 5 10"),
        ("Привет, МИР! Ёлка", "привет мир елка"),
        ("Ωμέγα ΩΜΕΓΑ", "ωμεγα ωμεγα"),
        ("日本 語。ok", "日 本 語 ok"),
        ("สวัสดี", "ส ว ั ส ด ี"),
        ("ok😀x 😀 y", "ok x y"),
        ("ＡＢＣ１２", "abc12"),
        ("", ""),
    ],
)
def test_what_does_not_count_is_folded_away(text, words):
    assert fold(text).decode().split() == words.split()


@given(st.text())
def test_each_way_of_folding_gives_the_same_words(text):
    # The other script forces the general way, which also plain Latin letters then take.
    assert fold(text + " щ").split() == [*fold(text).split(), "щ".encode()]


@given(st.text())
def test_folding_twice_changes_nothing(text):
    once = b" ".join(fold(text.replace("\ud800", "")).split()).decode(errors="replace")
    assert fold(once).split() == once.encode().split()


@given(st.lists(st.sampled_from(["a", "b", "ab", "ba", "été", "x" * 9]), max_size=12))
def test_words_have_equal_hashes_where_they_are_equal(words):
    folded = [fold(word) for word in words]
    data = b"  ".join([b"", *folded, b""])
    hashes, starts = hash_words(data)

    assert len(hashes) == len(words)
    assert [data[at : at + len(word)] for at, word in zip(starts, folded, strict=True)] == folded
    for i, one in enumerate(words):
        for j, other in enumerate(words):
            assert (hashes[i] == hashes[j]) == (one == other)


def test_a_long_text_is_hashed_in_blocks_without_a_seam():
    words = [b"w%d" % (number % 1000) for number in range(150_000)]
    hashes, starts = hash_words(b" ".join(words))
    few, _ = hash_words(b" ".join(words[:1000]))

    assert (hashes == np.tile(few, 150)).all()
    assert (np.diff(starts) == [len(word) + 1 for word in words[:-1]]).all()


def test_a_word_longer_than_a_block_is_hashed():
    assert len(hash_words(b"x" * 10**6)[0]) == 4  # cut where a block ends


@given(
    st.lists(st.sampled_from("abc"), max_size=12),
    st.integers(min_value=1, max_value=13),
)
def test_sequences_have_equal_hashes_where_their_words_are_equal(words, length):
    hashes = hash_sequences(hash_words(" ".join(words).encode())[0], length)
    sequences = [tuple(words[at : at + length]) for at in range(len(words) - length + 1)]

    assert len(hashes) == len(sequences)
    assert len(set(hashes.tolist())) == len(set(sequences))


def test_all_texts_count_but_system_prompts():
    call = {"id": "abcdefghi", "function": {"name": "find", "arguments": {"k": "v"}}}
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": [{"type": "text", "text": "Q"}]},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "R", "tool_call_id": "abcdefghi"},
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "T"}]}],
        },
    ]
    prompt, end = messages[:2], messages[4:]
    assert list(texts_of(from_object("chat", {"messages": messages}))) == [
        "Q", "find", '{"k":"v"}', "R", "T",
    ]  # fmt: skip
    pair = {"prompt": prompt, "chosen": end, "rejected": [{"role": "assistant", "content": "N"}]}
    assert list(texts_of(from_object("preference", pair))) == ["Q", "T", "N"]
    assert list(texts_of(from_object("text", {"text": "D"}))) == ["D"]
    assert list(texts_of(from_object("classifier", {"text": "D", "labels": {"t": "x"}}))) == ["D"]
