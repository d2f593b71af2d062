"""Rules on what the texts say: leftovers, broken encodings, answers that should not be learned.

A clean record costs a few searches for single characters in all its texts at once.
Only patterns that are certain count: data about chat templates or encodings may show them, so
that all of these rules are warnings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import compress
from operator import itemgetter
from typing import Any

import msgspec
from msgspec import UNSET

from finetune.checks.report import Fault
from finetune.checks.scripts import find_script, seem_unlike
from finetune.records import (
    AssistantMessage,
    ChatRecord,
    ClassifierRecord,
    Message,
    PreferenceRecord,
    RatingRecord,
    Record,
    TextChunk,
    TextRecord,
    UserMessage,
    text_of,
)

_OPENING = (
    r"<s>|\[INST\]|\[SYSTEM_PROMPT\]|<<SYS>>|<\|begin_of_text\|>"
    r"|<\|im_start\|>(?:(?:system|user|assistant)\b)?"
    r"|<\|start_header_id\|>\w{0,20}<\|end_header_id\|>|<\|(?:system|user|assistant)\|>"
    r"|<start_of_turn>(?:(?:user|model)\b)?"
    r"|#{2,3} (?:Response|Instruction|Assistant|Human|User|Input):"
)
_CLOSING = (
    r"</s>|\[/INST\]|\[/SYSTEM_PROMPT\]|<</SYS>>|<\|im_end\|>|<\|eot_id\|>|<\|end\|>"
    r"|<\|end_of_text\|>|<\|endoftext\|>|<end_of_turn>"
)
TEMPLATE_START = re.compile(rf"\A(?:\s*(?:{_OPENING}))+\s*")
TEMPLATE_END = re.compile(rf"(?:{_CLOSING})\s*\Z")
_TEMPLATE = re.compile(
    r"\[/?(?:INST|AVAILABLE_TOOLS|TOOL_RESULTS|SYSTEM_PROMPT)\]|<</?SYS>>|</?(?:start|end)_of_turn>"
    r"|<\|(?:im_start|im_end|eot_id|endoftext|(?:start|end)_header_id|(?:begin|end)_of_text)\|>"
)
_MARKS = re.compile(rf"{_OPENING}|{_CLOSING}|{_TEMPLATE.pattern}")
_CALL = re.compile(r"<functioncall>|<tool_call>\s{0,4}\{|\[TOOL_CALLS\] ?\[?\{")
_PLACEHOLDER = re.compile(
    r"\{\{\s?[A-Za-z_][\w .-]{0,40}\}\}"
    r"|\[(?:your|insert|enter|votre|ihr|ihre|tu|su|il tuo|uw) [\w '’/-]{1,40}\](?!\()"
    r"|<(?:YOUR|INSERT|ENTER)[_ -][A-Z_ -]{1,40}>",
    re.IGNORECASE,
)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_FENCE = re.compile(r"^ {0,3}```", re.MULTILINE)
# UTF-8 that was read as Windows-1252. Before a capital letter `Ã` and `Â` are letters of words.
_AFTER = "\u0080-\u00bf€‚ƒ„†‡ˆ‰Š‹ŒŽ˜™š›œžŸ"
_MOJIBAKE = re.compile(
    rf"(?<![A-ZÀ-Ý])Ã[{_AFTER}]|(?<![A-ZÀ-Ý])Â[\u00a0-\u00bf]"
    r"|â€[\u0080-\u00bf™œžš˜“”‘’¦¢]"
)
_LOST = "\ufffd"

_REFUSAL = re.compile(
    r"(?:(?:I['’]m|I am) sorry,? (?:but )?|Sorry,? (?:but )?|I apologi[sz]e,? but )?"
    r"(?:as an AI(?:,| (?:language )?(?:model|assistant|chatbot)\b)"
    r"|I (?:can['’]?t|cannot|am unable to|am not able to) (?:assist|help)(?: you)? with that)"
    r"|(?:Je suis désolée?,? mais |Désolée?,? mais )?(?:en tant qu(?:['’](?:IA|intelligence "
    r"artificielle|assistant virtuel)(?:,| je)|e modèle de lang)"
    r"|je ne peux pas vous aider (?:avec|à|sur) ce)"
    r"|(?:(?:Es )?tut mir leid,? aber )?(?:als (?:KI(?:,| kann|-(?:Sprachm|M)odell|-Assistent)"
    r"|(?:eine? )?(?:Sprachmodell|künstliche Intelligenz(?:,| kann)))"
    r"|ich kann (?:dir|Ihnen) dabei (?:leider )?nicht helfen)"
    r"|(?:Lo siento,? pero )?(?:como (?:un |una )?(?:modelo de lenguaje"
    r"|(?:IA|inteligencia artificial)(?:,| no))|no puedo ayudar(?:te|le)? con es[ot])"
    r"|(?:Mi dispiace,? ma )?(?:come (?:un |una )?(?:modello linguistico"
    r"|(?:IA|intelligenza artificiale)(?:,| non))|non posso aiutar(?:ti|la) con quest)"
    r"|(?:Desculpe,? mas )?(?:como (?:um |uma )?(?:modelo de linguagem"
    r"|(?:IA|inteligência artificial)(?:,| não))|não posso ajud(?:ar|á-lo) com iss)"
    r"|(?:Het spijt me,? maar )?als (?:een )?(?:taalmodel|AI(?:,| kan|-(?:taalm|m)odel))"
    r"|(?:Przykro mi,? ale )?jako (?:model językowy|(?:sztuczna inteligencja|AI)(?:,| nie))",
    re.IGNORECASE,
)
# How such an answer begins: two letters, looked up before the pattern is tried.
_REFUSING = frozenset(re.findall("..", "AsI'I’I SoEnJeDéAlEsTuIcCoLoNoMiDeNãHeJaPr"))
_JSON = frozenset(['{"', "{\n", "{ ", "[{", '["', "[\n", "[ "])
_DETAIL = _REFUSING | _JSON
_BEGIN = itemgetter(slice(2))
_MEMO_SIZE = 4096


class TextRules:
    """Checks the texts of records.

    `characters` is the length of the answers of the record that was checked last.
    """

    def __init__(self) -> None:
        self.characters = 0
        self._answers: dict[tuple[type, ...], list[bool]] = {}

    def check(self, record: Record) -> list[Fault]:
        """Return the faults of a record's texts."""
        if isinstance(record, ChatRecord):
            faults, texts = self._check_talk("messages", record.messages)
            return faults + check_all(record, texts) if has_marks(texts) else faults
        self.characters = 0
        faults, texts = [], "\n".join(text for _, text in _texts(record))
        # What the answer to be learned should not be, a rejected one may be.
        if isinstance(record, PreferenceRecord):
            faults, _ = self._check_talk("chosen", record.chosen, record.prompt[-1:])
        elif isinstance(record, RatingRecord) and record.label:
            faults, _ = self._check_talk("completion", record.completion, record.prompt[-1:])
        return faults + check_all(record, texts) if has_marks(texts) else faults

    def _check_talk(
        self, key: str, messages: list[Message], before: Sequence[Message] = ()
    ) -> tuple[list[Fault], str]:
        """Return the faults of the answers, and all texts of the messages."""
        contents: list[Any] = [message.content for message in messages]
        try:
            texts = "\n".join(contents)
        except TypeError:  # chunks, or calls without a content
            contents = [text_of(content) for content in contents]
            texts = "\n".join(contents)
        kinds = tuple(map(type, messages))
        which = self._answers.get(kinds)
        if which is None:
            if len(self._answers) >= _MEMO_SIZE:
                self._answers.clear()
            which = self._answers[kinds] = [kind is AssistantMessage for kind in kinds]
        answers = list(compress(contents, which))
        self.characters = sum(map(len, answers))
        faults: list[Fault] = []
        if has_details(texts, answers):
            for index, message in enumerate(messages):
                if type(message) is AssistantMessage and message.weight != 0:
                    faults += check_answer(f"{key}[{index}].content", contents[index])
        if not texts.isascii() and answers and which[-1]:
            question = messages[-2] if len(messages) > 1 else before[-1] if before else None
            if type(question) is UserMessage:
                text = text_of(question.content)
                if seem_unlike(text, answers[-1]):
                    path = f"{key}[{len(messages) - 1}].content"
                    faults += _check_scripts(path, text, answers[-1])
        return faults, texts


