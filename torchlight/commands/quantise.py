"""``torchlight quantise``."""

from torchlight.commands.options import CheckpointPath, Corrections, SkipUnreadable, Source, open_classifier
from torchlight.commands.terminal import add_bar, show_progress, write_line


def quantise(
    checkpoint_path: CheckpointPath,
    source: Source,
    skip_unreadable: SkipUnreadable = False,
    corrections: Corrections = None,
) -> None:
    """Prepare a checkpoint to be served in int8, and measure what that costs; the checkpoint stays as it is.

    The images are those that it was trained on, or others with a train and a test folder. Serve it with
    TORCHLIGHT_PRECISION=int8.
    """
    from torchlight.model.engines.int8_ranges import quantisation_path, save_quantisation
    from torchlight.training import int8_calibration

    classifier = open_classifier(checkpoint_path)
    with show_progress() as progress:
        on_image = add_bar(progress, "reading images")
        made = int8_calibration.quantise(
            classifier, source, skip_unreadable=skip_unreadable, corrections=corrections, on_image=on_image
        )
    path, accuracy = quantisation_path(checkpoint_path), made.accuracy
    save_quantisation(path, made)
    lost = 100 * (accuracy.float32 - accuracy.int8)
    write_line(
        f"accuracy in float32 {accuracy.float32:.2%}, in int8 {accuracy.int8:.2%} ({lost:+.2f} points lost) of "
        f"{accuracy.images} images; split: {accuracy.split}"
    )
    write_line(f"wrote {path}; serve it with TORCHLIGHT_PRECISION=int8")
