"""Templates of conversations for tools that render text: as Mistral's tokenizers lay them out.

They hold system prompts, questions and answers. Tools are left out: mistral-common writes them as
JSON in a form of its own, which a template language does not reproduce token for token.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from finetune.tokens import Tokenizer


class Layout(NamedTuple):
    """How a version lays out a conversation.

    Attributes:
        system: Where the system prompt stands: in control tokens of its own where it was said, or
            before the text of the first or the last question.
        space: What stands before each text: SentencePiece sees it, tekken does not have it.
        outside: What stands around a question's marks: a space where they are plain text (v1).
    """

    system: Literal["own", "first", "last"]
    space: str
    outside: str = ""


_SYSTEM: dict[str, Literal["own", "first", "last"]] = {
    "v1": "first",
    "v2": "last",
    "v3": "last",
    "v7": "own",
    "v11": "own",
    "v13": "own",
}


def find_layout(tokenizer: Tokenizer) -> Layout | None:
    """Return the layout of a tokenizer's version, None where no template can express it.

    v15 writes the settings of the model into the conversation, which templates are not told.
    """
    if tokenizer.version not in _SYSTEM:
        return None
    sentencepiece = "▁" in "".join(tokenizer.pieces(tokenizer.text_ids("a b")))
    space = " " if sentencepiece else ""
    outside = " " if tokenizer.version == "v1" else ""
    return Layout(_SYSTEM[tokenizer.version], space, outside)


def write_jinja(layout: Layout) -> str:
    """Return the layout as a chat template of transformers and llama.cpp."""
    before, after = f"{layout.outside}[INST]{layout.space}", f"{layout.outside}[/INST]"
    own = layout.system == "own"
    system = f"[SYSTEM_PROMPT]{layout.space}{{{{ message.content }}}}[/SYSTEM_PROMPT]"
    place = "loop.index0 == place.index"
    prompt = "" if own else f"{{% if {place} %}}{{{{ place.system }}}}{{% endif %}}"
    wanted = " and place.index < 0" if layout.system == "first" else ""
    look = (
        "{% set place = namespace(index=-1, system='') %}{% for message in messages %}"
        "{% if message.role == 'system' %}{% set place.system = message.content + '\\n\\n' %}"
        f"{{% elif message.role == 'user'{wanted} %}}{{% set place.index = loop.index0 %}}"
        "{% endif %}{% endfor %}"
    )
    return "".join(
        [
            "{% if tools %}{{ raise_exception('there is no place for tools') }}{% endif %}",
            "" if own else look,
            "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}",
            system if own else "",
            f"{{% elif message.role == 'user' %}}{before}{prompt}{{{{ message.content }}}}{after}",
            "{% elif message.role == 'assistant' %}",
            f"{layout.space}{{{{ message.content }}}}{{{{ eos_token }}}}",
            "{% else %}{{ raise_exception('there is no place for this role') }}",
            "{% endif %}{% endfor %}",
        ]
    )


def write_go(layout: Layout) -> str:
    """Return the layout as the `TEMPLATE` of an Ollama Modelfile (Go's text/template)."""
    before, after = f"{layout.outside}[INST]{layout.space}", f"{layout.outside}[/INST]"
    system = f"[SYSTEM_PROMPT]{layout.space}{{{{ .Content }}}}[/SYSTEM_PROMPT]"
    test = {
        "own": "",
        "first": "and $.System $first",
        "last": "and $.System (eq (len (slice $.Messages $index)) 1)",
    }[layout.system]
    prompt = f"{{{{ if {test} }}}}{{{{ $.System }}}}\n\n{{{{ end }}}}" if test else ""
    asked = f'if eq .Role "user" }}}}{before}{prompt}{{{{ .Content }}}}{after}'
    lines = [
        *(["{{- $first := true }}"] if layout.system == "first" else []),
        "{{- range $index, $_ := .Messages }}",
        *([f'{{{{- if eq .Role "system" }}}}{system}'] if layout.system == "own" else []),
        f"{{{{- {'else ' if layout.system == 'own' else ''}{asked}",
        *(["{{- $first = false }}"] if layout.system == "first" else []),
        f'{{{{- else if eq .Role "assistant" }}}}{layout.space}{{{{ .Content }}}}</s>',
        "{{- end }}",
        "{{- end }}",
    ]
    return "\n".join(lines)
