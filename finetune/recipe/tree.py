"""The recipe as a typed tree: every setting, its default and one sentence about it.

The sentences under the fields are the only place where a setting is described: the JSON Schema,
the reference page and `finetune explain` are made from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, PrivateAttr, model_validator

from finetune.methods import METHODS

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Section(BaseModel):
    """A part of a recipe: frozen, unknown keys refused, defaults checked."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )


class Provenance(Section):
    """Where personal data come from and why they may be used; copied into the manifest."""

    purpose: str | None = None
    """What the data are used for."""
    lawful_basis: (
        Literal[
            "consent",
            "contract",
            "legal-obligation",
            "vital-interests",
            "public-task",
            "legitimate-interests",
        ]
        | None
    ) = None
    """The lawful basis of the processing (article 6 of the GDPR)."""
    source: str | None = None
    """Where the data were collected, and from whom."""
    retention: str | None = None
    """How long the data are kept, such as `until 2027-12-31`."""


class Chunks(Section):
    """How documents are cut into records."""

    by: Literal["document", "paragraph", "window"] = "document"
    """A record is a whole document, a paragraph, or a window of so many tokens."""
    tokens: Annotated[int, Field(ge=16)] = 2048
    """The longest window, in tokens of the recipe's model, those of beginning and end included."""
    overlap: Annotated[int, Field(ge=0)] = 0
    """Most tokens that a window shares with the one before it; less than half of `tokens`."""


class Source(Section):
    """One corpus: where it lies and how its rows become records."""

    path: Path
    """File, folder, archive or glob of the corpus, relative to the recipe; or `hub:ID` for a \
dataset of the Hugging Face hub."""
    split: str | None = None
    """The split of a Hugging Face dataset (all of them where absent)."""
    format: str | None = None
    """Name of the converter; detected from the content when absent."""
    columns: dict[str, str] = {}
    """Which column holds what, such as `{user: question, assistant: answer}`; a value may be a \
template of several, such as `"{subject}\\n\\n{body}"`."""
    roles: dict[str, Literal["system", "user", "assistant", "tool"]] = {}
    """What the corpus calls its roles, such as `{agent: assistant, customer: user}`."""
    system: str | None = None
    """System prompt put before every record of this source that has none."""
    chunks: Chunks = Chunks()
    """How documents are cut into records."""
    weight: Positive = 1.0
    """How often a record of this source is seen relative to one of weight 1."""
    max_records: PositiveInt | None = None
    """Most training records taken from this source: those of the lowest hash."""
    group: str | None = None
    """Column whose value keeps rows together on one side of the split, such as a customer id."""
    known: list[str] = []
    """Columns with personal data, whose values are replaced wherever their row or conversation \
repeats them."""
    provenance: Provenance = Provenance()
    """Where personal data come from and why they may be used; copied into the manifest."""


class Clean(Section):
    """What is repaired and removed on the way to a dataset."""

    fix: list[str] = []
    """Repairs made on records that need them, by name (`finetune explain FIX`)."""
    deduplicate: Literal["exact", "near", "off"] = "exact"
    """Remove records that equal an earlier one, also those nearly equal, or keep them all."""
    near: Annotated[float, Field(gt=0.5, le=1)] = 0.8
    """Share of common word sequences from which two records are nearly equal (Jaccard)."""
    decontaminate: list[Path] = []
    """Evaluation files: training records that share a sequence of words with one are removed."""
    languages: list[str] = []
    """Languages that are kept (ISO 639-1), all where empty."""
    min_characters: PositiveInt | None = None
    """Records with less text are removed."""
    max_characters: PositiveInt | None = None
    """Records with more text are removed."""
    balance: Literal["off", "downsample"] = "off"
    """Cut the larger classes of a classifier down to the smallest."""


class Data(Section):
    """Sources, and what may happen to them on the way to a dataset."""

    train: Annotated[list[Source], Field(min_length=1)]
    """The sources to train on."""
    validation: Share | list[Source] = 0.05
    """The share of records kept for validation, or the sources that are the validation data."""
    clean: Clean = Clean()
    """What is repaired and removed on the way to a dataset."""
    privacy: Literal["off", "report", "mask", "pseudonymize"] = "off"
    """Personal data in records: not looked for, counted, masked, or replaced by invented ones."""
    max_rejected: Share = 0.0
    """The share of rows that may be rejected before the run stops."""
    too_long: Literal["error", "drop", "truncate-history"] = "error"
    """What happens to a sample longer than `training.seq_len`."""
    ignore: list[str] = []
    """Names of rules whose warnings are not reported."""


