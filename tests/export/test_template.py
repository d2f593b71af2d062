"""Templates say, as text, what mistral-common's tokens say."""

import pytest

from finetune.export.template import Layout, find_layout, write_go, write_jinja
from finetune.records import AssistantMessage, SystemMessage, UserMessage
from finetune.tokens import load_tokenizer
from finetune.tokens.chat_template import ChatTemplate, describe
from tests.tokens.conftest import NAMES, tokenizer_path  # noqa: F401 - a fixture

SYSTEM, FIRST, ANSWER = SystemMessage("Be brief."), UserMessage("Hi"), AssistantMessage("Hello")
CHATS = [
    [FIRST],
    [SYSTEM, FIRST],
    [SYSTEM, FIRST, ANSWER, UserMessage("Why?")],
    [FIRST, ANSWER, UserMessage("Why?")],
]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "v15"])
def test_jinja_says_what_the_tokenizer_says(tokenizer_path, name):  # noqa: F811
    tokenizer = load_tokenizer(tokenizer_path(name))
    source = {"default": write_jinja(find_layout(tokenizer))}
    template = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"}, name=name)
    for chat in CHATS:
        pieces = "".join(tokenizer.pieces(tokenizer.encode_prompt(chat)))
        expected = pieces.replace("▁", " ").replace("<0x0A>", "\n")
        assert template.render(describe(chat), prompt=True) == expected


GO = {
    # Each was run through Go 1.27's text/template on CHATS (2026-11-23): equal to the tokenizer's.
    Layout("own", ""): """\
{{- range $index, $_ := .Messages }}
{{- if eq .Role "system" }}[SYSTEM_PROMPT]{{ .Content }}[/SYSTEM_PROMPT]
{{- else if eq .Role "user" }}[INST]{{ .Content }}[/INST]
{{- else if eq .Role "assistant" }}{{ .Content }}</s>
{{- end }}
{{- end }}""",
    Layout("last", " "): """\
{{- range $index, $_ := .Messages }}
{{- if eq .Role "user" }}[INST] {{ if and $.System (eq (len (slice $.Messages $index)) 1) }}{{ $.System }}

{{ end }}{{ .Content }}[/INST]
{{- else if eq .Role "assistant" }} {{ .Content }}</s>
{{- end }}
{{- end }}""",
    Layout("first", " ", " "): """\
{{- $first := true }}
{{- range $index, $_ := .Messages }}
{{- if eq .Role "user" }} [INST] {{ if and $.System $first }}{{ $.System }}

{{ end }}{{ .Content }} [/INST]
{{- $first = false }}
{{- else if eq .Role "assistant" }} {{ .Content }}</s>
{{- end }}
{{- end }}""",
}


@pytest.mark.parametrize("layout", GO, ids=lambda layout: layout.system)
def test_go_templates(layout):
    assert write_go(layout) == GO[layout]
