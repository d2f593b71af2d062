"""Filling in: does the embedded model complete lines of code better once it was trained for it?

    python benchmarks/fim.py            # a quarter of an hour on two cores

A package of Python's standard library is read where it is installed (PSF licence). Three files in
twenty are kept from training. Of their windows, lines are cut behind a word near their middle, and
what follows up to the end of the line has to come out exactly:

    base          given what stands before, as the base was trained: a plain text that goes on
    tuned         given what stands before and behind, in Mistral's layout
    tuned, plain  given what stands before alone

Exits 1 if the tuned model does not complete more lines than its base.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORD_END = re.compile(r"(?<=\w)\W")
LINES, NEW_TOKENS = 120, 24


def make_recipe(package: str, steps: int):
    from finetune.recipe.tree import Recipe

    tree = Path(sysconfig.get_paths()["stdlib"]) / package
    chunks = {"by": "window", "tokens": 224}
    return Recipe.model_validate(
        {
            "name": "fim",
            "model": "smollm2-135m",
            "method": "pretrain",
            "data": {
                "train": [{"path": str(tree), "format": "code", "chunks": chunks}],
                "validation": 0,
                "too_long": "drop",
                "max_rejected": 1,
            },
            "training": {"steps": steps, "learning_rate": 1e-3, "seq_len": 256, "fim_ratio": 0.9},
            "evaluation": {"data": 0.15},
            "local": {"batch_tokens": 1024, "lora": {"rank": 16, "alpha": 32}},
        }
    )


def cut_lines(texts: list[str]) -> list[tuple[str, str, str]]:
    """Return prefix, rest of the line, and suffix of lines drawn from some texts."""
    draw = random.Random(0)
    cuts = []
    for text in texts:
        lines = text.splitlines(keepends=True)
        number = draw.randrange(3, max(4, len(lines) - 2))
        if number >= len(lines):
            continue
        line = lines[number].rstrip()
        places = [found.start() for found in WORD_END.finditer(line)]
        if not places or len(line.strip()) < 12:
            continue
        place = min(places, key=lambda place: abs(place - len(line) / 2))
        before, after = "".join(lines[:number]), "".join(lines[number + 1 :])
        cuts.append((before + line[:place], line[place:], "\n" + after))
    draw.shuffle(cuts)
    return cuts[:LINES]


def complete(model, tokenizer, prompts: list[list[int]]) -> list[str]:
    from finetune.backends.local.generate import generate

    ids = generate(
        model,
        prompts,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        max_new_tokens=NEW_TOKENS,
    )
    return [tokenizer.decode(answer).partition("\n")[0].rstrip() for answer in ids]


def train(recipe, folder: Path):
    from finetune import pipeline
    from finetune.backends.local import train
    from finetune.runs import Run

    dataset = pipeline.prepare(recipe, folder=folder / "datasets")
    run = Run.create(
        folder / "run",
        recipe,
        identity="fim",
        dataset=dataset.folder,
        dataset_digest=dataset.digest,
    )

    def show(stage: str, done: int, total: int | None = None, **facts: float | str) -> None:
        if stage != "train" or done % 10 == 0:
            print(stage, done, total, *(f"{k} {v}" for k, v in facts.items()), file=sys.stderr)

    train(run, recipe, dataset, progress=show)
    return run, dataset


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", default="asyncio")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--keep", type=Path, help="train here, and go on from what is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        return show(make_recipe(options.package, options.steps), options.keep or Path(scratch))


def show(recipe, folder: Path) -> int:
    from finetune import files, records
    from finetune.backends.local.model import load_adapter, load_model, resolve_model
    from finetune.tokens import load_tokenizer

    run, dataset = train(recipe, folder)
    with open(dataset.evaluation, "rb") as file:
        decode = records.decoder("text").decode
        texts = [decode(line.data).text for line in files.read_lines(file)]
    cuts = cut_lines(texts)
    base = resolve_model(recipe.model)
    tokenizer = load_tokenizer(base)
    plain = [tokenizer.encode_text(prefix).input_ids[:-1] for prefix, _, _ in cuts]
    gaps = [tokenizer.fim_prompt(prefix, suffix) for prefix, _, suffix in cuts]
    model = load_adapter(load_model(base), run.adapter)
    with model.disable_adapter():
        answers = {"base": complete(model, tokenizer, plain)}
    answers["tuned"] = complete(model, tokenizer, gaps)
    answers["tuned, plain"] = complete(model, tokenizer, plain)
    exact = {
        name: sum(answer == middle for answer, (_, middle, _) in zip(found, cuts, strict=True))
        for name, found in answers.items()
    }
    print(
        f"{len(cuts)} lines of {len(texts)} held-out windows; trained {recipe.training.steps} steps"
    )
    for name, count in exact.items():
        print(f"| {name:12} | {count:3} | {count / len(cuts):.1%} |")
    kept = exact["tuned"] > exact["base"]
    print("kept   " if kept else "MISSED", "the tuned model completes more lines than its base")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
