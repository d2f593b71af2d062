"""A conversation with a tuned model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finetune.backends.local.base import check_adapter
from finetune.backends.local.generate import find_context, generate
from finetune.backends.local.model import load_tuned, resolve_model
from finetune.backends.local.vision import check_vision
from finetune.errors import DataError
from finetune.progress import Progress, silent
from finetune.recipe import Recipe
from finetune.records import AssistantMessage, Message, SystemMessage, make_question
from finetune.tokens import load_tokenizer


class Chat:
    """A model that remembers what was said.

    Args:
        recipe: The recipe of a run: it names the base and its numbers.
        tuned: What the run trained: an adapter or a model.
        system: System prompt, put before everything.
        max_new_tokens: Most tokens of an answer.
        progress: Told while the model is built or fetched.

    Raises:
        UsageError: The model or what was trained of it is not there, or they do not belong
            together.
    """

    def __init__(
        self,
        recipe: Recipe,
        tuned: Path,
        *,
        system: str | None = None,
        max_new_tokens: int = 512,
        progress: Progress = silent,
    ) -> None:
        check_adapter(tuned, recipe.model)
        folder = self._folder = resolve_model(recipe.model, progress=progress)
        self.tokenizer = load_tokenizer(folder)
        local = recipe.local
        self._model = load_tuned(folder, tuned, dtype=local.dtype, quantize=local.quantize)
        self._limit = max_new_tokens
        self.messages: list[Message] = [] if system is None else [SystemMessage(content=system)]

    def ask(self, text: str, images: Sequence[str] = ()) -> AssistantMessage:
        """Return the most likely answer; question and answer are remembered.

        Args:
            text: The question.
            images: Data URLs of what is shown with it.

        Raises:
            DataError: The conversation cannot be encoded for this model, or has outgrown it.
            UsageError: The model cannot see.
        """
        if images:
            check_vision(self._folder, self.tokenizer)
        asked = [*self.messages, make_question(text, images)]
        prompt = self.tokenizer.encode_seen(asked)
        context = find_context(self._model)
        if len(prompt.ids) >= context:
            raise DataError(
                f"the conversation has {len(prompt.ids):,} tokens, the model sees {context:,}",
                hint="begin a new one",
            )
        ids = generate(
            self._model,
            [prompt.ids],
            images=[prompt.images],
            eos_id=self.tokenizer.eos_id,
            pad_id=self.tokenizer.pad_id,
            max_new_tokens=self._limit,
        )[0]
        answer = self.tokenizer.parse(ids)
        self.messages = [*asked, answer]
        return answer
