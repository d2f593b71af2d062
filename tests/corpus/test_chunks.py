"""Documents cut into records: nothing lost, nothing longer than it may be."""

from __future__ import annotations

import itertools
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.corpus.chunks import Cutter, cut_paragraphs, cut_windows
from finetune.recipe.tree import Chunks
from finetune.records import ChatRecord, TextRecord
from finetune.tokens import load_tokenizer

TEXT = (
    "Orléans: 日本語のテキスト, 👩‍👩‍👧‍👦 and e\u0301; don't stop.\r\n\r\n\tdef f(x):  return 12345678\n"
    * 30
)


@pytest.mark.parametrize("version", ["v3", "v3-tekken"])
@pytest.mark.parametrize(("tokens", "overlap"), [(16, 0), (100, 30), (2000, 0)])
def test_windows_hold_as_many_tokens_as_they_may_and_join_to_the_text(version, tokens, overlap):
    tokenizer = load_tokenizer(version)

    def count(text):
        return len(tokenizer.text_ids(text))

    spans = list(cut_windows(TEXT, count, tokens, overlap))
    sizes = [count(TEXT[start:end]) for start, end in spans]
    assert max(sizes) <= tokens
    assert min(sizes[:-1], default=tokens) >= 0.75 * tokens
    check_spans(TEXT, spans)
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert count(TEXT[start:end]) <= overlap
        assert overlap == 0 or start < end


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a\n\n```py\nx\n\n\ny\n```\n\nb", ["a", "```py\nx\n\n\ny\n```", "b"]),
        ("a\r\n\r\n~~~\r\nx\r\n\r\ny\r\n~~~\r\n\r\nb", 3),
        ("````\n```\n\n```\n\n````\n\nb", 2),  # a longer fence holds shorter ones
        ("```\n~~~\n\n```\n\nb", 2),
        ("```\nx\n\n``` y\n\n```\n\nb", 2),  # an end has no more behind it
        ("1. a\n\n   ```\n   x\n\n   y\n   ```\n\nb", 3),
        ("```\nx\n\ny", 1),  # never closed: to the end, as in CommonMark
        ("```x``` y\n\nb\n\nc", 3),  # code in a line
        ("Title\n~~~~~\n\na\n\nNext\n~~~~\n\nb", 4),  # underlined titles
        ("\n\na\n \t\nb\n\n", 2),
        ("", 0),
    ],
)
def test_paragraphs_never_part_a_block_of_code(text, pieces):
    cutter = Cutter(Chunks(by="paragraph"), "v3")
    made = [record.text for record in cutter.cut(TextRecord(text=text))]
    if isinstance(pieces, int):
        assert len(made) == max(pieces, 1)
    else:
        assert made == pieces


@given(st.lists(st.sampled_from(["a", "", " ", "```", "~~~", "````", "``` x"]), max_size=30))
def test_paragraphs_of_any_text_lose_nothing_but_empty_lines(lines):
    text = "\n".join(lines)
    pieces = list(cut_paragraphs(text))
    assert "".join("".join(pieces).split()) == "".join(text.split())


def check_spans(text, spans):
    done, joined = 0, ""
    for start, end in spans:
        assert start <= done < end
        joined += text[done:end]
        done = end
    assert joined == text


@given(
    text=st.text(st.sampled_from("ab \n👩é日"), max_size=300),
    tokens=st.integers(1, 40),
    data=st.data(),
)
def test_windows_of_any_text_join_to_it(text, tokens, data):
    overlap = data.draw(st.integers(0, max(tokens - 1, 0)))
    count = data.draw(
        st.sampled_from(
            [len, lambda t: len(t.encode()), lambda t: len(re.findall(r"\s?\S+|\s", t))]
        )
    )
    spans = list(cut_windows(text, count, tokens, overlap))
    check_spans(text, spans)
    assert all(count(text[s:e]) <= tokens or e - s == 1 for s, e in spans)


def test_words_stay_whole():
    text = "word " * 500
    spans = list(cut_windows(text, len, 103, 0))
    assert all(text[:end].endswith("word") for _, end in spans[:-1])


def test_counting_stays_a_small_multiple_of_the_text():
    seen = []

    def count(piece):
        seen.append(len(piece))
        return len(re.findall(r"\w+|\s", piece))

    text = "some words of several lengths, incomprehensibilities included " * 2000
    list(cut_windows(text, count, 500, 50))
    assert sum(seen) < 5 * len(text)


def test_documents_are_cut_as_the_recipe_says():
    text = TextRecord(text="One.\nStill one.\n\n  \r\n    Two.\n\n\n")
    cutter = Cutter(Chunks(by="paragraph"), "v3")
    assert [r.text for r in cutter.cut(text)] == ["One.\nStill one.", "    Two.\n\n\n".rstrip("\n")]
    assert Cutter(Chunks(), "v3").cut(text) == [text]
    windows = Cutter(Chunks(by="window", tokens=16, overlap=4), "v3-tekken")
    made = pickle.loads(pickle.dumps(windows)).cut(TextRecord(text=TEXT))
    assert len(made) > 10
    samples = [load_tokenizer("v3-tekken").encode_text(record.text) for record in made]
    assert max(map(len, samples)) <= 16


@pytest.mark.parametrize("by", ["paragraph", "window"])
def test_nothing_else_is_cut(by):
    cutter = Cutter(Chunks(by=by), "v3")
    for record in (ChatRecord(messages=[]), TextRecord(text=""), TextRecord(text=" \n\n ")):
        assert cutter.cut(record) == [record]
