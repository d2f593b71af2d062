from __future__ import annotations

import json
import time

import pytest

from finetune.checks import FIXES, RULES, Checker, find_rule, rules_page
from finetune.checks.repair import repair
from finetune.checks.rules import TARGETS
from finetune.checks.rules.notes import NOTES
from finetune.errors import UsageError
from finetune.records import KINDS
from tests.checks.cases import CASES, ELSEWHERE, assistant, chat, line, user

PERSON = "Zephyrine Quastenberg-Ölçer"


def findings(target, kind, value):
    return Checker(kind, target).check_line(line(value), "file.jsonl", 7)[1]


def test_every_rule_has_cases():
    of_records = {name for name, rule in RULES.items() if rule.kinds}  # the others are of rows
    assert CASES.keys() | ELSEWHERE == of_records


@pytest.mark.parametrize("name", CASES)
def test_rule_tells_a_kept_line_from_a_broken_one(name):
    target, kind, kept, broken = CASES[name]
    assert name not in [finding.rule for finding in findings(target, kind, kept)]
    found = [finding for finding in findings(target, kind, broken) if finding.rule == name]
    assert found
    assert {(f.file, f.line, f.severity, f.fixable) for f in found} == {
        ("file.jsonl", 7, RULES[name].severity(target), bool(RULES[name].fixes))
    }


@pytest.mark.parametrize("name", CASES)
def test_rule_holds_for_the_targets_of_the_table_alone(name):
    _, kind, _, broken = CASES[name]
    for target in TARGETS:
        severities = {f.severity for f in findings(target, kind, broken) if f.rule == name}
        assert severities <= {RULES[name].severity(target)}


def test_table_names_real_targets_kinds_and_fixes():
    for rule in RULES.values():
        assert set(rule.errors) | set(rule.warnings) <= set(TARGETS)
        assert rule.errors or rule.warnings
        assert not set(rule.errors) & set(rule.warnings)
        assert set(rule.kinds) <= KINDS.keys()
        assert set(rule.fixes) <= FIXES.keys()
        assert rule.summary[0].islower() or rule.summary.startswith(("NaN", "La "))
        assert f"`{rule.name}`" in rules_page()
    assert {fix for rule in RULES.values() for fix in rule.fixes} == FIXES.keys()


def test_every_rule_on_records_says_why():
    assert NOTES.keys() == {name for name, rule in RULES.items() if rule.kinds}


def test_only_warnings_are_ignored_and_unknown_rules_refused():
    _, kind, _, broken = CASES["no-user"]
    assert Checker(kind, "v7", ignore=["no-user"]).check_line(line(broken), "f", 1)[1] == []
    found = Checker(kind, "platform", ignore=["no-user"]).check_line(line(broken), "f", 1)[1]
    assert [finding.rule for finding in found] == ["no-user"]
    with pytest.raises(UsageError, match="json: cannot be ignored: it is an error for every"):
        Checker(kind, "v7", ignore=["json"])
    with pytest.raises(UsageError, match="no-usr: no such rule") as caught:
        Checker(kind, "v7", ignore=["no-usr"])
    assert caught.value.hint == "did you mean `no-user`?"
    with pytest.raises(UsageError, match="no such rule"):
        find_rule("nope")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            '{"messages": [{"role": "human", "content": "a"}, {"role": "assistant", "contnt": "b"}]}',
            [
                "f:1: messages[0].role: expected `system`, `user`, `assistant`, `tool`; did you mean `user`?  [role]",
                "f:1: messages[1]: an unknown key of 6 characters; did you mean `content`?  [unknown-key]",
            ],
        ),
        (
            '{"messages": [{"role": "user", "content": 3}, {"role": "assistant", "content": "b", "weight": 2}, {"role": "user", "content": "c"}], "x": 1}',
            [
                "f:1: an unknown key of 1 character  [unknown-key]",
                "f:1: messages[0].content: a number where a text or a list is expected  [type]",
                "f:1: messages[1].weight: not from 0 to 1  [weight]",
            ],
        ),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": "1"}, {"role": "user", "content": "c"}]}',
            [
                "f:1: messages[1].weight: a text where a number is expected  [type]",
                "f:1: messages[2].role: ends with `user`  [last-message]",
            ],
        ),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}',
            ["f:1: the line ends in the middle of a value, at column 86  [json]"],
        ),
        (
            '{"messages": []} {"messages": []}',
            ["f:1: more than one value on the line, at column 18  [json]"],
        ),
        (
            '{"conversations": [{"from": "human", "value": "a"}]}',
            [
                "f:1: `messages` is missing  [missing-key]",
                "f:1: an unknown key of 13 characters; did you mean `messages`?  [unknown-key]",
            ],
        ),
    ],
)
def test_a_broken_line_is_explained_in_full(record, expected):
    found = [str(f) for f in Checker("chat").check_line(record.encode(), "f", 1)[1]]
    assert sorted(found) == sorted(expected)


