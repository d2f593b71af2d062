"""The quick look never passes what a rule would find."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune import records
from finetune.checks.checker import Checker
from finetune.checks.kinds import KindRules
from finetune.checks.screen import Screen
from finetune.checks.targets import find_target
from finetune.checks.texts import TextRules

PIECES = [
    "Where is order 7: late?",
    "On its way.",
    "été, déjà",
    "Добрый день, где мой заказ? Он должен был прийти вчера",
    "As an AI language model, I",
    '{"state": "cut',
    "```\ncode",
    "[INST] hi [/INST]",
    "<tool_call> {",
    "# Title\n[a](b) <b>",
    "{{name}}",
    "Ã©tÃ©",
    "\ufffd",
    " ",
    "",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=3).map(" ".join)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": TEXTS},
    optional={"weight": st.sampled_from([0, 0.5, 1])},
).map(lambda m: m if m["role"] == "assistant" else {k: m[k] for k in ("role", "content")})
TURNS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3).map(
    lambda pairs: [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
)


def spell(messages, ascii_only, twice, escaped):
    line = json.dumps({"messages": messages}, ensure_ascii=ascii_only)
    if twice:
        line = line.replace('"role": "user"', '"role": "user", "role": "user"', 1)
    return (line.replace("7:", "7\\u003a") if escaped else line).encode()


@given(
    st.one_of(TURNS, st.lists(MESSAGES, max_size=5)), st.booleans(), st.booleans(), st.booleans()
)
def test_what_the_screen_passes_has_no_finding(messages, ascii_only, twice, escaped):
    line = spell(messages, ascii_only, twice, escaped)
    record = records.decode("chat", line)
    screen = Screen()
    target = find_target("platform")
    found = KindRules(target).check(record)  # which also makes the order known
    answers = screen.measure_clean(record, line)
    texts = TextRules()
    found += texts.check(record)
    if answers is not None:
        assert not found
        assert answers == texts.characters
        assert twice is False or b'"role": "user", ' not in line


@pytest.mark.parametrize(("weight", "passes"), [(None, True), (1, True), (0.5, False), (0, False)])
def test_an_ordinary_conversation_passes(weight, passes):
    messages = [{"role": "user", "content": "Hi: who?"}, {"role": "assistant", "content": "Me."}]
    line = json.dumps({"messages": messages}).encode()
    Checker("chat").check_line(line, "f", 1)  # its order is found to be sound
    if weight is not None:
        messages[1]["weight"] = weight
        line = json.dumps({"messages": messages}).encode()
    answers = Screen().measure_clean(records.decode("chat", line), line)
    assert (answers is not None) == passes
