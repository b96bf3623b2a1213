"""Every error a user can meet, in one tree; each class has a stable code.

    WorldlineError
    ├── InputError                  their input; say what was expected and what came
    │   ├── ImageError              start picture unreadable, empty or too large
    │   ├── PromptError             prompt empty or too long
    │   ├── ControlError            unknown action, malformed script, wrong-shaped poses
    │   ├── ShapeError              a stage input of the wrong rank, shape or dtype
    │   ├── ConfigError             settings that cannot work together
    │   ├── SnapshotError           a snapshot, or a place to go back to, that cannot be used
    │   │   ├── DamagedSnapshotError    cut short, changed, or no snapshot at all
    │   │   └── NewerSnapshotError      of a version that is not known here
    │   └── WorldFileError          a world file that cannot be used
    │       ├── DamagedWorldError   cut short, changed, or no world file at all
    │       ├── NewerWorldError     of a version that is not known here
    │       └── OtherWeightsError   made with other weights than those loaded
    ├── ProtocolError               a message that breaks the wire contract
    │   ├── InvalidInitError
    │   └── InvalidEventError
    ├── AccessError                 not let in
    │   ├── UnauthorizedError       no token, or one that opens nothing
    │   ├── ForbiddenError          this page, host name or key may not do that
    │   ├── TooLargeError           the body of a request is too long
    │   └── RateError               too much in too short a time; slow down
    ├── CheckpointError             weights that cannot be read or do not fit
    │   ├── LayoutError             no known layout in that folder
    │   ├── KeysError               missing, unexpected or mis-shaped tensors
    │   └── UnsafeFileError         a pickle that holds more than tensors
    ├── SessionError
    │   ├── SessionMissingError     no such session, or not its next chunk
    │   ├── SessionClosedError
    │   ├── UnknownWorldError       no world of that name or token, or not any more
    │   └── NoControlsError         somebody else holds the controls
    ├── CapacityError               no seat or no memory now; try again
    │   ├── LimitError              this client has its share already
    │   └── DrainingError           the server is about to stop
    ├── LateError                   the other side said nothing in time
    └── WorkerError                 our fault
        ├── WorkerDiedError
        └── GenerationError

`retryable` is true when the same call can succeed later without being changed.
"""

from __future__ import annotations

from typing import ClassVar


class WorldlineError(Exception):
    """Base of all errors; carries what was expected and what came, both optional text."""

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500
    close_code: ClassVar[int] = 1011
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, expected: object | None = None, got: object | None = None
    ) -> None:
        self.message = message
        self.expected = None if expected is None else str(expected)
        self.got = None if got is None else str(got)
        super().__init__(message)

    def __str__(self) -> str:
        parts = [self.message]
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        if self.got is not None:
            parts.append(f"got {self.got}")
        return "; ".join(parts)


class InputError(WorldlineError):
    """A value from outside cannot be used."""

    code = "invalid_input"
    http_status = 400
    close_code = 1008


class ImageError(InputError):
    """The start picture cannot be read, is empty, or is too large."""

    code = "invalid_image"


class PromptError(InputError):
    """The prompt is empty or too long."""

    code = "invalid_prompt"


class ControlError(InputError):
    """An action, script, pose or intrinsic that cannot be used."""

    code = "invalid_control"


class ShapeError(InputError):
    """A stage input has the wrong rank, shape or dtype."""

    code = "invalid_shape"


class ConfigError(InputError):
    """Settings that cannot work together, or an unknown preset."""

    code = "invalid_config"


class SnapshotError(InputError):
    """A snapshot, or a place to go back to, that cannot be used here."""

    code = "invalid_snapshot"


class DamagedSnapshotError(SnapshotError):
    """A snapshot that was cut short or changed, or another kind of file."""

    code = "snapshot_damaged"


class NewerSnapshotError(SnapshotError):
    """A snapshot of a version that is not known here."""

    code = "snapshot_version"


