"""Sequences to vectors: convolution across the assets of one step, then LSTMs across the steps."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class LastStep(nn.Module):
    """(rows, steps, units) -> (rows, units): what the LSTM ends with."""

    def forward(self, values: Tensor) -> Tensor:
        return values[:, -1]


class AttentionPool(nn.Module):
    """(rows, steps, units) -> (rows, units): the steps weighted by softmax(query tanh(key value)). Bahdanau et al. 2015, with a learned query."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.key = nn.Linear(units, units)
        self.query = nn.Linear(units, 1, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        weights = torch.softmax(self.query(torch.tanh(self.key(values))), 1)
        return (weights * values).sum(1)


class CNNLSTMFeatureExtractor(nn.Module):
    """(rows, time_steps, assets, features) -> (rows, output_dim).

    Each step's cross-section is convolved over the assets (kernel 3, the features are the channels); the flattened maps
    of all steps run through stacked LSTMs; the last hidden state, or with `attention` a weighted mean of all, is projected.
    Defaults are the preset `cross_section`.
    """

    def __init__(
        self,
        time_steps: int = 30,
        assets: int = 100,
        features: int = 15,
        cnn_filters: Sequence[int] = (64, 32, 16),
        lstm_units: Sequence[int] = (128, 64),
        dropout_rate: float = 0.2,
        output_dim: int = 64,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.shape = (time_steps, assets, features)
        self.output_dim = output_dim
        channels = [features, *cnn_filters]
        pairs = pairwise(channels)
        self.convolutions = nn.ModuleList(nn.Conv1d(before, after, kernel_size=3, padding=1) for before, after in pairs)
        units = [channels[-1] * assets, *lstm_units]
        steps = pairwise(units)
        self.recurrent = nn.ModuleList(nn.LSTM(before, after, batch_first=True) for before, after in steps)
        self.dropout = nn.Dropout(dropout_rate)
        self.pool = AttentionPool(units[-1]) if attention else LastStep()
        self.output = nn.Linear(units[-1], output_dim)

    def forward(self, sequence: Tensor) -> Tensor:
        rows, (steps, assets, features) = sequence.shape[0], self.shape
        maps = sequence.reshape(rows * steps, assets, features).transpose(1, 2)
        for convolution in self.convolutions:
            maps = functional.relu(convolution(maps))
        values = maps.reshape(rows, steps, -1)
        for lstm in self.recurrent:
            values, _ = lstm(values)
            values = self.dropout(values)
        return functional.relu(self.output(self.pool(values)))


class Unflattened(nn.Module):
    """The extractor for sequences that come as flat rows, as a replay buffer keeps them: (rows, product of shape) -> (rows, output_dim)."""

    def __init__(self, shape: Sequence[int], sequence: CNNLSTMFeatureExtractor) -> None:
        super().__init__()
        self.shape, self.sequence = tuple(shape), sequence

    def forward(self, flat: Tensor) -> Tensor:
        features: Tensor = self.sequence(flat.reshape(len(flat), *self.shape))
        return features
