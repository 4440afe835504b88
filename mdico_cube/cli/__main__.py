"""`python -m mdico_cube.cli` is `mdico`."""

from __future__ import annotations

from mdico_cube.cli.commands import main

if __name__ == "__main__":
    main()
