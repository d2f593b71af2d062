"""Which converter reads a source, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.converters import detect
from finetune.errors import UsageError

U, A = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
OBJECT = {"id": "a1b2c3d4e", "type": "function", "function": {"name": "f", "arguments": {}}}
ALPACA = {"instruction": "I", "input": "", "output": "O"}
ITEM = {"type": "message", **A}
HH = "\n\nHuman: Hi\n\nAssistant: Hello"
TREE = {"message_id": "1", "text": "Hi", "role": "prompter", "replies": []}
SHAREGPT = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}


@pytest.mark.parametrize(
    ("row", "name", "kind"),
    [
        ({"question": "Q", "answer": "A"}, "pairs", "chat"),
        ({" Prompt ": "Q", "COMPLETION": "A"}, "pairs", "chat"),
        ({"input": "Q", "output": "A"}, "pairs", "chat"),
        ({"Ticket": 1, "Frage": "Q", "Antwort": "A"}, "pairs", "chat"),
        ({"question": "Q", "réponse": "A"}, "pairs", "chat"),
        (ALPACA, "alpaca", "chat"),
        (SHAREGPT, "sharegpt", "chat"),
        ({"messages": [U, A]}, "laplateforme", "chat"),
        ({"messages": [U, {**A, "refusal": None}]}, "openai", "chat"),
        ({"messages": [U, {"role": "assistant", "tool_calls": [CALL]}]}, "openai", "chat"),
        ({"messages": [{**U, "role": "developer"}, U, A]}, "openai", "chat"),
        ({"messages": [U, A], "functions": []}, "openai", "chat"),
        (
            {"messages": [{**U, "content": [{"type": "text", "content": "Hi"}]}, A]},
            "openai",
            "chat",
        ),
        ({"messages": [U, {"role": "assistant", "tool_calls": [OBJECT]}]}, "openai", "chat"),
        ({"text": "T"}, "laplateforme", "text"),
        ({"text": "T", "url": "U"}, "text", "text"),
        ({"text": "T", "labels": {"a": "b"}}, "laplateforme", "classifier"),
        ({"prompt": [U], "chosen": [A], "rejected": [A]}, "laplateforme", "preference"),
        ({"prompt": [U], "completion": [A], "label": True}, "laplateforme", "rating"),
        ({"instruction": "I", "context": "T", "response": "A", "category": "c"}, "pairs", "chat"),
        ({"prompt": [U], "completion": [A]}, "trl", "chat"),
        ({"prompt": "P", "chosen": "A", "rejected": "B"}, "preference", "preference"),
        ({"prompt": "P", "chosen": [U, A], "rejected": [U, A]}, "preference", "preference"),
        ({"prompt": [U], "chosen": [U, A], "rejected": [U, A]}, "preference", "preference"),
        ({"prompt": [U], "chosen": [A], "rejected": [A], "id": 1}, "preference", "preference"),
        ({"chosen": HH, "rejected": HH}, "preference", "preference"),
        (
            {"input": {"messages": [U]}, "preferred_output": [A], "non_preferred_output": [A]},
            "preference",
            "preference",
        ),
        ({"prompt": "P", "responses": ["A", "B"], "scores": [1, 2]}, "ranked", "preference"),
        ({"prompt": "P", "answers": [{"answer": "A", "rank": 1}]}, "ranked", "preference"),
        ({"prompt": "P", "completion": "C", "label": False}, "rating", "rating"),
        ({"prompt": "P", "completion": "C", "label": "True"}, "rating", "rating"),
        ({"prompt": [U], "completion": [A], "label": 1}, "rating", "rating"),
        ({"request": {"input": "Hi"}, "response": {"output": [A]}}, "logs", "chat"),
        ({"input": "Hi", "output": [ITEM]}, "logs", "chat"),
        ({"input": "Hi", "output": "Hello"}, "pairs", "chat"),
        ({"type": "response.created", "response": {}}, "logs", "chat"),
        ({"text": "T", "label": "a"}, "classification", "classifier"),
        ({"text": "T", "label": True}, "classification", "classifier"),
        ({"text": "T", "labels": {"a": True}}, "classification", "classifier"),
        ({"messages": [U], "intent": "a"}, "classification", "classifier"),
        ({"message_tree_id": "1", "prompt": TREE}, "oasst", "chat"),
        ({"message_tree_id": "1", "parent_id": None, **TREE}, "oasst-table", "chat"),
    ],
)
def test_format_is_told_from_the_content(row, name, kind):
    found = detect([row])
    assert (found.format, found.kind) == (name, kind)
    assert found.reason


def test_a_few_bad_rows_do_not_change_the_format():
    assert detect([SHAREGPT] * 5 + ["x", None, {"a": 1}]).format == "sharegpt"


def test_one_openai_row_makes_the_source_openai():
    rows = [{"messages": [U, A]}] * 9 + [{"messages": [U, {**A, "content": None}]}]
    assert detect(rows).format == "openai"


def test_two_readings_ask_for_the_format():
    rows = [{**ALPACA, "text": "### Instruction: I"}]
    with pytest.raises(UsageError, match=r"`alpaca`.* or `text`") as caught:
        detect(rows)
    assert "`--from`" in str(caught.value.hint)
    assert detect(rows, format="alpaca").format == "alpaca"
    assert detect(rows, kind="chat").format == "alpaca"
    assert detect(rows, kind="text").format == "text"


def test_text_that_renders_the_other_columns_is_no_document():
    rendered = {**ALPACA, "text": "### Instruction:\nI\n\n### Response:\nO"}
    assert detect([rendered]).format == "alpaca"
    assert detect([{"question": "Q", "answer": "A", "text": "[INST] Q [/INST] A"}]).format == (
        "pairs"
    )


@pytest.mark.parametrize(
    "text",
    [
        "<s>[INST] Hi [/INST] Hello</s>",
        "<|im_start|>user\nHi<|im_end|>",
        "Below is an instruction that describes a task.\n\n### Instruction:\nI",
        "\n\nHuman: Hi\n\nAssistant: Hello",
    ],
)
@pytest.mark.parametrize("beside", [{}, {"source": "web"}])
def test_rendered_conversations_are_not_taken_for_documents(text, beside):
    rows = [{"text": text, **beside}]
    with pytest.raises(UsageError, match="two readings are possible: documents") as caught:
        detect(rows)
    assert "`--from " in str(caught.value.hint)
    assert detect(rows, kind="text").kind == "text"
    assert detect(rows, format="text").format == "text"
    assert detect([*rows, {"text": "A document."}, {"text": "Another."}]).kind == "text"


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"conversation": [U, A]}, "openai"),
        ({"messages": [U, A], "source": "web"}, "openai"),
        ({"messages": [{**U, "role": "customer"}, A]}, "openai"),
        ({"messages": [U, A], "response": {"choices": []}}, "logs"),
        ({"request": {"messages": [U]}, "response": {"error": {}}}, "logs"),
        ({"system": [{"type": "text", "text": "S"}], "messages": [U, A]}, "anthropic"),
        ({"chat": "USER: Hi\n\nASSISTANT: Hello"}, "glaive"),
        ({"text": "SYSTEM: S USER: Hi ASSISTANT: Hello"}, "glaive"),
        ({"query": "Q", "tools": "[]", "answers": "[]"}, "xlam"),
        ({"question": [[U]], "function": [], "ground_truth": []}, "bfcl"),
        ({"instruction": "I", "input": '{"messages": []}', "output": "O"}, "alpaca"),
        ({"input": '{"a": 1}', "output": "O"}, "pairs"),
        ({"prompt": "P", "response": "R"}, "pairs"),
    ],
)
def test_formats_are_told_apart(row, name):
    assert detect([row]).format == name


CASES = Path(__file__).parent / "cases"
# What a row of a format may be read as where none is named: La Plateforme's own rows are OpenAI's
# too, and what a source file is only its tree says.
ALSO = {"openai": "laplateforme", "code": "text"}


@pytest.mark.parametrize(
    "folder",
    [
        path.parent
        for path in sorted(CASES.glob("*/*/records.json"))
        if not path.with_name("columns.json").exists()
    ],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_a_golden_row_is_read_as_its_own_format_or_asked_about(folder):
    row = json.loads((folder / "row.json").read_bytes())
    name = folder.parent.name
    try:
        found = detect(row if isinstance(row, list) else [row])
    except UsageError as error:
        assert f"`{name}`" in str(error)
    else:
        assert found.format in {name, ALSO.get(name)}


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        ({"prompt": "P", "completion": "C", "label": False}, "chat", "it holds rating records"),
        ({"text": "T", "label": "a"}, "text", "it holds classifier records"),
    ],
)
def test_a_reading_that_uses_more_of_the_row_is_not_passed_over(row, kind, message):
    with pytest.raises(UsageError, match=message) as caught:
        detect([row], kind=kind)
    assert "`--from`" in str(caught.value.hint)


def test_a_named_format_is_not_second_guessed():
    row = {"prompt": "P", "completion": "C", "label": False}
    assert detect([row], format="pairs").format == "pairs"


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Q", "answer": "A", "response": "R"},
        {"instruction": "I", "input": "", "output": "O", "response": "R"},
        {"messages": [U, A], "label": True},
        {"question": "Q", "query": "Q", "chosen": "A", "rejected": "B"},
    ],
)
def test_what_can_be_read_in_two_ways_is_asked(row):
    with pytest.raises(UsageError, match=r"two readings|unknown format"):
        detect([row])


def test_trees_are_pairs_where_that_is_asked():
    row = {"message_tree_id": "1", "prompt": TREE}
    assert detect([row], kind="preference").kind == "preference"
    assert detect([row], format="oasst", kind="preference").kind == "preference"


def test_several_targets_are_named_in_columns():
    rows = [{"body": "T", "a": "x", "b": "y"}]
    columns = {"text": "body", "labels.topic": "a", "labels.tone": "b"}
    found = detect(rows, columns=columns)
    assert (found.format, found.reason) == ("classification", "`body` with `a` and `b`")
    with pytest.raises(UsageError, match=r"columns: labels\.: not a part"):
        detect(rows, format="classification", columns={"text": "body", "labels.": "a"})


def test_columns_say_what_holds_what():
    rows = [{"frage": "F", "antwort": "A"}]
    found = detect(rows, columns={"user": "frage", "assistant": "antwort"})
    assert found.format == "pairs"
    assert detect(
        [{"chat": SHAREGPT["conversations"]}], columns={"conversations": "chat"}
    ).format == ("sharegpt")
    assert detect([{"dialog": [U, A]}], columns={"messages": "dialog"}).format == "openai"


def test_table_of_messages_is_told_by_the_roles_that_were_said():
    rows = [{"ticket_id": 1, "author": "agent", "body": "Hello"}]
    with pytest.raises(UsageError, match="unknown format"):
        detect(rows)
    found = detect(rows, roles={"agent": "assistant"})
    assert (found.format, found.roles) == ("turns", {"agent": "assistant"})


def test_wrong_column_names_those_that_are_there():
    with pytest.raises(UsageError) as caught:
        detect([{"frage": "F", "antwort": "A"}], columns={"user": "fragen", "assistant": "antwort"})
    assert str(caught.value) == ("columns.user: no column `fragen`: there are `frage`, `antwort`")
    assert caught.value.hint == "did you mean `frage`?"


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"a": 1, "b": 2}], {}, "unknown format: there are `a`, `b`"),
        ([1, 2], {}, "unknown format: the rows are not objects"),
        ([{"a\n": 1, "\u202eb": 2}], {}, r"unknown format: there are `a\n`, `\u202eb`"),
        ([{"a": 1}], {"columns": {"user": "a"}}, "columns: `pairs` needs `assistant` too"),
        ([{"a": 1}], {"columns": {"usr": "a"}}, "columns: no format has the parts `usr`"),
        ([{"a": 1}], {"columns": {"system": "a"}}, "unknown format: there are `a`"),
        ([SHAREGPT], {"format": "sharegtp"}, "sharegtp: unknown format"),
        ([{"a": 1}], {"format": "pairs"}, "no known columns of `pairs`: there are `a`"),
        (
            [ALPACA],
            {"format": "alpaca", "kind": "text"},
            "the format `alpaca` holds no text records",
        ),
        (
            [ALPACA],
            {"format": "alpaca", "columns": {"user": "input"}},
            "columns: user: not a part of the format `alpaca`",
        ),
    ],
)
def test_what_cannot_be_read_is_said(rows, options, message):
    with pytest.raises(UsageError) as caught:
        detect(rows, **options)
    assert str(caught.value) == message
    assert caught.value.hint or "holds no" in message


def test_every_column_of_a_template_is_checked():
    rows = [{"subject": "S", "body": "B", "answer": "A"}]
    columns = {"user": "{subject}\n\n{body}", "assistant": "answer"}
    assert detect(rows, columns=columns).keys("user") == ("subject", "body")
    with pytest.raises(UsageError) as caught:
        detect(rows, columns={**columns, "user": "{subject}\n\n{bdy}"})
    assert str(caught.value).startswith("columns.user: no column `bdy`: there are `subject`, ")
    assert caught.value.hint == "did you mean `body`?"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{body", "columns: a brace without its other half at character 1"),
        ("a } {body}", "columns: a brace without its other half at character 3"),
        ("{}", "columns: a brace without its other half at character 1"),
        ("{{body}}", "columns: a template that names no column"),
    ],
)
def test_template_that_cannot_be_read_is_said(template, message):
    with pytest.raises(UsageError) as caught:
        detect([{"body": "B"}], columns={"user": template})
    assert str(caught.value) == message


def test_message_tables_are_told_by_their_columns_and_roles():
    row = {"Ticket_ID": "7", "role": "user", "body": "Hi", "created_at": "2026-01-01", "x": 1}
    found = detect([row, {**row, "role": "Assistant"}])
    assert (found.format, found.kind) == ("turns", "chat")
    assert found.columns == {
        "conversation": "Ticket_ID",
        "role": "role",
        "content": "body",
        "order": "created_at",
    }
    columns = {"conversation": "case", "role": "who", "content": "{head}: {body}"}
    rows = [{"case": 1, "who": "agent", "head": "H", "body": "B"}]
    assert detect(rows, columns=columns).format == "turns"


@pytest.mark.parametrize(
    "change",
    [{"role": "agent"}, {"role": 1}, {"date": "2026-01-01"}, {"message": "Hi"}],
    ids=["unknown role", "role is no text", "two orders", "two contents"],
)
def test_message_tables_in_doubt_are_not_guessed(change):
    row = {"ticket_id": "7", "role": "user", "body": "Hi", "created_at": "2026-01-01", **change}
    with pytest.raises(UsageError, match="unknown format"):
        detect([row])
    with pytest.raises(UsageError, match="no known columns of `turns`") as caught:
        detect([row], format="turns")
    assert "`columns: {conversation: …, role: …, content: …}`" in caught.value.hint
