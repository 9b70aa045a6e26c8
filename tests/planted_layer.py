"""One layer whose true update has rank 8, and adapters that are trained on it, many in one pack."""

from __future__ import annotations

import copy

import torch
from torch import nn

from rankexp.lora.inject import new_layers
from rankexp.lora.pack import Adapter, Pack

RANKS, TRUE_RANK = (2, 4, 8, 16), 8
WIDTH, TRAIN, TUNE, DECIDE, STEPS, NOISE = 24, 512, 200, 1000, 150, 0.5
ALPHA = 8.0


class Planted:
    """Inputs and noisy outputs of a layer that was moved along eight directions, in three splits."""

    def __init__(self, seed):
        draw = torch.Generator().manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False)).requires_grad_(False)
        left, right = (torch.linalg.qr(torch.randn(WIDTH, TRUE_RANK, generator=draw))[0] for _ in range(2))
        truth = copy.deepcopy(self.model[0])
        truth.weight += left @ right.T
        self.splits = {}
        for name, count in {"train": TRAIN, "tune": TUNE, "decide": DECIDE}.items():
            x = torch.randn(count, WIDTH, generator=draw)
            self.splits[name] = x, truth(x) + NOISE * torch.randn(count, WIDTH, generator=draw)

    def losses(self, runs, split, steps=STEPS):
        """Train runs (rank, rate, seed) in one pack and return each example's loss, shape (runs, examples)."""
        adapters = [Adapter(new_layers(self.model, {"0": rank}, alpha=ALPHA, seed=seed), {}) for rank, _, seed in runs]
        groups = [
            {"params": adapter.parameters(), "lr": rate} for adapter, (_, rate, _) in zip(adapters, runs, strict=True)
        ]
        optimizer, pack = torch.optim.AdamW(groups, weight_decay=0.0), Pack(self.model)
        x, y = self.splits["train"]
        orders = [torch.randperm(TRAIN, generator=torch.Generator().manual_seed(seed)) for _, _, seed in runs]
        with pack.holding(*adapters) as model:
            for step in range(steps):
                index = torch.cat([order.roll(-step * 64)[:64] for order in orders])
                model(x[index]).sub(y[index]).square().mean(dim=1).view(len(runs), -1).mean(dim=1).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
                for group, (_, rate, _) in zip(optimizer.param_groups, runs, strict=True):
                    group["lr"] = rate * (1 - (step + 1) / steps)
            x, y = (part.repeat(len(runs), 1) for part in self.splits[split])
            with torch.no_grad():
                return model(x).sub(y).square().mean(dim=1).view(len(runs), -1).double().numpy()
