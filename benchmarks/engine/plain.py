"""Plain training: a loop as one writes it by hand, with the same optimizer as every other arm."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, AdamW, Optimizer

from benchmarks.engine.problems import build_batches, build_network
from benchmarks.engine.setting import MOMENTUM, RATES, WEIGHT_DECAY, Setting, Step


def build_base_optimizer(network: nn.Module, setting: Setting) -> Optimizer:
    """Return the base optimizer: fused on the CPU, the default elsewhere."""
    rate = RATES[setting.optimizer]
    fused = True if setting.device == "cpu" else None
    if setting.optimizer == "sgd":
        return SGD(network.parameters(), lr=rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, fused=fused)
    return AdamW(network.parameters(), lr=rate, weight_decay=WEIGHT_DECAY, fused=fused)


def build_plain(setting: Setting) -> Step:
    """Return a function that does one step of plain training."""
    network = build_network(setting)
    optimizer = build_base_optimizer(network, setting)
    batches = build_batches(setting)
    torch.manual_seed(4)

    def step() -> None:
        inputs, labels = batches.draw()
        with setting.autocast():
            loss = cross_entropy(network(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step
