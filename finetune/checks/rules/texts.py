"""Rules on what the texts say."""

from __future__ import annotations

from finetune.checks.rules.rule import KINDS, TALKS, TARGETS, TRAINED, Rule


def _text(
    name: str, summary: str, kinds: tuple[str, ...] = TALKS, fixes: tuple[str, ...] = ()
) -> Rule:
    return Rule(name, summary, errors=(), warnings=TARGETS, kinds=kinds, fixes=fixes)


TEXTS = (
    _text(
        "template-text",
        "no marks of a chat template in a text: they are added when it is encoded",
        fixes=("strip-template",),
    ),
    _text("call-in-text", "a tool call stands in `tool_calls`, not in the text"),
    _text("placeholder", "every placeholder is filled, such as `{{name}}` or `[Your Name]`"),
    _text(
        "mojibake",
        "no text that was decoded with the wrong encoding, or lost characters in it",
        KINDS,
        ("repair-encoding",),
    ),
    _text("mixed-scripts", "an answer is in the script of its question", TRAINED),
    _text("refusal", "an answer is not a language model's stock refusal", TRAINED),
    _text("cut-answer", "an answer closes its code blocks and its JSON", TRAINED),
)
