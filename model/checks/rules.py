"""The laws of a self-test, with their bounds, and those that a checkpoint alone cannot show."""

from torchlight.model.checks.arithmetic import (
    folded_filters,
    inspected_is_served,
    probabilities_sum_to_one,
    receptive_field_boxes,
    traces,
    whole_layer,
)
from torchlight.model.checks.concurrency import calls_at_once, nothing_left_behind
from torchlight.model.checks.faithfulness import (
    deconvnet_is_adjoint,
    deconvnet_stays_inside,
    hires_cam_adds_up,
    integrated_gradients_add_up,
    occlusion_by_painting,
    saliency_by_differences,
)
from torchlight.model.checks.index_values import best_examples_are_best, examples_again, neighbours_by_hand
from torchlight.model.checks.pictures import pictures_keep_the_laws, pictures_read_back, same_view_twice
from torchlight.model.checks.subject import Rule

RULES = (
    Rule("C1", "a traced number is the network's own", 1e-5, traces),
    Rule("C2", "the first convolution by loops is the layer", 1e-5, whole_layer),
    Rule("C3", "probabilities add up to 1", 1e-6, probabilities_sum_to_one),
    Rule("C3", "inspection starts from the logits that are served", 1e-4, inspected_is_served),
    Rule("C4", "folded filters give what batch norm gives", 1e-5, folded_filters),
    Rule("C5", "receptive fields are where gradients reach", 0, receptive_field_boxes),
    Rule("C7", "HiResCAM: cells + bias = logit", 1e-4, hires_cam_adds_up),
    Rule("C7", "integrated gradients: cells + bias = logit", 0.01, integrated_gradients_add_up),
    Rule("C8", "saliency is the slope of the logit", 0.01, saliency_by_differences),
    Rule("C9", "deconvnet: <Wx, y> = <x, W'y>", 1e-5, deconvnet_is_adjoint),
    Rule("C9", "deconvnet: nothing outside the receptive field", 0, deconvnet_stays_inside),
    Rule("C10", "occlusion is the answer for a painted image", 1e-4, occlusion_by_painting),
    Rule("C16", "examples of units have the values recorded", 1e-5, examples_again),
    Rule("C16", "no image was left out of the best", 0, best_examples_are_best),
    Rule("C17", "neighbours are the nearest", 1e-6, neighbours_by_hand),
    Rule("C18", "values can be read back from pictures", 1 / 255, pictures_read_back),
    Rule("C18", "pictures keep zero, blocks and legend", 0, pictures_keep_the_laws),
    Rule("C19", "the same view twice is the same bytes", 0, same_view_twice),
    Rule("C20", "calls at once give what they give alone", 1e-6, calls_at_once),
    Rule("C20", "nothing is left on the network", 0, nothing_left_behind),
)
ELSEWHERE = (  # id, title, why a checkpoint alone is not enough
    ("C6", "Grad-CAM is that of two other implementations", "needs them; the test suite compares on several networks"),
    ("C11", "evidence changes as weights are randomised", "needs photos of these classes"),
    ("C12", "evidence finds a planted shortcut", "needs a network trained for it; the test suite trains one"),
    ("C13", "evidence points into the right tile of a mosaic", "needs labelled photos"),
    ("C14", "insertion and deletion curves", "needs labelled photos"),
    ("C15", "remove and debias", "needs labelled photos"),
    ("C21", "odd files are seen alike everywhere", "needs uploads; the test suite sends them to a real server"),
)
