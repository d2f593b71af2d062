"""Write what is made from the code: the recipe's schema and its reference page.

`python scripts/generate.py` writes; a test holds the files to what this would write.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from finetune.files import to_json, write_atomic  # noqa: E402 (the checkout comes first)
from finetune.recipe.explain import recipe_reference, recipe_schema  # noqa: E402


def generated() -> dict[Path, bytes]:
    """Return every generated file with its content."""
    return {
        ROOT / "data_schemas" / "recipe.schema.json": to_json(recipe_schema(), indent=True),
        ROOT / "docs" / "recipe.md": recipe_reference().encode(),
    }


if __name__ == "__main__":
    for path, content in generated().items():
        write_atomic(path, content)
        print(path.relative_to(ROOT))
