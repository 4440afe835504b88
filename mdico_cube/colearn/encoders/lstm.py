"""A normalised series of every pixel in, one embedding per pixel out: long short-term memory over what was observed."""

from __future__ import annotations

from torch import nn

from mdico_cube.colearn.encoders.gru import Recurrent


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997) over the observed steps."""

    cells = nn.LSTM
