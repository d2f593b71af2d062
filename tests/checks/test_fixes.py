from __future__ import annotations

import json

import pytest

from finetune.checks import FIXES, RULES, Checker
from finetune.checks.validation import repair
from tests.checks.cases import (
    CASES,
    assistant,
    call,
    calls,
    chat,
    line,
    result,
    system,
    tools,
    user,
)

WHOLE_LINES = {"unix-lines", "drop-blank-lines"}


def fix(data, target="platform", kind="chat"):
    checker = Checker(kind, target)
    findings = checker.check_line(data, "f", 1)[1]
    return repair(checker, data, findings)


@pytest.mark.parametrize("name", [name for name in CASES if set(RULES[name].fixes) - WHOLE_LINES])
def test_a_fix_takes_its_finding_away_once_and_for_all(name):
    target, kind, _, broken = CASES[name]
    fixed, done = fix(line(broken), target, kind)
    if name == "arguments":  # Python's notation of a dict is nobody's to guess
        assert fixed is None
        return
    assert done & set(RULES[name].fixes)
    assert Checker(kind, target).check_line(fixed, "f", 1)[1] == []
    assert fix(fixed, target, kind) == (fixed, set())


def test_every_fix_repairs_something_in_these_tests():
    used = {fix for name in CASES for fix in RULES[name].fixes} | WHOLE_LINES
    assert FIXES.keys() <= used


GOLDEN = [
    (
        "merge-turns",
        chat(user("a"), user("b"), assistant("c"), assistant("d")),
        chat(user("a\n\nb"), assistant("c\n\nd")),
    ),
    (
        "move-system",
        chat(user("a"), system("s"), user("b"), assistant("c"), user("d"), assistant("e")),
        chat(system("s"), user("a\n\nb"), assistant("c"), user("d"), assistant("e")),
    ),
    ("trim-tail", chat(user(), assistant(), user(), user()), chat(user(), assistant())),
    (
        "rewrite-call-ids",
        tools(user(), calls(call("call_1")), result("call_1"), assistant()),
        tools(user(), calls(call("BU2HUL5e5")), result("BU2HUL5e5"), assistant()),
    ),
    (
        "arguments-text",
        tools(user(), calls(call(arguments={"é": [1, None]}))),
        tools(user(), calls(call(arguments='{"é": [1, null]}'))),
    ),
    (
        "arguments-text",
        tools(user(), calls(call(arguments=""))),
        tools(user(), calls(call(arguments="{}"))),
    ),
    (
        "drop-null",
        chat(user(), {**assistant(), "tool_calls": None, "weight": None}, tools=None),
        chat(user(), assistant()),
    ),
    ("drop-empty-content", tools(user(), calls(call(), content="")), tools(user(), calls(call()))),
]


@pytest.mark.parametrize(("name", "broken", "expected"), GOLDEN)
def test_what_a_fix_writes(name, broken, expected):
    fixed, done = fix(line(broken))
    assert name in done
    assert json.loads(fixed) == expected


def test_ids_are_rewritten_alike_on_both_sides_and_stay_apart():
    made = [call("call_1"), call("call_2"), call(None)]
    answers = [result("call_2"), result("call_1"), {"role": "tool", "content": "x"}]
    fixed, _ = fix(line(tools(user(), calls(*made), *answers, assistant())))
    messages = json.loads(fixed)["messages"]
    given = [made["id"] for made in messages[1]["tool_calls"]]
    answered = [message["tool_call_id"] for message in messages[2:5]]
    assert answered == [given[1], given[0], given[2]]
    assert len(set(given)) == 3
    assert all(len(name) == 9 and name.isalnum() for name in given)


@pytest.mark.parametrize(
    "data",
    [
        b'{"messages": [',
        b'{"messages": []}',
        line(chat(user())),
        line(chat(user(), assistant(""), user())),
        b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "content": "c", "weight": null}]}',
    ],
)
def test_what_cannot_be_fixed_is_left_out(data):
    assert fix(data)[0] is None