def has_details(texts: str, answers: list[str]) -> bool:
    """Return whether an answer may be what `check_answer` looks for, given all texts together."""
    return "`" in texts or not _DETAIL.isdisjoint(map(_BEGIN, answers))


def has_marks(texts: str) -> bool:
    """Return whether texts may hold what `check_all` looks for: searches for single characters."""
    return (
        "<" in texts
        or "[" in texts
        or "#" in texts
        or ("{" in texts and "{{" in texts)
        or (
            not texts.isascii()
            and ("Ã" in texts or "Â" in texts or _LOST in texts or ("â" in texts and "€" in texts))
        )
    )


def check_all(record: Record, texts: str) -> list[Fault]:
    """Return the faults that any text of a record may have, given all texts together."""
    broken = not texts.isascii() and (_LOST in texts or _MOJIBAKE.search(texts) is not None)
    marked = not isinstance(record, TextRecord) and any(
        pattern.search(texts) for pattern in (_MARKS, _CALL, _PLACEHOLDER)
    )
    faults: list[Fault] = []
    if marked or broken:
        for path, text in _texts(record):
            if marked:
                faults += _check_marks(path, text)
            if broken:
                faults += _check_encoding(path, text)
    return faults


def check_answer(path: str, text: str) -> list[Fault]:
    """Return the faults of a text as an answer to be learned."""
    begin = text[:2]
    if begin in _REFUSING and _REFUSAL.match(text):
        return [Fault("refusal", path, "begins as a language model's refusal does")]
    if begin in _JSON and _is_cut_json(text):
        return [Fault("cut-answer", path, "JSON that ends before it is closed")]
    if "```" in text and "````" not in text and len(_FENCE.findall(text)) % 2:
        return [Fault("cut-answer", path, "a code block that is not closed")]
    return []


