from __future__ import annotations

import json

import pytest

from finetune import records
from finetune.checks import DEFAULT_FIXES, FIXES, RULES, Checker, find_fixes, repair_record
from finetune.checks.repair import repair
from finetune.errors import UsageError
from tests.checks.cases import (
    CASES,
    NUMBER,
    assistant,
    call,
    calls,
    chat,
    line,
    result,
    system,
    tool,
    tools,
    user,
)

WHOLE_LINES = {"unix-lines", "drop-blank-lines"}


def fix(data, target="platform", kind="chat", names=DEFAULT_FIXES):
    checker = Checker(kind, target)
    findings = checker.check_line(data, "f", 1)[1]
    return repair(checker, data, findings, names)


# The case of a rule shows what this fix does not do.
BEYOND = {("arguments", "close-json"), ("arguments", "arguments-text")}


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        (rule, name)
        for rule in CASES
        for name in RULES[rule].fixes
        if name not in WHOLE_LINES and (rule, name) not in BEYOND
    ],
)
def test_a_fix_takes_its_finding_away_once_and_for_all(rule, name):
    target, kind, _, broken = CASES[rule]
    names = {name for name, made in FIXES.items() if not made.asked} | {name}
    if FIXES[name].asked:
        assert name not in fix(line(broken), target, kind)[1]
    fixed, done = fix(line(broken), target, kind, names)
    assert name in done
    assert rule not in [f.rule for f in Checker(kind, target).check_line(fixed, "f", 1)[1]]
    assert fix(fixed, target, kind, names) == (fixed, set())


def test_every_fix_repairs_something_in_these_tests():
    used = {fix for name in CASES for fix in RULES[name].fixes} | WHOLE_LINES
    assert FIXES.keys() <= used


def test_fixes_are_found_by_name_in_the_order_in_which_they_are_made():
    assert find_fixes(["merge-turns", "drop-null", "drop-null"]) == ("drop-null", "merge-turns")
    with pytest.raises(UsageError, match="merge-turn: no such fix") as caught:
        find_fixes(["merge-turn"])
    assert caught.value.hint == "did you mean `merge-turns`?"


INFERRED = [
    call("abcdefgh1", "a", '{"x": 1}'),
    call("abcdefgh2", "a", '{"x": "1", "y": []}'),
]
DECLARED = {
    "type": "object",
    "properties": {"x": {"type": ["integer", "string"]}, "y": {"type": "array"}},
}
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
    (
        "arguments-text",
        tools(user(), calls(call(arguments='"{\\"a\\": 1}"'))),
        tools(user(), calls(call(arguments='{"a": 1}'))),
    ),
    (
        "drop-call-content",
        tools(user(), calls(call(), content="Let me look")),
        tools(user(), calls(call())),
    ),
    (
        "split-call-content",
        tools(user(), calls(call(), content="Let me look", weight=1)),
        tools(user(), assistant("Let me look", weight=1), calls(call(), weight=1)),
    ),
    (
        "declare-tools",
        chat(user(), calls(*INFERRED)),
        tools(user(), calls(*INFERRED), declared=[tool("a", DECLARED, "Inferred from its calls.")]),
    ),
    (
        "close-json",
        tools(user(), calls(call(arguments='{"n": [{"a": "}"}'))),
        tools(user(), calls(call(arguments='{"n": [{"a": "}"}]}'))),
    ),
    (
        "strip-template",
        chat(user("<s>[INST] Hello [/INST] "), assistant("### Response:\n Hi</s>")),
        chat(user("Hello"), assistant("Hi")),
    ),
    (
        "repair-encoding",
        chat(user("DÃ©jÃ\xa0 ?"), assistant("Oui, câ€™est lÃ\xa0.")),
        chat(user("Déjà ?"), assistant("Oui, c’est là.")),
    ),
]


@pytest.mark.parametrize(("name", "broken", "expected"), GOLDEN)
def test_what_a_fix_writes(name, broken, expected):
    names = {*DEFAULT_FIXES, name}
    fixed, done = fix(line(broken), names=names)
    assert name in done
    assert json.loads(fixed) == expected
    assert fix(fixed, names=names) == (fixed, set())


@pytest.mark.parametrize(("name", "broken", "expected"), [g for g in GOLDEN if g[0] != "drop-null"])
def test_a_record_is_repaired_as_its_line_is(name, broken, expected):
    checker, record = Checker("chat"), records.decode("chat", line(broken))
    findings = checker.check_record(record, "f", 3)
    repaired, left, made = repair_record(checker, record, findings, {*DEFAULT_FIXES, name})
    assert json.loads(records.encode(repaired)) == expected
    assert name in made
    assert [(f.file, f.line) for f in left if f.severity == "error"] == []


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("close-json", tools(user(), calls(call(arguments='{"n": 12')))),  # 12 or 120?
        ("close-json", tools(user(), calls(call(arguments='{"n": "ab')))),
        ("close-json", tools(user(), calls(call(arguments='{"n": [1}')))),
        ("close-json", chat(user(), calls(call(arguments='{"n": "1"')))),  # who knows its keys
        (
            "close-json",
            tools(user(), calls(call(arguments='{"m": "1"')), declared=[tool("find", NUMBER)]),
        ),
        (
            "close-json",
            tools(
                user(),
                calls(call(arguments='{"n": "1"')),
                declared=[tool("find", {"required": [[]]})],
            ),
        ),
        ("arguments-text", CASES["arguments"][3]),  # Python's notation of a dict
        ("strip-template", chat(user("a [/INST] b [INST] c"), assistant())),
        ("strip-template", chat(user("[INST]"), assistant())),
        ("merge-turns", chat(user("a"), assistant("b", weight=0), assistant("c", weight=1))),
    ],
)
def test_what_is_not_certain_stays(name, record):
    assert fix(line(record), "v13", names={name})[1] == set()


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
