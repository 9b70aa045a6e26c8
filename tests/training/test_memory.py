"""A trial that does not fit into memory is recorded as failed, and the bench goes on."""

import tiny_bench
import torch


def test_too_little_memory_fails_the_trial_and_not_the_bench(bench, store):
    def exhaust(row):
        torch.empty(2**60, dtype=torch.uint8)  # more than any machine has: torch's own refusal

    spec = tiny_bench.make_spec(bench, "lora", steps=3)
    failed = bench.run(spec, store, exhaust)
    assert failed.result.status == "failed"
    assert failed.result.reason.startswith("out of memory: ")
    assert not failed.adapter.exists()
    assert not store.finished(spec.key)
    again = bench.run(spec, store)
    assert again.result.status == "completed"
    assert again.adapter.is_dir()