def _is_cut_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        return "truncated" in str(error)
    except (RecursionError, UnicodeEncodeError):
        pass
    return False


def _check_scripts(path: str, question: str, answer: str) -> Iterator[Fault]:
    scripts = find_script(question), find_script(answer)
    if None not in scripts and scripts[0] != scripts[1]:
        fact = f"{scripts[1]} letters, after a question in {scripts[0]} ones"
        yield Fault("mixed-scripts", path, fact)


def _check_marks(path: str, text: str) -> Iterator[Fault]:
    if _CALL.search(text):
        yield Fault("call-in-text", path, "a tool call in the text")
    elif _TEMPLATE.search(text) or TEMPLATE_START.match(text) or TEMPLATE_END.search(text):
        yield Fault("template-text", path, "the marks of a chat template")
    if _PLACEHOLDER.search(_CODE.sub("", text)):
        yield Fault("placeholder", path, "a placeholder that was not filled")


def _check_encoding(path: str, text: str) -> Iterator[Fault]:
    if _LOST in text:
        count = text.count(_LOST)
        yield Fault("mojibake", path, f"characters that were lost, as U+FFFD: {count:,}")
    elif _MOJIBAKE.search(text):
        yield Fault("mojibake", path, "UTF-8 that was read as Windows-1252")


def _texts(record: Record) -> Iterator[tuple[str, str]]:
    """Yield path and text of every content of a record."""
    if isinstance(record, TextRecord):
        yield "text", record.text
        return
    if isinstance(record, ClassifierRecord) and record.text is not UNSET:
        yield "text", record.text
    for key in ("messages", "prompt", "chosen", "rejected", "completion"):
        for index, message in enumerate(getattr(record, key, None) or ()):
            content = message.content
            if isinstance(content, str):
                yield f"{key}[{index}].content", content
            elif isinstance(content, list):
                for number, chunk in enumerate(content):
                    if isinstance(chunk, TextChunk):
                        yield f"{key}[{index}].content[{number}].text", chunk.text
