"""The profile of records: figures that hold, and no content."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from finetune.checks.profile import Profile, bins, percentile
from finetune.records import from_object

FRENCH = "Bonjour, ma commande n'est pas arrivée et je voudrais être remboursé."
ENGLISH = "Where is my order? I have been waiting for two weeks now."


def profile(kind, *values):
    made = Profile()
    for value in values:
        made.add(from_object(kind, value))
    return made.to_dict()


def chat(*texts, **more):
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return {"messages": messages} | more


def test_conversations_are_counted():
    call = {"function": {"name": "track", "arguments": "{}"}}
    tool = {"function": {"name": "track", "parameters": {}}}
    calling = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    calling += [{"role": "assistant", "tool_calls": [call, call]}]

    made = profile(
        "chat",
        chat(FRENCH, "Oui."),
        chat(ENGLISH, "Yes.", "and?", "No."),
        {"messages": calling, "tools": [tool]},
    )

    assert made["records"] == 3
    assert made["roles"] == {"assistant": 4, "system": 1, "user": 4}
    assert made["turns"] == {"1": 2, "2": 1}
    assert (made["tools"], made["calls"]) == (1, {"track": 2})
    assert made["characters"]["longest"] == len(FRENCH + "Oui.")
    assert made["languages"] == {"fr": 1, "en": 1, "unknown": 1}
    assert FRENCH not in json.dumps(made)


def test_labels_of_each_target_are_counted():
    rows = [{"text": "a", "labels": {"topic": label, "tags": ["x", "y"]}} for label in "ppq"]

    assert profile("classifier", *rows)["labels"] == {
        "tags": {"x": 3, "y": 3},
        "topic": {"p": 2, "q": 1},
    }


def test_more_records_than_are_sampled_keep_the_shares_of_languages():
    made = profile("text", *({"text": (FRENCH, ENGLISH)[i % 4 == 0]} for i in range(9000)))

    assert made["sampled"] == 2000
    assert abs(made["languages"]["fr"] / made["sampled"] - 0.75) < 0.05


@given(st.lists(st.integers(1, 10**6), min_size=1))
def test_bins_hold_every_value_once(values):
    values.sort()
    parts = bins(values)

    assert sum(count for _, _, count in parts) == len(values)
    assert all(count == sum(low <= value <= high for value in values) for low, high, count in parts)
    assert percentile(values, 1.0) == values[-1]
