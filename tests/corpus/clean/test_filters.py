from __future__ import annotations

import subprocess
import sys

import pytest

from finetune.corpus.clean import Filters
from finetune.errors import UsageError
from finetune.recipe.tree import Clean
from finetune.records import from_object

FRENCH = "Bonjour, où est ma commande ? Je l'attends depuis deux semaines."
GERMAN = "Guten Tag, wo ist meine Bestellung? Ich warte seit zwei Wochen darauf."
ENGLISH = "Hello, where is my order? I have been waiting for it for two weeks now."


def text(content):
    return from_object("text", {"text": content})


def chat(*contents, system=None):
    messages = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant")
    messages += [{"role": roles[n % 2], "content": c} for n, c in enumerate(contents)]
    return from_object("chat", {"messages": messages})


def test_nothing_is_filtered_where_nothing_is_asked_for():
    assert not Filters(Clean()).active
    assert Filters(Clean()).reason(text("")) is None


@pytest.mark.parametrize(
    ("length", "rule"),
    [(9, "min-characters"), (10, None), (20, None), (21, "max-characters")],
)
def test_lengths_are_counted_over_all_texts_but_the_system_prompt(length, rule):
    filters = Filters(Clean(min_characters=10, max_characters=20))
    assert filters.active
    assert filters.reason(text("é" * length)) == rule
    assert filters.reason(chat("é" * 4, "x" * (length - 4), system="S" * 50)) == rule


def test_languages_that_were_not_asked_for_are_filtered_and_all_are_counted():
    filters = Filters(Clean(languages=["fr", "de"]))
    records = [text(FRENCH), text(GERMAN), text(ENGLISH), chat(ENGLISH, ENGLISH, system=FRENCH)]
    assert [filters.reason(record) for record in records] == [None, None, "languages", "languages"]
    assert filters.languages == {"fr": 1, "de": 1, "en": 2}


@pytest.mark.parametrize("content", ["", "ok", "Oui", "4711 0815 2024-01-01 99,90", "🙂" * 30])
def test_a_text_that_tells_no_language_stays_as_unknown(content):
    filters = Filters(Clean(languages=["fr"]))
    assert filters.reason(text(content)) is None
    assert filters.languages == {"unknown": 1}


def test_a_long_first_message_does_not_hide_the_language_of_the_answers():
    quoted = "4711 0815 " * 500
    filters = Filters(Clean(languages=["fr"]))
    assert filters.reason(chat(quoted, GERMAN * 3, quoted, GERMAN * 3)) == "languages"


def test_an_unknown_language_is_a_fault_of_the_recipe():
    with pytest.raises(UsageError, match=r"data.clean.languages: french: no language") as caught:
        Filters(Clean(languages=["french"]))
    assert caught.value.hint


def test_without_the_extra_only_languages_need_it():
    code = """
import sys
sys.modules["py3langid"] = None
from finetune.corpus.clean import Filters
from finetune.errors import MissingExtra
from finetune.recipe.tree import Clean
Filters(Clean(min_characters=1))
try:
    Filters(Clean(languages=["fr"]))
except MissingExtra as error:
    print(error, error.hint)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "py3langid is not installed: this needs the extra `clean`" in done
    assert "[clean]" in done