class ClassifierTarget(Section):
    """One thing that a classifier tells of a text: one of some labels, or any of them."""

    name: Annotated[str, Field(min_length=1)]
    """The key in the records' `labels`."""
    labels: list[Annotated[str, Field(min_length=1)]] = []
    """Its labels (those of the data where empty)."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """How much its loss counts beside those of other targets."""
    loss_function: Literal["single_class", "multi_class"] | None = None
    """One label a record, or any number of them (as in the data where absent)."""


class Training(Section):
    """What both backends understand, with La Plateforme's names and defaults."""

    epochs: Positive | None = None
    """Passes over the training data (3 where neither this nor `steps` is given)."""
    steps: PositiveInt | None = None
    """Optimizer steps, instead of `epochs`."""
    learning_rate: Annotated[float, Field(ge=1e-8, le=1)] = 1e-4
    """Peak learning rate: linear warm-up, then cosine decay to zero (1e-5 where absent for `dpo` \
and `kto`)."""
    warmup_fraction: Share = 0.05
    """Share of the steps in which the learning rate rises."""
    weight_decay: Share = 0.1
    """Weight decay of AdamW."""
    fim_ratio: Share = 0.0
    """Share of the documents that are trained as a middle to fill in, cut anew each epoch."""
    seq_len: Annotated[int, Field(ge=100)] = 4096
    """The longest sample, in tokens."""
    classifier_targets: list[ClassifierTarget] = []
    """What a classifier tells of a text (the targets of the data where empty)."""


class Judge(Section):
    """Another model that compares the answers of base and tuned."""

    url: str
    """Address of an OpenAI-compatible service, such as `https://api.mistral.ai/v1`."""
    model: str
    """The judge's name there."""
    criteria: str | None = None
    """What makes an answer better, in words (doing what is asked, correctly, where absent)."""
    limit: PositiveInt = 50
    """Most records that are judged; each takes two requests."""
    timeout: Positive = 60.0
    """Seconds that one request may take."""


class Evaluation(Section):
    """What is measured at the end of a run, on records that training never sees."""

    measure: bool = True
    """Measure base and tuned model at the end of a run; what is held out stays held out."""
    data: Share = 0.0
    """Share of the records kept from training and validation; 0 measures on the validation data."""
    max_new_tokens: PositiveInt = 512
    """The longest answer that is generated for a measure."""
    limit: PositiveInt | None = 200
    """Most records that answers are generated for; the loss is measured on all."""
    forgetting: bool = True
    """Measure the loss on general questions too, which rises where the model forgets."""
    judge: Judge | None = None
    """Another model that compares the answers of base and tuned; none where absent."""


class Lora(Section):
    """Low-rank adaptation."""

    rank: PositiveInt = 16
    """Rank of the adapter matrices."""
    alpha: Positive = 32
    """Scale of the adapter: its output is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the adapter's input."""
    targets: Literal["auto"] | Annotated[list[str], Field(min_length=1)] = "auto"
    """Modules that get an adapter: `auto` is the seven linears of the language model."""
    rslora: bool = False
    """Divide by the square root of the rank instead of the rank, which steadies high ranks."""
    dora: bool = False
    """Train the length of each row of a weight beside its direction (DoRA)."""
    experts: bool = False
    """Adapt the experts of a mixture too, with the loss that keeps all of them in use."""


class Launch(Section):
    """Processes that train one model together, started by `accelerate launch`."""

    processes: PositiveInt = 1
    """Processes on each machine: one a GPU, or so many that share the cores."""
    nodes: PositiveInt = 1
    """Machines; `finetune run` is called on each, with the same run folder."""
    strategy: Literal["ddp", "fsdp", "deepspeed"] = "ddp"
    """What is split: only the work, the model being whole in each process (`ddp`), the weights \
too (`fsdp`: FSDP2), or the optimizer's state (`deepspeed`: ZeRO 2)."""


class Local(Section):
    """What only the local backend understands."""

    lora: Lora = Lora()
    """Low-rank adaptation."""
    full: bool = False
    """Train all weights of the language model instead of an adapter, at 16 bytes a weight."""
    quantize: Literal["none", "4bit", "8bit"] = "none"
    """Hold the frozen base in 4 bits (QLoRA) or 8 bits."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Numbers of the frozen base: `auto` is bfloat16 where the hardware multiplies faster in it, \
else float32."""
    batch_tokens: PositiveInt = 16384
    """Tokens of one optimizer step."""
    micro_batch_tokens: PositiveInt | None = None
    """Tokens computed at once; the rest of a step is accumulated (all where memory allows)."""
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Recompute activations to save memory: `auto` does it only when the estimate needs it."""
    max_grad_norm: Positive = 1.0
    """Gradients are clipped to this norm."""
    spike_factor: Positive | None = 10.0
    """A step is skipped, and counted, whose gradient norm is above so many times `max_grad_norm` \
