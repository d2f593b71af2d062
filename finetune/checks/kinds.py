"""Rules of each kind of record."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import UNSET

from finetune.checks.conversation import check_turns
from finetune.checks.report import Fault
from finetune.checks.targets import Target
from finetune.checks.tools import ToolRules
from finetune.records import (
    AssistantMessage,
    ChatRecord,
    ClassifierRecord,
    Message,
    PreferenceRecord,
    RatingRecord,
    Record,
    TextRecord,
    ToolMessage,
    Tools,
    UserMessage,
)


class KindRules:
    """Checks records of any kind for one target."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._tools = ToolRules(target.severities)

    def check(self, record: Record) -> list[Fault]:
        """Return the faults of a record, of rules in force or not."""
        if isinstance(record, ChatRecord):
            faults = check_turns(record.messages, self._target)
            if record.tools is not UNSET or _has_tools(record.messages):
                faults += self._tools.check(record.messages, record.tools)
            return faults
        if isinstance(record, TextRecord):
            return [] if record.text.strip() else [Fault("empty-text", "text", "no text")]
        if isinstance(record, ClassifierRecord):
            return self._check_classifier(record)
        return self._check_answers(record)

    def finish(self) -> list[Fault]:
        """Return what the records as a whole show."""
        return self._tools.finish()

    def _check_classifier(self, record: ClassifierRecord) -> list[Fault]:
        faults = []
        if (record.text is UNSET) == (record.messages is UNSET):
            found = "neither" if record.text is UNSET else "both"
            faults.append(Fault("text-or-messages", "", f"{found} of `text` and `messages`"))
        if record.text is not UNSET and not record.text.strip():
            faults.append(Fault("empty-text", "text", "no text"))
        if record.messages is not UNSET:
            faults += check_turns(record.messages, self._target, trained=False)
            if _has_tools(record.messages):
                faults += self._tools.check(record.messages, UNSET)
        if not record.labels:
            faults.append(Fault("no-labels", "labels", "no labels"))
        for name, value in record.labels.items():
            values = value if isinstance(value, list) else [value]
            if not name or not all(values):
                faults.append(Fault("empty-label", "labels.*", "an empty name or value"))
            if not values:
                faults.append(Fault("no-label-value", "labels.*", "an empty list"))
        return faults

    def _check_answers(self, record: PreferenceRecord | RatingRecord) -> list[Fault]:
        prompt = record.prompt
        faults: dict[Fault, None] = {}
        if not prompt:
            faults[Fault("no-messages", "prompt", "no messages")] = None
        elif not isinstance(prompt[-1], UserMessage | ToolMessage):
            path = f"prompt[{len(prompt) - 1}].role"
            faults[Fault("prompt-end", path, "not a user or tool message")] = None
        if isinstance(record, RatingRecord):
            answers = {"completion": record.completion}
        else:
            answers = {"chosen": record.chosen, "rejected": record.rejected}
            if record.chosen == record.rejected:
                faults[Fault("same-answers", "rejected", "the same as `chosen`")] = None
        for key, answer in answers.items():
            faults |= dict.fromkeys(self._check_answer(prompt, key, answer, record.tools))
        return list(faults)

    def _check_answer(
        self, prompt: list[Message], key: str, answer: list[Message], tools: Tools
    ) -> list[Fault]:
        if not answer:
            return [Fault("no-messages", key, "no messages")]
        faults = []
        if not isinstance(answer[0], AssistantMessage):
            faults.append(Fault("answer-role", f"{key}[0].role", "not an assistant message"))
        whole = prompt + answer
        place = _place_in(len(prompt), key)
        faults += check_turns(whole, self._target, place)
        if tools is not UNSET or _has_tools(whole):
            faults += self._tools.check(whole, tools, place)
        return faults


def _place_in(length: int, key: str) -> Callable[[int], str]:
    def place(index: int) -> str:
        return f"prompt[{index}]" if index < length else f"{key}[{index - length}]"

    return place


def _has_tools(messages: list[Message]) -> bool:
    for message in messages:
        kind = type(message)
        if kind is ToolMessage:
            return True
        if kind is AssistantMessage and message.tool_calls is not UNSET:  # type: ignore[union-attr]
            return True
    return False
