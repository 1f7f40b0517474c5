"""Checks of attributions and reconstructions: sums, slopes, painted images, adjoints."""

import copy
import math
from itertools import product

import torch
from torch import nn

from torchlight.model.checks.subject import Finding, Subject, below
from torchlight.model.errors import ViewNotApplicable
from torchlight.model.graph import NetworkGraph
from torchlight.model.views.attribution import default_cam_layer, hires_cam, integrated_gradients, occlusion, saliency
from torchlight.model.views.deconvnet import reconstruct
from torchlight.model.views.embedding import layer_outputs
from torchlight.model.views.layer_table import describe_layers, first_convolution_name, reads_image
from torchlight.model.views.receptive_field import find_seen_pixels

STEPS = (256, 1024)  # of integrated gradients: the residual shrinks with their number, so more are a second chance
STEPS_SUFFICE = 0.008  # residual, as a share of logit - bias: less than the rule allows
STEP = 1e-7  # of central differences in float64, in standard deviations; longer ones cross bends of a deep network
CHANNELS = 8  # of a layer, or layers, that are reconstructed: a deep network has thousands


def hires_cam_adds_up(subject: Subject) -> Finding:
    """Add up the cells and the bias of HiResCAM, and compare with the logit."""
    layer = default_cam_layer(subject.graph)
    found = [
        hires_cam(subject.classifier, image, target)
        for image, target in zip(subject.images, subject.targets, strict=True)
    ]
    if found[0].residual is None:
        raise ViewNotApplicable(found[0].law.removeprefix("none, since "))
    worst = max(abs(one.residual or 0.0) / max(1.0, abs(one.logit)) for one in found)
    return Finding(worst, f"{layer}, {len(found)} images")


def integrated_gradients_add_up(subject: Subject) -> Finding:
    """Add up integrated gradients and the bias, and compare with the logit."""
    worst, images = 0.0, 2
    for n_steps in STEPS:
        found = [
            integrated_gradients(subject.classifier, subject.images[n], subject.targets[n], n_steps=n_steps)
            for n in range(images)
        ]
        worst = max(abs(one.residual or 0.0) / max(1.0, abs(one.logit - (one.bias or 0.0))) for one in found)
        if worst < STEPS_SUFFICE:
            break
    return Finding(worst, f"{images} images, {n_steps} steps")


def saliency_by_differences(subject: Subject) -> Finding:
    """Compare saliency at a few pixels with central differences in float64."""
    target, size = subject.targets[0], subject.classifier.spec.size
    given = saliency(subject.classifier, subject.image, target).map.double()
    generator = torch.Generator().manual_seed(0)
    pixels = [
        divmod(int(given.argmax()), size),
        *((below(size, generator), below(size, generator)) for _ in range(3)),
    ]
    exact = NetworkGraph(copy.deepcopy(subject.classifier.network).double(), size)
    moved = subject.inputs(0).double().repeat(6 * len(pixels), 1, 1, 1)
    for number, ((y, x), channel, sign) in enumerate(product(pixels, range(3), (1, -1))):
        moved[number, channel, y, x] += sign * STEP
    with torch.no_grad():
        logits = exact.run(moved, [exact.output])[exact.output][:, target]
    slopes = (logits[0::2] - logits[1::2]).view(len(pixels), 3) / (2 * STEP)
    ours = slopes.abs().amax(1)
    worst = (ours - torch.stack([given[place] for place in pixels])).abs().max() / given.max().clamp(min=1e-300)
    return Finding(worst.item(), f"{len(pixels)} pixels, relative to the largest of the map")


def deconvnet_is_adjoint(subject: Subject) -> Finding:
    """Check <W x, y> = <x, W' y> for the first convolution, which a deconvnet inverts in one step."""
    name = first_convolution_name(subject.graph)
    layer = subject.graph.find_layer(name)
    if not reads_image(subject.graph, layer):
        raise ViewNotApplicable(f"the first convolution, {name!r}, does not read the image")
    assert isinstance(layer.module, nn.Conv2d)
    errors = []
    for channel in range(0, layer.out_shape[0], math.ceil(layer.out_shape[0] / CHANNELS)):
        found = reconstruct(subject.classifier, subject.image, name, channel)
        bias = 0.0 if layer.module.bias is None else layer.module.bias[channel].item()
        up, down = found.value * (found.value - bias), (subject.inputs(0)[0] * found.pixels).double().sum().item()
        scale = (subject.inputs(0)[0] * found.pixels).abs().double().sum().item()
        errors.append(abs(up - down) / max(scale, 1e-300))
    return Finding(max(errors), f"{name}, {len(errors)} units, relative to the sum without signs")


def deconvnet_stays_inside(subject: Subject) -> Finding:
    """Find the largest pixel outside the receptive field, reconstructing the strongest channel of each layer."""
    fields = [
        facts for facts in describe_layers(subject.graph) if {"reconstructions", "receptive_field"} <= set(facts.views)
    ]
    if not fields:
        raise ViewNotApplicable("no layer of this network has a way down: a deconvnet is for networks of ReLUs")
    names = [facts.name for facts in fields[:: math.ceil(len(fields) / CHANNELS)]]
    outputs = layer_outputs(subject.classifier, subject.images[:1], names)
    strays = []
    for name in names:
        output = outputs[name][0]
        strongest = int(output.reshape(len(output), -1).amax(1).argmax())
        found = reconstruct(subject.classifier, subject.image, name, strongest)
        seen = find_seen_pixels(subject.graph, name, *found.position).clipped
        outside = found.pixels.clone()
        if seen is not None:
            outside[:, seen.y0 : seen.y1 + 1, seen.x0 : seen.x1 + 1] = 0
        if found.pixels.any():  # else the layer is dead and proves nothing
            strays.append(outside.abs().max().item())
    if not strays:
        raise ViewNotApplicable("no layer with a way down fires for the drawn image")
    return Finding(max(strays), f"{len(strays)} of {len(names)} layers that fire, largest pixel outside")


def occlusion_by_painting(subject: Subject) -> Finding:
    """Paint each window black into the image, let the answering path classify it, and compare."""
    side, target = max(1, subject.classifier.spec.size // 4), subject.targets[0]
    found = occlusion(subject.classifier, subject.image, target, window=side, stride=side, baseline=(0, 0, 0))
    corners = list(product(range(0, subject.classifier.spec.size, side), repeat=2))
    painted = subject.image.repeat(len(corners), 1, 1, 1)
    for image, (y, x) in zip(painted, corners, strict=True):
        image[:, y : y + side, x : x + side] = 0
    drops = (
        subject.logits[0, target] - torch.cat([subject.classifier.logits(image[None]) for image in painted])[:, target]
    )
    worst = max(abs(drop.item() - found.map[place].item()) for drop, place in zip(drops, corners, strict=True))
    return Finding(worst / max(1.0, abs(found.logit)), f"{len(corners)} windows")
