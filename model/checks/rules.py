"""The invariants that a self-test checks, with their bounds, and those that need more than a checkpoint."""

from torchlight.model.checks import arithmetic, concurrency, faithfulness, index_values, pictures
from torchlight.model.checks.subject import Rule

RULES = (
    Rule("C1", "a traced number is the network's own", 1e-5, arithmetic.traces),
    Rule("C2", "the first convolution by loops is the layer", 1e-5, arithmetic.whole_layer),
    Rule("C3", "probabilities add up to 1", 1e-6, arithmetic.probabilities_sum_to_one),
    Rule("C3", "inspection starts from the logits that are served", 1e-4, arithmetic.inspected_is_served),
    Rule("C4", "folded filters give what batch norm gives", 1e-5, arithmetic.folded_filters),
    Rule("C5", "receptive fields are where gradients reach", 0, arithmetic.receptive_field_boxes),
    Rule("C7", "HiResCAM: cells + bias = logit", 1e-4, faithfulness.hires_cam_adds_up),
    Rule("C7", "integrated gradients: cells + bias = logit", 0.01, faithfulness.integrated_gradients_add_up),
    Rule("C8", "saliency is the slope of the logit", 0.01, faithfulness.saliency_by_differences),
    Rule("C9", "deconvnet: <Wx, y> = <x, W'y>", 1e-5, faithfulness.deconvnet_is_adjoint),
    Rule("C9", "deconvnet: nothing outside the receptive field", 0, faithfulness.deconvnet_stays_inside),
    Rule("C10", "occlusion is the answer for a painted image", 1e-4, faithfulness.occlusion_by_painting),
    Rule("C16", "examples of units have the values recorded", 1e-5, index_values.examples_again),
    Rule("C16", "no image was left out of the best", 0, index_values.best_examples_are_best),
    Rule("C17", "neighbours are the nearest", 1e-6, index_values.neighbours_by_hand),
    Rule("C18", "values can be read back from pictures", 1 / 255, pictures.pictures_read_back),
    Rule("C18", "pictures keep zero, blocks and legend", 0, pictures.zero_blocks_and_legend),
    Rule("C19", "the same view twice is the same bytes", 0, pictures.same_view_twice),
    Rule("C20", "calls at once give what they give alone", 1e-6, concurrency.calls_at_once),
    Rule("C20", "nothing is left on the network", 0, concurrency.nothing_left_behind),
)
ELSEWHERE = (  # id, title, what it needs beside a checkpoint
    ("C6", "Grad-CAM is that of two other implementations", "needs them; the test suite compares on several networks"),
    ("C11", "evidence changes as weights are randomised", "needs photos of these classes"),
    ("C12", "evidence finds a planted shortcut", "needs a network trained for it; the test suite trains one"),
    ("C13", "evidence points into the right tile of a mosaic", "needs labelled photos"),
    ("C14", "insertion and deletion curves", "needs labelled photos"),
    ("C15", "remove and debias", "needs labelled photos"),
    ("C21", "odd files are seen alike everywhere", "needs uploads; the test suite sends them to a real server"),
)
