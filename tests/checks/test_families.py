"""Every family of rules on made-up records: findings and repairs, never an exception.

`HYPOTHESIS_EXAMPLES=10000 pytest tests/checks/test_families.py` makes ten thousand of each.
"""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.checks import FIXES, RULES, Checker
from finetune.checks.repair import repair
from finetune.checks.rules import TARGETS
from tests.checks.cases import CASES, call, calls, chat, line, result, tool, user
from tests.checks.test_schemas import mutated

EXAMPLES = settings(
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
MARKS = (
    st.sampled_from(["<s>", "[INST]", "[/INST]", "</s>", "<|im_start|>user", "### Response:"])
    | st.sampled_from(["```", "`", "DÃ©", "câ€™", "\ufffd", "Â°", "As an AI model", "{{a}}"])
    | st.sampled_from(['{"a": ', "<functioncall> {", "[Your Name]", "Ответ ", "答え", " ", "\n"])
)
TEXTS = st.lists(MARKS | st.text(max_size=4), max_size=6).map("".join)
JSONS = st.sampled_from(
    ['{"n": [1', '{"n": "1"', '"{}"', '{"n": 1}', "{", "", '{"n": {"m": [', "[]"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["string", "object", "$ref", "n"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "enum", "required", "properties", "items", "$ref", "n"]), inner
        )
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(["find", "buy", "a b", ""])
LABELS = st.sampled_from(["spam", "Spam ", "SPAM", "!", ""])

FAMILIES = {
    "lines": (
        "chat",
        st.binary(max_size=60)
        | st.sampled_from(list(CASES.values()))
        .map(lambda c: line(c[3]) or b"")
        .flatmap(lambda data: st.integers(0, len(data)).map(lambda end: data[:end])),
    ),
    "turns": ("chat", mutated("chat")),
    "texts": (
        "chat",
        st.lists(
            st.builds(
                lambda role, text: {"role": role, "content": text},
                st.sampled_from(["user", "assistant", "system"]),
                TEXTS,
            ),
            max_size=4,
        ).map(lambda messages: chat(*messages)),
    ),
    "tools": (
        "chat",
        st.builds(
            lambda name, arguments, schema, text, more: chat(
                user(),
                calls(call(more, name, arguments), content=text),
                result(more or "x"),
                *([calls(call(None, name, arguments))] if text else []),
                tools=[tool("find", schema)],
            ),
            NAMES,
            JSONS | TEXTS | st.dictionaries(st.just("n"), VALUES),
            st.dictionaries(st.sampled_from(["type", "properties", "required", "enum"]), VALUES),
            TEXTS,
            st.sampled_from([None, "abcdefgh1", "call_1", ""]),
        ),
    ),
    "documents": ("text", mutated("text") | TEXTS.map(lambda text: {"text": text})),
    "labels": (
        "classifier",
        mutated("classifier")
        | st.builds(
            lambda text, value: {"text": text, "labels": {"topic": value}},
            TEXTS,
            LABELS | st.lists(LABELS, max_size=2),
        ),
    ),
    "preferences": ("preference", mutated("preference")),
    "ratings": ("rating", mutated("rating")),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_finds_and_repairs_and_never_fails(family):
    kind, values = FAMILIES[family]
    names = set(FIXES)

    @EXAMPLES
    @given(values, st.sampled_from(TARGETS))
    def check(value, target):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        checker = Checker(kind, target)
        record, found = checker.check_line(data, "f", 1)
        checker.finish("f")
        assert all(finding.rule in RULES for finding in found)
        assert record is not None or any(finding.severity == "error" for finding in found)
        whole, done = repair(checker, data, found, names)
        if whole:
            left = Checker(kind, target).check_line(whole, "f", 1)[1]
            assert all(finding.severity == "warning" for finding in left)
            assert repair(checker, whole, left, names) == (whole, set())
        assert done <= names

    check()