class WorldFileError(InputError):
    """A world file that cannot be used."""

    code = "invalid_world"


class DamagedWorldError(WorldFileError):
    """A world file that was cut short or changed, or another kind of file."""

    code = "world_damaged"


class NewerWorldError(WorldFileError):
    """A world file of a version that is not known here."""

    code = "world_version"


class OtherWeightsError(WorldFileError):
    """A world that was made with other weights than those loaded."""

    code = "world_weights"


class ProtocolError(WorldlineError):
    """A message that breaks the wire contract."""

    code = "protocol_error"
    http_status = 400
    close_code = 1008


class InvalidInitError(ProtocolError):
    """The first message is not a usable `init`."""

    code = "invalid_generate_request"


class InvalidEventError(ProtocolError):
    """An `event` message that cannot be used; the session goes on."""

    code = "invalid_event"


class AccessError(WorldlineError):
    """A door stays shut."""

    code = "access"
    http_status = 403
    close_code = 1008


class UnauthorizedError(AccessError):
    """A token is required and there is none, or it opens nothing."""

    code = "unauthorized"
    http_status = 401


class ForbiddenError(AccessError):
    """This page's origin, this host name or this key may not do that."""

    code = "forbidden"


class TooLargeError(AccessError):
    """The body of a request is longer than this server reads."""

    code = "too_large"
    http_status = 413


class RateError(AccessError):
    """Too many connections, requests or failed tokens in too short a time."""

    code = "rate_limited"
    http_status = 429
    retryable = True


class CheckpointError(WorldlineError):
    """Weights that cannot be read or do not fit the model."""

    code = "checkpoint_error"


class LayoutError(CheckpointError):
    """No known checkpoint layout was found among the files."""

    code = "unknown_layout"


class KeysError(CheckpointError):
    """Missing, unexpected or mis-shaped tensors."""

    code = "checkpoint_keys"


class UnsafeFileError(CheckpointError):
    """A pickle file that holds more than tensors."""

    code = "unsafe_file"


class SessionError(WorldlineError):
    """A session cannot take this call."""

    code = "session_error"
    http_status = 409
    close_code = 1008


class SessionMissingError(SessionError):
    """There is no such session, or the chunk index is not its next one."""

    code = "session_missing"
    http_status = 404


class SessionClosedError(SessionError):
    """The session was closed before this call."""

    code = "session_closed"


class UnknownWorldError(SessionError):
    """There is no world of that name or token, or not any more."""

    code = "unknown_world"
    http_status = 404


class NoControlsError(SessionError):
    """Somebody else holds the controls of this world."""

    code = "no_controls"


class AbortedError(SessionError):
    """A chunk was given up on request; the session stands before it, as if never asked for."""

    code = "aborted"
    retryable = True


class CapacityError(WorldlineError):
    """No seat or no memory now."""

    code = "capacity"
    http_status = 503
    close_code = 1008
    retryable = True


class LimitError(CapacityError):
    """This client has as much as one client may have."""

    code = "client_limit"
    http_status = 429


class DrainingError(CapacityError):
    """The server is about to stop and takes nobody in."""

    code = "draining"


class LateError(WorldlineError):
    """The other side said nothing in time."""

    code = "timed_out"
    http_status = 408
    close_code = 1008
    retryable = True


class WorkerError(WorldlineError):
    """Something went wrong on our side of the engine."""

    code = "worker_error"


class WorkerDiedError(WorkerError):
    """The worker process ended while calls were pending."""

    code = "worker_died"
    http_status = 503
    retryable = True


class GenerationError(WorkerError):
    """A chunk could not be generated."""

    code = "generation_error"


def error_classes() -> dict[str, type[WorldlineError]]:
    """Map every code of this tree to its class, so that an error can cross a process.

    Subclasses that live elsewhere (the SDK's, a recipe's) stay on their own side.
    """
    here = (value for value in globals().values() if isinstance(value, type))
    return {cls.code: cls for cls in here if issubclass(cls, WorldlineError)}
