"""Text encoding for pretrained networks: token ids by the network's own tokenizer, made once."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worker.data.arrays import Array, ArrayFolder, take_batches
from worker.data.examples import AbstractEncoder, InputShape, Part, RaggedExamples

MAX_TOKENS = 128


class TokenEncoder(AbstractEncoder):
    """Encodes texts as token ids, cut to `max_tokens`; the mask of attention marks what is no padding."""

    def __init__(self, tokenizer: Any, max_tokens: int = MAX_TOKENS) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = min(max_tokens, int(tokenizer.model_max_length))
        self.shape = InputShape("tokens", (len(tokenizer),))
        self.notes = [f"texts are read up to their first {self._max_tokens} tokens"]

    def encode(self, part: Part, num_classes: int, folder: ArrayFolder) -> RaggedExamples:
        """Encode texts into token ids and the mask of attention."""
        lengths: list[NDArray[np.int64]] = []
        ids_name, mask_name = f"{part.name}-tokens", f"{part.name}-mask"
        written = folder.write_all(
            {ids_name: (np.int32, ()), mask_name: (np.int8, ())},
            self._encode_batches(part, ids_name, mask_name, lengths),
        )
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(lengths))])
        columns = {"input_ids": (written[ids_name], torch.int64), "attention_mask": (written[mask_name], torch.int64)}
        return RaggedExamples(columns, offsets, part.labels, num_classes, as_mapping=True)

    def _encode_batches(
        self, part: Part, ids_name: str, mask_name: str, lengths: list[NDArray[np.int64]]
    ) -> Iterator[dict[str, Array]]:
        for batch in take_batches(part.table, part.rows):
            texts = [text or "" for text in batch.column(0).to_pylist()]
            ids = self._tokenizer(texts, truncation=True, max_length=self._max_tokens)["input_ids"]
            lengths.append(np.array([len(row) for row in ids], dtype=np.int64))
            flat = np.concatenate([np.asarray(row, dtype=np.int32) for row in ids])
            yield {ids_name: flat, mask_name: np.ones(len(flat), dtype=np.int8)}
