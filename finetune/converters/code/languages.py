"""Languages: which one a file is in, and how it writes a comment."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

# Comment → language → its suffixes, whole names, and interpreters in a `#!` line (`!`).
_BY_COMMENT: dict[tuple[str, str], dict[str, str]] = {
    ("# ", ""): {
        "python": ".py .pyi .pyx .pxd !python !pypy",
        "ruby": ".rb .rake .gemspec Gemfile Rakefile Vagrantfile Podfile !ruby",
        "shell": ".sh .bash .zsh .ksh .bats !sh !bash !zsh !ksh !dash",
        "fish": ".fish !fish",
        "perl": ".pl .pm !perl",
        "r": ".r !Rscript",
        "julia": ".jl !julia",
        "elixir": ".ex .exs !elixir",
        "crystal": ".cr",
        "nim": ".nim",
        "tcl": ".tcl !tclsh",
        "awk": ".awk !awk !gawk",
        "powershell": ".ps1 .psm1 !pwsh",
        "make": ".mk Makefile makefile GNUmakefile !make",
        "cmake": ".cmake CMakeLists.txt",
        "docker": ".dockerfile Dockerfile Containerfile",
        "terraform": ".tf .tfvars .hcl",
        "nix": ".nix",
        "starlark": ".bzl .star BUILD BUILD.bazel WORKSPACE",
        "graphql": ".graphql .gql",
        "yaml": ".yml .yaml",
        "toml": ".toml",
        "coffeescript": ".coffee",
    },
    ("// ", ""): {
        "c": ".c .h",
        "c++": ".cc .cpp .cxx .hh .hpp .hxx .ipp .inl",
        "cuda": ".cu .cuh",
        "objective-c": ".m .mm",
        "c#": ".cs .csx",
        "java": ".java",
        "kotlin": ".kt .kts",
        "scala": ".scala .sc",
        "groovy": ".groovy .gradle Jenkinsfile",
        "javascript": ".js .mjs .cjs .jsx !node !deno !bun",
        "typescript": ".ts .mts .cts .tsx",
        "go": ".go",
        "rust": ".rs",
        "swift": ".swift",
        "dart": ".dart",
        "php": ".php !php",
        "zig": ".zig",
        "d": ".d",
        "f#": ".fs .fsi .fsx",
        "solidity": ".sol",
        "verilog": ".v .sv .svh",
        "protobuf": ".proto",
        "shader": ".glsl .hlsl .wgsl .vert .frag",
        "scss": ".scss .less",
    },
    ("-- ", ""): {
        "sql": ".sql",
        "lua": ".lua !lua",
        "haskell": ".hs !runhaskell",
        "elm": ".elm",
        "ada": ".adb .ads",
        "vhdl": ".vhd .vhdl",
        "lean": ".lean",
    },
    ("; ", ""): {
        "lisp": ".lisp .cl .el",
        "scheme": ".scm .rkt",
        "clojure": ".clj .cljs .cljc .edn",
        "assembly": ".asm .s",
    },
    ("% ", ""): {"erlang": ".erl .hrl !escript", "latex": ".tex .sty .bib", "prolog": ".pro"},
    ("! ", ""): {"fortran": ".f90 .f95 .f03 .f08"},
    ('" ', ""): {"vim": ".vim .vimrc"},
    ("' ", ""): {"visual-basic": ".vb .bas"},
    ("REM ", ""): {"batch": ".bat .cmd"},
    ("/* ", " */"): {"css": ".css"},
    ("(* ", " *)"): {"ocaml": ".ml .mli", "pascal": ".pas"},
    ("<!-- ", " -->"): {
        "html": ".html .htm .xhtml",
        "vue": ".vue",
        "svelte": ".svelte",
        "markdown": ".md .markdown",
        "xml": ".xml .xsd .xsl",
    },
    (".. ", ""): {"restructuredtext": ".rst"},
}
_COMMENTS = {name: form for form, found in _BY_COMMENT.items() for name in found}
_KEYS = {
    key: name
    for found in _BY_COMMENT.values()
    for name, keys in found.items()
    for key in keys.split()
}
_SHEBANG = re.compile(r"#!\s*(?:\S*/)?(?:env\s+(?:-\S+\s+)*(?:\S*/)?)?([A-Za-z]+)")


def find_language(path: str, text: str) -> str | None:
    r"""Return the programming language of a file, or None where it is in none that is known.

    Args:
        path: Its name, with `/`; the suffix decides.
        text: Its content; the `#!` line decides where the name does not.

    Example:
        >>> find_language("src/a.PY", ""), find_language("run", "#!/usr/bin/env python3\n")
        ('python', 'python')
    """
    name = PurePosixPath(path).name
    found = _KEYS.get(name) or _KEYS.get(PurePosixPath(name).suffix.lower())
    if found is None and (shebang := _SHEBANG.match(text)):
        found = _KEYS.get(f"!{shebang[1]}")
    return found


def comment(language: str, text: str) -> str | None:
    """Return a line that is a comment, or None where `text` would end it.

    Example:
        >>> comment("css", "a.css"), comment("css", "*/")
        ('/* a.css */', None)
    """
    start, end = _COMMENTS[language]
    if not text.isprintable() or (end and end.strip() in text):
        return None
    return f"{start}{text}{end}"
