"""The family of errors a user may see: where, what was found, what was expected, what to do."""

from __future__ import annotations


class RecsysError(Exception):
    """A user-facing error; the command line prints it without a traceback.

    Args:
        where: the place of the fault, e.g. ``"conf/demo.toml [train]"`` or ``"table 'pairs'"``.
        found: what is there.
        expected: what should be there.
        do: the next step for the reader.
    """

    exit_code = 1

    def __init__(self, where: str, found: str, expected: str = "", do: str = "") -> None:
        self.where, self.found, self.expected, self.do = where, found, expected, do
        parts = [f"{where}: {found}"]
        if expected:
            parts.append(f"expected {expected}")
        if do:
            parts.append(do)
        super().__init__("; ".join(parts))


class ConfigError(RecsysError):
    """The configuration cannot be used."""

    exit_code = 2


class InputError(RecsysError):
    """The user's data cannot be used: a missing file or column, an empty log."""

    exit_code = 3


class ContractError(RecsysError):
    """A frame does not match the contract of the table it is written to."""

    exit_code = 4


class MissingTableError(RecsysError):
    """A stage needs a table (or a night) that no earlier stage has written."""

    exit_code = 5


class RegistryError(RecsysError):
    """The model registry lacks what was asked for, or holds something unusable."""

    exit_code = 6


class RegistrySilentError(RegistryError):
    """The model registry does not answer, or answers with an error of its own: later it may."""

    exit_code = 11


class TrainingError(RecsysError):
    """Training stopped: a rank was lost, or a batch had no finite loss."""

    exit_code = 7


class LockError(RecsysError):
    """Another writer holds the namespace."""

    exit_code = 8


class MachineError(RecsysError):
    """The machine lacks something needed to run: Java, a package, memory."""

    exit_code = 9


class PendingError(RecsysError):
    """Not a fault: a stage waits for what somebody else was asked to do; run again afterwards, it goes on from there."""

    exit_code = 10
