"""Every optimizer and option that an adaptation is offered for."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import optim
from torch.optim import Optimizer

Build = Callable[..., Optimizer]
EPS = 1e-3  # large enough for an adaptive optimizer's first step, nearly sign(g), to have a derivative worth measuring
SHORT = {"eps": EPS, "betas": (0.8, 0.6)}  # a short memory, so that both sides of every maximum occur


def in_groups(kind: Build, first: Mapping[str, Any], second: Mapping[str, Any]) -> Build:
    return lambda params: kind([{"params": params[:3], **first}, {"params": params[3:], **second}])


VARIANTS: dict[str, Build] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "sgd-decay": lambda p: optim.SGD(p, lr=0.1, weight_decay=0.3),
    "sgd-momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "sgd-dampening": lambda p: optim.SGD(p, lr=0.1, momentum=0.8, dampening=0.4),
    "sgd-nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "sgd-foreach": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, foreach=True),
    "sgd-fused": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, fused=True),
    "sgd-tensor-rate": lambda p: optim.SGD(p, lr=torch.tensor(0.1, dtype=torch.float64), momentum=0.9),
    "sgd-groups": in_groups(optim.SGD, {"lr": 0.1}, {"lr": 0.4, "momentum": 0.9, "nesterov": True}),
    "adam": lambda p: optim.Adam(p, lr=0.01, eps=EPS),
    "adam-coupled": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.2, betas=(0.8, 0.95), eps=EPS),
    "adam-decoupled": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.2, decoupled_weight_decay=True, eps=EPS),
    "adam-foreach": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.1, eps=EPS, foreach=True),
    "adam-fused": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.1, eps=EPS, fused=True),
    "adam-tensor-rate": lambda p: optim.Adam(p, lr=torch.tensor(0.01, dtype=torch.float64), eps=EPS),
    "adam-groups": in_groups(optim.Adam, {"lr": 0.1, "weight_decay": 0.1, "eps": EPS}, {"lr": 0.01, **SHORT}),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.2, eps=EPS),
    "adamw-foreach": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.2, eps=EPS, foreach=True),
    "adamw-fused": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.2, eps=EPS, fused=True),
    "amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True, weight_decay=0.1, **SHORT),
    "amsgrad-foreach": lambda p: optim.Adam(p, lr=0.01, amsgrad=True, foreach=True, **SHORT),
    "amsgrad-fused": lambda p: optim.AdamW(p, lr=0.01, amsgrad=True, fused=True, **SHORT),
    "nadam": lambda p: optim.NAdam(p, lr=0.01, eps=EPS),
    "nadam-coupled": lambda p: optim.NAdam(p, lr=0.01, eps=EPS, weight_decay=0.1, momentum_decay=0.5),
    "nadam-decoupled": lambda p: optim.NAdam(p, lr=0.01, weight_decay=0.1, decoupled_weight_decay=True, **SHORT),
    "nadam-foreach": lambda p: optim.NAdam(p, lr=0.01, eps=EPS, foreach=True),
    "radam": lambda p: optim.RAdam(p, lr=0.01, eps=EPS, weight_decay=0.1),
    "radam-decoupled": lambda p: optim.RAdam(p, lr=0.01, eps=EPS, weight_decay=0.1, decoupled_weight_decay=True),
    "radam-foreach": lambda p: optim.RAdam(p, lr=0.01, betas=(0.8, 0.9), eps=EPS, foreach=True),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, eps=EPS),
    "rmsprop-coupled": lambda p: optim.RMSprop(p, lr=0.01, eps=EPS, alpha=0.8, weight_decay=0.1, momentum=0.9),
    "rmsprop-centered": lambda p: optim.RMSprop(p, lr=0.01, eps=EPS, centered=True, momentum=0.5, alpha=0.8),
    "rmsprop-foreach": lambda p: optim.RMSprop(p, lr=0.01, eps=EPS, centered=True, foreach=True),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.1, eps=EPS, lr_decay=0.3, weight_decay=0.1),
    "adagrad-begun": lambda p: optim.Adagrad(p, lr=0.1, initial_accumulator_value=0.2),
    "adagrad-foreach": lambda p: optim.Adagrad(p, lr=0.1, eps=EPS, lr_decay=0.3, foreach=True),
    "adagrad-fused": lambda p: optim.Adagrad(p, lr=0.1, eps=EPS, lr_decay=0.3, fused=True),
    "adamax": lambda p: optim.Adamax(p, lr=0.01, **SHORT),
    "adamax-coupled": lambda p: optim.Adamax(p, lr=0.01, weight_decay=0.1, **SHORT),
    "adamax-foreach": lambda p: optim.Adamax(p, lr=0.01, foreach=True, **SHORT),
    "adadelta": lambda p: optim.Adadelta(p, lr=0.5),
    "adadelta-coupled": lambda p: optim.Adadelta(p, lr=0.5, rho=0.6, eps=EPS, weight_decay=0.1),
    "adadelta-foreach": lambda p: optim.Adadelta(p, lr=0.5, foreach=True),
}
