"""Reasons why a raw row, or a record made of it, is left out; and what `prepare` notes."""

from __future__ import annotations

from finetune.checks.rules.rule import TARGETS, Rule


def _row(name: str, summary: str) -> Rule:
    return Rule(name, summary, kinds=())


def _note(name: str, summary: str) -> Rule:
    """Return a rule on all records together, which `prepare` looks at."""
    return Rule(name, summary, errors=(), warnings=TARGETS, kinds=())


ROWS = (
    _row("empty-file", "a file holds at least one row"),
    _row("truncated", "a file ends where its last row ends, and compressed data are whole"),
    _row("bomb", "compressed data do not expand 200-fold to more than a gigabyte"),
    _row("table", "quotes and line ends of a table follow RFC 4180"),
    _row("ragged-row", "a row of a table has as many cells as the header"),
    _row("duplicate-column", "each column of a table has its own name"),
    _row("archive-member", "an archive holds plain files: no links, no `..`, no encryption"),
    _row("second-list", "a JSON document holds one list of rows, a workbook one sheet"),
    _row("formula", "the formulas of a sheet are saved with their values"),
    _row("tools-text", "declared tools that are a text are JSON"),
    _row("call-text", "a tool call that is a text is JSON"),
    _row("result-without-call", "a tool result follows the call that it answers"),
    _row("no-shared-prompt", "two whole conversations begin with the same turns: their prompt"),
    _row("prompt-differs", "a prompt beside whole conversations is what they begin with"),
    _row("rating-value", "a rating says good or not good"),
    _row("answer-marks", "each of the ranked answers has a number"),
    _row("tied-answers", "of ranked answers, one is better than another"),
    _row("not-reviewed", "a message was not deleted, and its reviewers let it pass"),
    _row("tree-root", "a tree of messages has one first message, and each its own id"),
    _row("not-in-format", "the format to write has a place for all that a record holds"),
    _row("no-conversation", "a row of one message names the conversation it belongs to"),
    _row("no-content", "a row of one message has text or tool calls"),
    _row("no-order", "a row of one message has an order where a column was named for it"),
    _row("order-date", "a date that messages are sorted by begins with the year: YYYY-MM-DD"),
    _row("conversation-too-long", "the rows of one conversation have at most 16 MiB"),
    _row("licence-file", "a file that states a licence is noted, not trained on"),
    _row("vendored-file", "a source file is the project's own, not a copy of another's"),
    _row("binary-file", "a source file is UTF-8 text"),
    _row("file-too-large", "a source file has at most 1 MiB"),
    _row("secret-in-file", "a source file holds no private key or token"),
    _row("not-code", "a source file is in a known programming language"),
    _row("generated-file", "a source file was written by a person, not by a program"),
    _row("minified-file", "a source file has lines that a person reads"),
    _row("results", "the results of several calls can be told apart"),
    _row("no-answer", "a row holds an answer: a reply, or calls"),
    _row("no-request", "a logged answer stands beside the request that it answers"),
    _row("failed-request", "a logged request succeeded"),
    _row("answer-cut", "a logged answer is whole: no limit or filter ended it"),
    _row("streamed", "a logged answer is one message, not the chunks of a stream"),
    _row("image-count", "each image of a row has its place in a user's text, and each place one"),
    _row("image-path", "an image lies in the folder of the data: no `..`, links or other schemes"),
    _row("image-missing", "an image file that is named is there"),
    _row("image-type", "an image is a PNG, JPEG, WebP or GIF, by its bytes"),
    _row("image-too-large", "an image has at most 10 MB, those of a record 16 MiB together"),
    _row("duplicate", "a record stands once: an equal one came before it"),
    _row("held-out", "no training record equals a validation or evaluation record"),
    _row("near-duplicate", "no record nearly equals one that came before it"),
    _row("near-duplicate-of-validation", "no record nearly equals one that is held out"),
    _row("excluded", "no record is about a person on the exclusion list"),
    _row("contaminated", "no record shares a sequence of words with an evaluation file"),
    _row("languages", "a record is in one of the languages that the recipe keeps"),
    _row("min-characters", "a record has as much text as the recipe asks for"),
    _row("max-characters", "a record has no more text than the recipe allows"),
    _row("max-records", "a source gives as many training records as the recipe allows"),
    _row("balance", "a class has as many training records as the smallest"),
    _note("label-not-validated", "each class of the training data is in the validation data"),
    _note("mostly-near-duplicates", "at most half of the training records nearly equal another"),
    _note("crowded", "a record was compared with all that it may nearly equal"),
)