and so many times the median of the last 100 steps; five in a row end the run."""
    best_by: str | None = None
    """Publish the checkpoint that is best by this figure of the validation, such as \
`validation_loss`, instead of the last one."""
    early_stopping: PositiveInt | None = None
    """Stop after so many validations in a row that were no better, by `best_by` or else the loss, \
and publish the best checkpoint."""
    beta: Positive = 0.1
    """How strongly `dpo` and `kto` hold to the model as it was: the lower, the further it moves."""
    save_every: PositiveInt | None = None
    """Steps between two checkpoints (a tenth of the run where absent)."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """Committed checkpoints kept on disk."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """CPU threads of each process (all cores, shared among the processes, where absent)."""
    launch: Launch = Launch()
    """Processes that train one model together, started by `accelerate launch`."""


class Wandb(Section):
    """A project of Weights & Biases that the service writes to; the key is WANDB_API_KEY."""

    type: Literal["wandb"] = "wandb"
    """The only kind that the service knows."""
    project: str
    """The project's name."""
    name: str | None = None
    """The run's name there."""
    run_name: str | None = None
    """Another name of the run there; the service takes both."""


class Repository(Section):
    """A repository of GitHub that the service trains on; the token is GITHUB_TOKEN."""

    type: Literal["github"] = "github"
    """The only kind that the service knows."""
    owner: str
    """Whose it is."""
    name: str
    """The repository's name."""
    ref: str | None = None
    """Branch, tag or commit."""
    weight: Positive = 1.0
    """How often a file of it is seen relative to one of weight 1."""


class Platform(Section):
    """What only La Plateforme understands."""

    host: str = "api.mistral.ai"
    """Where the service is: a host, an address such as `http://127.0.0.1:8000`, or `embedded` for \
a server of this tool's own that ends with the run."""
    model: str | None = None
    """The model's name there (where absent: La Plateforme's for `model` as the catalog has it; on \
a server of one's own the catalog's, or the end of the path)."""
    suffix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,11}$")] | None = None
    """Part of the tuned model's name, at most 11 characters."""
    max_cost: Annotated[str, Field(pattern=r"^\d+(\.\d+)? (EUR|USD)$")] | None = None
    """The run stops before it spends more than this, such as `20 EUR`."""
    invalid_sample_skip_percentage: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of invalid samples that the service leaves out before it fails: a fraction, despite \
its name (0.5 on a server of one's own where `data.too_long` is `drop`)."""
    integrations: list[Wandb] = []
    """Projects of Weights & Biases that the service writes to."""
    repositories: list[Repository] = []
    """Repositories of GitHub that the service trains on beside the data."""
    keep_files: bool = False
    """Leave the uploaded files at the service after the job has succeeded."""


class Egress(Section):
    """What may leave this machine: uploads, judges, trackers, hub."""

    personal_data: Literal["none", "masked", "any"] = "none"
    """Which personal data may leave: none, only masked ones, any."""
    hosts: list[str] | None = None
    """Hosts that records may go to, and no others (those that the recipe names where absent)."""


class Recipe(Section):
    """One run, described: what is trained on what, how and where."""

    name: Name = "run"
    """Name of the run; the recipe's file name where absent."""
    model: str
    """Model to tune: a catalog name, a hub id or a local path."""
    method: str = "sft"
    """How it is trained; `finetune explain method` lists the methods."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of everything random."""
    data: Data
    """Sources, and what may happen to them on the way to a dataset."""
    training: Training = Training()
    """What both backends understand, with La Plateforme's names and defaults."""
    evaluation: Evaluation = Evaluation()
    """What is measured at the end of a run, on records that training never sees."""
    backend: Literal["local", "platform"] = "local"
    """Where it is trained: on this machine, or on La Plateforme."""
    local: Local = Local()
    """What only the local backend understands."""
    platform: Platform = Platform()
    """What only La Plateforme understands."""
    egress: Egress = Egress()
    """What may leave this machine: uploads, judges, trackers, hub."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """Fill in the method's own learning rate, where a recipe has none."""
        if not isinstance(values, dict) or not isinstance(values.get("method"), str):
            return values
        training, method = values.get("training", {}), METHODS.get(values["method"])
        if method is None or not isinstance(training, dict):
            return values
        return values | {"training": {"learning_rate": method.learning_rate} | training}

    _file: Path | None = PrivateAttr(default=None)
    _origins: list[tuple[str, Any, str]] = PrivateAttr(default_factory=list)

    @property
    def file(self) -> Path | None:
        """The recipe's own file, None where it was built in Python."""
        return self._file

    @property
    def origins(self) -> list[tuple[str, Any, str]]:
        """Every value as (dotted key, value as written, where it came from)."""
        return self._origins

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        return self.model_dump(mode="json")
