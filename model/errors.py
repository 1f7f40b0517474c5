"""The errors of ``model/`` that a user can cause, and those that serving and training share, as one tree.

    TorchlightError
    ├── ImageError                  the bytes of an upload
    │   ├── UnknownImageFormat      not one of the formats we decode
    │   ├── UnreadableImage         one of them, but broken, truncated or without a defined range
    │   └── ImageTooLarge           more pixels than the limit
    ├── CheckpointError             the file a network is loaded from
    │   ├── CheckpointNotFound
    │   ├── CheckpointTruncated     shorter than its own header says
    │   ├── ForeignFile             some other kind of file (a pickle, an image, another tool's weights)
    │   ├── UnsupportedVersion      written by a newer Torchlight
    │   ├── InvalidHeader           a field is missing or does not hold what it should
    │   ├── WeightsMismatch         the tensors do not fit the architecture or the class names
    │   └── CanaryMismatch          the canary image gets another answer than when the network was saved
    ├── IndexFileError              the file of top images and neighbours beside a checkpoint
    │   ├── IndexNotFound
    │   ├── IndexTruncated          shorter than its own header says
    │   ├── InvalidIndex            some other kind of file, another version, or contents that do not fit together
    │   └── IndexMismatch           made for another checkpoint
    ├── MistakesFileError           the file of mistakes beside a checkpoint: damaged, or of another checkpoint
    │   └── MistakesNotFound
    ├── NetworkError                a network that cannot be built
    │   ├── UnknownArchitecture
    │   ├── WeightsNotInstalled     of a published network: their package is missing
    │   └── WeightsDamaged          the file is not the one that was published
    ├── ViewError                   a view into the network that does not exist
    │   ├── UnknownLayer
    │   ├── ChannelOutOfRange
    │   ├── PositionOutOfRange
    │   ├── UnknownTarget           not a class of this network
    │   └── ViewNotApplicable       the layer has no such view (filters of a ReLU)
    ├── ExportError                 a network that cannot be written as a file for other programs
    ├── PredictionFileError         a file of predictions that cannot be resumed
    ├── DataError                   a data set that cannot be trained on
    ├── DeviceUnavailable           no such device, or this machine has none
    ├── QuantisationError           the file of int8 ranges beside a checkpoint
    │   ├── QuantisationNotFound
    │   └── InvalidQuantisation     made for another checkpoint, or some other kind of file
    └── EngineUnavailable           the wanted engine does not have all layers of a network, or answers otherwise

Serving adds those of ``app/errors.py``; those of a training run are beside the code that raises them.

None of them knows a status code: ``app/api/problems.py`` holds that table, ``torchlight/command.py`` the exit code.
A message names the thing, its value, the limit and the way out, and fits on one line.
"""


class TorchlightError(Exception):
    """Root of the tree; its message is written for the user."""


class ImageError(TorchlightError):
    """The bytes of an upload cannot become an image."""


class UnknownImageFormat(ImageError):
    """The bytes are not in one of the formats we decode."""


class UnreadableImage(ImageError):
    """The format is known, but the content is broken, truncated or of undefined range."""


class ImageTooLarge(ImageError):
    """The image declares more pixels than the limit."""


class CheckpointError(TorchlightError):
    """A checkpoint cannot be loaded."""


class CheckpointNotFound(CheckpointError):
    """There is no file at that path."""


class CheckpointTruncated(CheckpointError):
    """The file is shorter than its own header says."""


class ForeignFile(CheckpointError):
    """The file is something other than a Torchlight checkpoint."""


class UnsupportedVersion(CheckpointError):
    """The file's format version is not one this program reads."""


class InvalidHeader(CheckpointError):
    """A header field is missing, or does not hold what it should."""


class WeightsMismatch(CheckpointError):
    """The tensors do not fit the architecture, or the head does not fit the class names."""


class CanaryMismatch(CheckpointError):
    """The network gives the canary image other probabilities than the checkpoint says."""


class IndexFileError(TorchlightError):
    """An index of images cannot be made, or its file cannot be used."""


class IndexNotFound(IndexFileError):
    """There is no file at that path."""


class IndexTruncated(IndexFileError):
    """The file is shorter than its own header says."""


class InvalidIndex(IndexFileError):
    """The file is not an index of this version, or its contents do not fit together."""


class IndexMismatch(IndexFileError):
    """The index was made for another checkpoint."""


class MistakesFileError(TorchlightError):
    """A file of mistakes cannot be used: it is damaged, of another kind, or of another checkpoint."""


class MistakesNotFound(MistakesFileError):
    """There is no file at that path."""


class NetworkError(TorchlightError):
    """A network cannot be built."""


class UnknownArchitecture(NetworkError):
    """No architecture has that name."""


class WeightsNotInstalled(NetworkError):
    """The package that brings a network's published weights is missing."""


class WeightsDamaged(NetworkError):
    """The file of published weights is not the one that was published."""


class ViewError(TorchlightError):
    """A view into the network that does not exist."""


class UnknownLayer(ViewError):
    """The network has no layer of that name."""


class ChannelOutOfRange(ViewError):
    """The layer has fewer channels."""

    def __init__(self, channel: int, layer: str, channels: int) -> None:
        super().__init__(f"channel {channel} does not exist: layer {layer!r} has channels 0 to {channels - 1}")


class PositionOutOfRange(ViewError):
    """The layer's output has no such position."""


class UnknownTarget(ViewError):
    """The network has no class of that name or index."""


class ViewNotApplicable(ViewError):
    """The layer exists, but has no such view."""


class ExportError(TorchlightError):
    """The network cannot be written as a file for other programs."""


class DataError(TorchlightError):
    """A data set cannot be trained on or evaluated."""


class DeviceUnavailable(TorchlightError):
    """There is no such device, or this machine has none."""


class EngineUnavailable(TorchlightError):
    """The wanted engine does not have all layers of the network, or answers otherwise."""


class QuantisationError(TorchlightError):
    """The file of int8 ranges beside a checkpoint cannot be used."""


class QuantisationNotFound(QuantisationError):
    """There is no such file."""


class InvalidQuantisation(QuantisationError):
    """The file was made for another checkpoint, or is some other kind of file."""


class PredictionFileError(TorchlightError):
    """A file of predictions cannot be resumed."""
