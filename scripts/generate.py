"""Write what is made from the code: the recipe's schema, its reference page, rules, formats.

`python scripts/generate.py` writes; a test holds the files to what this would write.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from finetune.checks import rules_page  # noqa: E402 (the checkout comes first)
from finetune.converters import CONVERTERS, images, responses  # noqa: E402
from finetune.files import to_json, write_atomic  # noqa: E402
from finetune.recipe.explain import recipe_reference, recipe_schema  # noqa: E402
from finetune.server.app import describe_api  # noqa: E402

RULES_HEAD = """# Rules

What `finetune validate` and `finetune prepare` look for. Made from the table of rules by
`python scripts/generate.py`; `finetune explain RULE` shows one. Verdicts differ by target: `--for`
takes `platform` (the default), a tokenizer version, or a model. Errors block, warnings never do.
`finetune validate FILE --fix OUT` writes a copy with the repairs, and says what it did; without
`--fix` it says what it would do. A fix that changes or invents what is trained is made only where
it is named. A recipe's `data.ignore` leaves out the warnings of the rules it names; errors stay.

"""


FORMATS_HEAD = """# Formats

What `finetune convert` and the sources of a recipe can read. Made from the table of converters by
`python scripts/generate.py`. The format is told from the first rows and printed with the reason;
`format:` in a recipe (`--from`) names it. `columns:` (`--columns`) says which column holds a part
where the names of the columns do not; its value may be a template, `"{subject}\\n\\n{body}"`.

"""


def formats_page() -> str:
    """Return a table of all formats, then what each makes of every row it knows."""
    lines = ["| Format | A row | Parts | Records |", "|---|---|---|---|"]
    chapters: dict[str, list[str]] = {}
    for name, converter in CONVERTERS.items():
        parts = ", ".join(f"`{part}`" for part in converter.fields)
        lines.append(f"| `{name}` | {converter.summary} | {parts} | {', '.join(converter.kinds)} |")
        chapters.setdefault(converter.convert.__module__, []).append(f"`{name}`")
    for module, names in chapters.items():
        text = inspect.cleandoc(sys.modules[module].__doc__ or "")
        lines += ["", f"## {', '.join(names)}", "", text]
    for title, shared in (("OpenAI's Responses API", responses), ("Images", images)):
        lines += ["", f"## {title}", "", inspect.cleandoc(shared.__doc__ or "")]
    return FORMATS_HEAD + "\n".join(lines) + "\n"


def generated() -> dict[Path, bytes]:
    """Return every generated file with its content."""
    return {
        ROOT / "data_schemas" / "recipe.schema.json": to_json(recipe_schema(), indent=True),
        ROOT / "data_schemas" / "api.openapi.json": to_json(describe_api(), indent=True),
        ROOT / "docs" / "recipe.md": recipe_reference().encode(),
        ROOT / "docs" / "formats.md": formats_page().encode(),
        ROOT / "docs" / "rules.md": (RULES_HEAD + rules_page()).encode(),
    }


if __name__ == "__main__":
    for path, content in generated().items():
        write_atomic(path, content)
        print(path.relative_to(ROOT))
