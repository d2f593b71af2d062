"""Write what is made from the code: the recipe's schema, its reference page, the rules.

`python scripts/generate.py` writes; a test holds the files to what this would write.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from finetune.checks import rules_table  # noqa: E402 (the checkout comes first)
from finetune.files import to_json, write_atomic  # noqa: E402
from finetune.recipe.explain import recipe_reference, recipe_schema  # noqa: E402

RULES_HEAD = """# Rules

What `finetune validate` and `finetune prepare` look for. Made from the table of rules by
`python scripts/generate.py`; `finetune explain RULE` shows one. Verdicts differ by target: `--for`
takes `platform` (the default), a tokenizer version, or a model. Errors block, warnings never do.
`finetune validate FILE --fix OUT` writes a copy with the named repairs, and says what it did.

"""


def generated() -> dict[Path, bytes]:
    """Return every generated file with its content."""
    return {
        ROOT / "data_schemas" / "recipe.schema.json": to_json(recipe_schema(), indent=True),
        ROOT / "docs" / "recipe.md": recipe_reference().encode(),
        ROOT / "docs" / "rules.md": (RULES_HEAD + rules_table()).encode(),
    }


if __name__ == "__main__":
    for path, content in generated().items():
        write_atomic(path, content)
        print(path.relative_to(ROOT))
