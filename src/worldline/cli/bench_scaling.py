"""The estimate that `worldline bench parallel` prints beside what it has measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from worldline.cli.options import BenchParallel
from worldline.core.errors import ConfigError

if TYPE_CHECKING:
    from worldline.bench.scaling import Scaling

OFF = "off"


class StageFile(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of the output of `bench chunk --json`."""

    model: str
    device: str
    width: int
    height: int
    stages: dict[str, float]
    machine: dict[str, str | int | None]

    @property
    def where(self) -> str:
        """The device that was measured, in words."""
        processor = self.machine.get("accelerator") or self.machine.get("processor")
        return f"one {processor}, {self.width}x{self.height}, commit {self.machine.get('commit')}"


def estimates(options: BenchParallel) -> list[Scaling]:
    """Estimates of 1 to 8 devices, none where they are off. Raises: ConfigError."""
    if options.estimate == OFF and options.stages is None:
        return []
    measured = None if options.stages is None else read_stages(options.stages)
    from worldline.bench import scaling_cases
    from worldline.bench.scaling import measured_stages
    from worldline.models.registry import get_preset

    preset = get_preset(options.estimate if measured is None else measured.model)
    if measured is None:
        return scaling_cases.estimates(
            scaling_cases.subject_of(preset, preset.width, preset.height)
        )
    subject = scaling_cases.subject_of(preset, measured.width, measured.height)
    stages = measured_stages(measured.stages, measured.where)
    return scaling_cases.estimates(subject, measured=stages)


def read_stages(path: Path) -> StageFile:
    """Stage times of one device from a file. Raises: ConfigError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=StageFile)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(
            "stage times cannot be read", expected="the output of bench chunk --json", got=error
        ) from None


def draw(path: Path, found: list[Scaling], model: str) -> None:
    """Write the estimates as a picture. Raises: OSError."""
    from worldline.bench.picture import draw as picture
    from worldline.bench.scaling_report import as_panels

    picture(path, f"{model} on several devices", as_panels(found))
