"""Every command of `worldline`, and the options each has."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import subcommand

from worldline.cli.options import Bench, Doctor, Generate, Models, Play, Serve
from worldline.cli.options_saved import Export, Replay

Command = (
    Annotated[Play, subcommand("play")]
    | Annotated[Serve, subcommand("serve")]
    | Annotated[Generate, subcommand("generate")]
    | Annotated[Replay, subcommand("replay")]
    | Annotated[Export, subcommand("export")]
    | Annotated[Bench, subcommand("bench")]
    | Annotated[Models, subcommand("models")]
    | Annotated[Doctor, subcommand("doctor")]
)
