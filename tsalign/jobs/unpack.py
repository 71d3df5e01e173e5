"""The first thing that a job does: the files that it brought along go into the run's folder, where all nodes see them.

python -m tsalign.jobs.unpack
"""

from __future__ import annotations

import sys
from pathlib import Path

from tsalign.common.errors import TsalignError
from tsalign.common.storage import atomic, resolve
from tsalign.config.loading import read_yaml
from tsalign.jobs.packing import CONFIG
from tsalign.runs.place import INPUTS, check_place


def unpack(folder: Path) -> None:
    """What lies in a job's folder below `inputs` into its run's; what is there already stays: names are hashes.

    Raises:
        TsalignError: the run cannot be there.
    """
    config = read_yaml(folder / CONFIG)
    check_place(config["storage"], config["run"])
    run = resolve(config["storage"]) / config["run"]
    for file in sorted((folder / INPUTS).rglob("*")):
        if file.is_file() and not (target := run / file.relative_to(folder).as_posix()).exists():
            with atomic(target) as temporary:
                temporary.write_bytes(file.read_bytes())


if __name__ == "__main__":
    try:
        unpack(Path.cwd())
    except TsalignError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
