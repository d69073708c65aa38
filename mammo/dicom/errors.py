"""The errors of a file that is no mammogram."""

from mammo.base.errors import UserError


class UnreadableDicom(UserError):  # noqa: N818 - it describes the file
    """A file that is no mammogram we can read.

    `reason` says why in words for a data manager. It quotes nothing that could identify a person:
    no path, no id, no name, no date.
    """

    def __init__(self, reason: str, name: str | None = None) -> None:
        super().__init__(reason, name)
        self.reason = reason
        self.name = name

    def __str__(self) -> str:
        return f"{self.name or 'the DICOM file'}: {self.reason}"


class DamagedStream(ValueError):  # noqa: N818 - it describes the stream
    """Pixel data that break the rules of their encoding, or end too soon.

    An error of its own, so that no other one, which would be a fault of this program, is taken for
    a fault of the file.
    """
