"""GGUF: the merged model in one file, for llama.cpp and what is built on it.

Keys and tensors are those of the `llama` architecture, which llama.cpp computes Mistral's dense
models as. Vocabulary and merges come from the gguf package, which reads Mistral's tokenizer files.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finetune.backends.local.embedded import load_gguf
from finetune.backends.local.merge import MIN_AGREEMENT, Weights
from finetune.backends.local.model import resolve_model
from finetune.backends.local.quiet import quiet
from finetune.errors import UsageError
from finetune.export import native, parity
from finetune.export.card import write_card
from finetune.export.template import Layout, find_layout, write_jinja
from finetune.files import read_json, slug
from finetune.progress import Progress
from finetune.runs import Run
from finetune.text import did_you_mean
from finetune.tokens import Tokenizer, embedded, load_tokenizer

if TYPE_CHECKING:
    import numpy as np
    import torch
    from gguf import GGUFWriter

Numbers = Literal["auto", "f32", "bf16", "f16", "q8_0"]
_MIN_AGREEMENT_8BIT = 0.9  # near ties turn; the divergence is held to the same limit
_OWN = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
# How llama.cpp calls the patterns that cut texts before merging; a file with another is refused,
# since it would be cut otherwise than in training.
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = {_TEKKEN: "tekken", embedded.PATTERN: "smollm"}


def write(
    run: Run, folder: Path, *, numbers: Numbers = "auto", progress: Progress
) -> dict[str, Any]:
    """Write the merged model as GGUF, and compare it, read back by transformers, with the run's.

    `numbers` are those of the matrices: `auto` is the base's own, `q8_0` is 8 bits in blocks of 32.
    """
    import gguf

    if numbers not in ("auto", *_TYPES):
        raise UsageError(
            f"{numbers}: not numbers that are written here",
            hint=did_you_mean(numbers, _TYPES) or f"there is: {', '.join(_TYPES)}",
        )
    base = resolve_model(run.recipe.model, progress=progress)
    config = read_json(base / "config.json")
    native.require_plain(base, config, ("mistral", "llama"), "GGUF as written here")
    own = _OWN.get(config.get("dtype") or config.get("torch_dtype"), "bf16")
    chosen = own if numbers == "auto" else numbers
    path = folder / f"{slug(run.state['name'])}.{chosen}.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(run.state["name"])
    writer.add_file_type(getattr(gguf.LlamaFileType, _TYPES[chosen][1]))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _describe_shape(writer, config)
    _describe_tokenizer(writer, base, config["vocab_size"])
    _add_tensors(writer, Weights(base, run.tuned), config, chosen, progress)
    _save(writer, path)
    facts = parity.compare_with_run(
        run,
        base,
        folder,
        load=lambda _, dtype: load_gguf(path, dtype),
        min_agreement=_MIN_AGREEMENT_8BIT if chosen == "q8_0" else MIN_AGREEMENT,
        progress=progress,
    )
    write_card(run, folder, f"merged, as GGUF in {chosen}", facts)
    return {**facts, "numbers": chosen, "file": path.name}


_TYPES = {
    "f32": ("F32", "ALL_F32"),
    "bf16": ("BF16", "MOSTLY_BF16"),
    "f16": ("F16", "MOSTLY_F16"),
    "q8_0": ("Q8_0", "MOSTLY_Q8_0"),
}


def _describe_shape(writer: GGUFWriter, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    rope = config.get("rope_parameters") or config
    context = config["max_position_embeddings"]
    # The architecture knows no windows: within one window it computes what the model computes.
    writer.add_context_length(min(context, config.get("sliding_window") or context))
    writer.add_vocab_size(config["vocab_size"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(rope.get("rope_theta", 10000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _describe_tokenizer(writer: GGUFWriter, base: Path, rows: int) -> None:
    """Write the vocabulary, padded to the rows of the embedding, and the chat template."""
    import gguf

    tokenizer = load_tokenizer(base)
    with tempfile.TemporaryDirectory() as place:
        file = native.copy_tokenizer(base, Path(place))
        if file.name == "tokenizer.model":  # mistral-common reads the version in the name
            shutil.move(file, file.with_name(f"tokenizer.model.{tokenizer.version}"))
        with quiet():
            vocab = gguf.MistralVocab(Path(place))
        tekken = file.suffix == ".json"
        pattern = read_json(file)["config"]["pattern"] if tekken else None
    writer.add_tokenizer_model(vocab.gguf_tokenizer_model)
    if tekken:
        if pattern not in _PATTERNS:
            raise UsageError(f"{base / file.name}: llama.cpp has no name for how it cuts texts")
        writer.add_tokenizer_pre(_PATTERNS[pattern])
        writer.add_token_merges(vocab.extract_vocab_merges_from_model())
    else:
        writer.add_tokenizer_pre("default")
        writer.add_add_space_prefix(value=False)  # the template writes the spaces
    tokens = [(text, score, kind) for text, score, kind in vocab.all_tokens()]
    if len(tokens) > rows:
        raise UsageError(f"{base}: {len(tokens):,} tokens for {rows:,} rows of the embedding")
    unused = gguf.TokenType.UNUSED
    tokens += [(f"[PAD{index}]".encode(), 0.0, unused) for index in range(len(tokens), rows)]
    texts, scores, kinds = zip(*tokens, strict=True)
    writer.add_token_list(list(texts))
    writer.add_token_scores([float(score) for score in scores])
    writer.add_token_types(list(kinds))
    writer.add_bos_token_id(vocab.bos_id)
    writer.add_eos_token_id(vocab.eos_id)
    writer.add_unk_token_id(vocab.unk_id)
    writer.add_pad_token_id(vocab.pad_id)
    writer.add_add_bos_token(value=True)
    writer.add_add_eos_token(value=False)
    template = read_template(base, tokenizer)
    if template:
        writer.add_chat_template(template)


def read_template(base: Path, tokenizer: Tokenizer) -> str | None:
    """Return the model's own chat template, else that of its tokenizer's version, else None."""
    own = base / "chat_template.jinja"
    if own.is_file():
        return own.read_text(encoding="utf-8")
    path = base / "tokenizer_config.json"
    template = read_json(path).get("chat_template") if path.is_file() else None
    layout: Layout | None = find_layout(tokenizer)
    return template if isinstance(template, str) else write_jinja(layout) if layout else None


def _add_tensors(
    writer: GGUFWriter, weights: Weights, config: dict[str, Any], chosen: str, progress: Progress
) -> None:
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = config["num_attention_heads"]
    params = {"n_heads": heads, "n_kv_heads": config.get("num_key_value_heads") or heads}
    kind = gguf.GGMLQuantizationType[_TYPES[chosen][0]]
    for number, name in enumerate(sorted(weights.shards)):
        progress("convert", number, len(weights.shards))
        module = name.removesuffix(".weight")
        place = names.get_name(module)
        if place is None:
            raise UsageError(f"`{name}`: GGUF has no place for it in this architecture")
        if module == "lm_head" and config.get("tie_word_embeddings"):
            continue  # a copy of the embedding
        rows = native.interleave(weights.read(name).float(), module, params)
        if rows.ndim == 1:
            writer.add_tensor(f"{place}.weight", rows.numpy())
        else:
            data = _quantize(rows, kind, name)
            writer.add_tensor(f"{place}.weight", data, raw_dtype=kind)


def _save(writer: GGUFWriter, path: Path) -> None:
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    except OSError as error:
        if error.errno is not None:
            raise
        # numpy says only how much of an array it could write.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
    finally:
        writer.close()


def _quantize(rows: torch.Tensor, kind: Any, name: str) -> np.ndarray[Any, Any]:
    import gguf

    if kind == gguf.GGMLQuantizationType.F16 and rows.abs().max().item() > 65504:
        raise UsageError(f"`{name}`: holds numbers too large for f16", hint="write bf16")
    if kind == gguf.GGMLQuantizationType.Q8_0 and rows.shape[-1] % 32:
        raise UsageError(
            f"`{name}`: q8_0 has blocks of 32, it has rows of {rows.shape[-1]}", hint="write bf16"
        )
    data: np.ndarray[Any, Any] = gguf.quants.quantize(rows.contiguous().numpy(), kind)
    return data
