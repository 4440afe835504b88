"""Run as a process of its own: a folder and precisions in, what trainings on the pretended card give out."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(folder: Path, *precisions: str) -> None:
    """Train and print."""
    sys.path.append(str(Path(__file__).parents[1]))
    from card_driver import register

    register(accelerator=True)  # before torch is imported
    import pytest
    from card import pretended
    from test_trainer import train

    from mdico_cube.progress import console

    console.quiet = True
    found = {}
    with pytest.MonkeyPatch.context() as patch, pretended(patch):
        for precision in precisions:
            options = {"epochs": 6, "learning_rate": 1e-2, "precision": precision, "accelerator": "gpu"}
            trained = train(folder / precision, "mdico", train=options)
            devices = {value.device.type for value in trained.model.state_dict().values()}
            found[precision] = {"history": trained.history, "devices": sorted(devices)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
