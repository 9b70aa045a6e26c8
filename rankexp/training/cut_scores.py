"""How an adapter scores when it is cut to fewer directions, without training anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rankexp.lora.peft_reading import load_adapter
from rankexp.lora.squeeze import squeezed
from rankexp.models.loading import head_names
from rankexp.record.scores import Scores
from rankexp.tasks.examples import joined
from rankexp.training.bench import Bench
from rankexp.training.scoring import score

BARE, WHOLE = 0, -1
"""Stand for the model as it is, and for the adapter as it was trained, among ranks."""


def score_cuts(
    bench: Bench, folder: Path, ranks: Sequence[int], say: Callable[[str], None]
) -> Iterator[tuple[int, Scores]]:
    """Score every example of all splits with the adapter whole, then at each rank, then without it.

    Without it only where nothing of the model is new: a head that nobody has trained says nothing.

    Args:
        bench: The base model with the data; it carries the adapter afterwards.
        folder: The adapter.
        ranks: Ranks to cut it to.
        say: Is told what is scored.

    Raises:
        ValueError: The adapter does not fit the model, or cannot be cut.
    """
    collator = bench.collator(joined([bench.data.splits[name] for name in sorted(bench.data.splits)]))
    precision, model = bench.base.dtype, bench.model
    if not head_names(model):
        say(f"scoring {len(collator.examples):,} examples with the model as it is")
        yield BARE, score(model, collator, precision=precision)
    load_adapter(model, folder)
    model.requires_grad_(False).eval()
    say(f"scoring {len(collator.examples):,} examples with the adapter, and cut to {len(ranks)} ranks")
    yield WHOLE, score(model, collator, precision=precision)
    for rank in ranks:
        with squeezed(model, rank):
            yield rank, score(model, collator, precision=precision)
