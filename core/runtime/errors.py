"""What can go wrong, and the exit code each kind ends with.

``core`` raises these; only the command line turns them into one line on stderr and a status. The codes follow
sysexits.h where it has one.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Every status an ``ovs-*`` command ends with."""

    OK = 0
    BUG = 1
    USAGE = 2
    PARTIAL = 3
    DATA = 65
    NO_INPUT = 66
    UNAVAILABLE = 69
    IO = 74
    INTERRUPT = 130
    CLOSED_PIPE = 141
    TERMINATED = 143


class OvsError(Exception):
    """Base of the errors a person can act on: one line saying what, where and what to do."""

    exit_code = Exit.BUG


class UsageError(OvsError):
    """Options that make no sense, alone or together."""

    exit_code = Exit.USAGE


class InputError(OvsError):
    """Input that is there but broken: corrupt image, truncated stream, impossible mask."""

    exit_code = Exit.DATA


class MissingInputError(OvsError):
    """Input that is not there: no such path, empty folder."""

    exit_code = Exit.NO_INPUT


class WeightsUnavailableError(OvsError):
    """A model's weights are not available: neither cached nor downloadable."""

    exit_code = Exit.UNAVAILABLE


class OutputError(OvsError):
    """The output could not be written: disk full, folder not writable."""

    exit_code = Exit.IO


class DiskFullError(OutputError):
    """The disk is full, or the user's share of it. ``failed`` says what could not be written; the message has ``advice`` too."""

    def __init__(self, failed: str, advice: str) -> None:
        super().__init__(f"{failed}; {advice}")
        self.failed = failed