def hide(value):
    """Yield copies of a value with the person in each text, as each key and beside each key."""
    text = json.dumps(value)
    leaves = [json.dumps(leaf) for leaf in walk(value)]
    for leaf in dict.fromkeys(leaves):
        yield json.loads(text.replace(leaf, json.dumps(PERSON)))
    yield {**value, PERSON: PERSON}


def walk(value):
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if isinstance(case[3], dict)])
def test_no_message_ever_names_a_person(name):
    _, kind, kept, broken = CASES[name]
    count = 0
    for value in [*hide(kept), *hide(broken)]:
        for target in ("platform", "v11"):
            for finding in findings(target, kind, value):
                count += 1
                for part in PERSON.split():
                    assert part not in str(finding)
    assert count


TORTURE = [
    b"",
    b"\x00",
    b"\xff\xfe{\x00}\x00",
    b"null",
    b"1",
    b'"a"',
    b"[" * 100_000,
    b'{"messages":' * 5000,
    b'{"messages":[' + b'{"role":"user"},' * 100,
    b'{"text": 1e999}',
    b'{"text": ' + b"9" * 10_000 + b"}",
    b'{"text": "\\ud800\\ud800"}',
    b'{"text": "\xed\xa0\x80"}',
    b'{"text": "a\tb"}',
    b'{"text": "a",}',
    b"{'text': 'a'}",
    b'{"text": "a"} // comment',
    b'{"__proto__": {}, "constructor": 1, "": null}',
    b'{"messages": {"role": "user"}}',
    b'{"messages": [[[]]]}',
    b'{"messages": [{"role": ["user"]}], "tools": {"a": 1}}',
    b'{"messages": [null, true, 1.5, "x"]}',
    "{\u2028}".encode(),
    b'{"text": "\x1a"}',
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", range(len(TORTURE)))
def test_a_tortured_line_is_a_finding_and_nothing_worse(kind, number):
    record, found = Checker(kind).check_line(TORTURE[number], "f", 1)
    assert record is None
    assert any(finding.severity == "error" for finding in found)
    assert all(finding.rule in RULES for finding in found)


@pytest.mark.parametrize(
    "text",
    [
        "</s>",
        "<s> ",
        "<|im_end|> ",
        "[your ",
        "{{ a ",
        "<tool_call> ",
        "```\n",
        "I am sorry, but ",
        "Ã",
    ],
)
def test_long_runs_of_marks_take_no_long_time(text):
    many = text * 20_000
    start = time.process_time()
    data = line(chat(user(many), assistant(many + "<|im_end|> " * 20_000)))
    found = Checker("chat").check_line(data, "f", 1)[1]
    repair(Checker("chat"), data, found, FIXES.keys() - {"repair-encoding"})
    assert time.process_time() - start < 5  # quadratic it would be minutes
