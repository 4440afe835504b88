"""How far a stage is: in a notebook as one output that is replaced."""

from __future__ import annotations

from typing import Any

import IPython.display
import pytest

from mdico_cube.progress import console, track


def test_a_notebook_shows_one_bar_without_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []

    class Handle:
        def update(self, what: Any) -> None:
            shown.append(what)

    def display(what: Any, display_id: bool) -> Handle:
        assert display_id, "an output that can be replaced"
        shown.append(what)
        return Handle()

    monkeypatch.setattr(IPython.display, "display", display)
    monkeypatch.setattr(console, "is_jupyter", True)
    monkeypatch.setattr(console, "quiet", False)
    assert list(track(range(500), "things", 500)) == list(range(500))
    assert repr(shown[0]).startswith("things: 0/500")
    assert repr(shown[-1]).startswith("things: 500/500")
    assert 'value="500" max="500"' in shown[-1]._repr_html_()
    assert len(shown) < 100, "a quick stage does not flood the page"
