"""Checks that concurrent calls do not disturb each other or the network."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from torch import Tensor

from torchlight.model.checks.subject import Finding, Subject
from torchlight.model.views.activations import activation_maps
from torchlight.model.views.attribution import Attribution, grad_cam, occlude_once, saliency

CALLS, THREADS = 32, 8


def calls_at_once(subject: Subject) -> Finding:
    """Make mixed calls in several threads, and compare with the same calls one after the other."""
    calls = list(_mixed_calls(subject))
    alone = [call() for call in calls]
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(lambda call: call(), calls))
    worst = max((ours - given).abs().max().item() for ours, given in zip(together, alone, strict=True))
    return Finding(worst, f"{len(calls)} calls in {THREADS} threads")


def nothing_left_behind(subject: Subject) -> Finding:
    """Count hooks, gradients and layers in training mode on the network, after all other checks.

    PyTorch has no public list of a module's hooks: tests/model/test_model_private_parts.py holds the names read here.
    """
    network = subject.classifier.network
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())
    hooks += sum(len(module._backward_hooks) + len(module._backward_pre_hooks) for module in network.modules())
    gradients = sum(parameter.grad is not None or parameter.requires_grad for parameter in network.parameters())
    training = sum(module.training for module in network.modules())
    return Finding(hooks + gradients + training, "hooks, gradients and layers in training mode")


def _mixed_calls(subject: Subject) -> Iterator[Callable[[], Tensor]]:
    """Yield predictions and views of all images in turn."""
    classifier = subject.classifier
    maps = [name for name, layer in subject.graph.layers.items() if layer.has_maps]
    places = [name for name in maps if subject.graph.layers[name].has_places]

    def evidence(method: Callable[..., Attribution], image: Tensor, target: int) -> Tensor:
        return method(classifier, image, target).map

    for number in range(CALLS):
        image, target = subject.images[number % len(subject.images)], number % len(classifier.class_names)
        calls: list[Callable[[], Tensor]] = [
            partial(classifier.probabilities, image[None]),
            partial(evidence, saliency, image, target),
            partial(occlude_once, classifier, image, 0, 0, classifier.spec.size // 2),
        ]
        if maps:
            calls.append(partial(activation_maps, classifier, image, maps[number % len(maps)]))
        if places:
            calls.append(partial(evidence, partial(grad_cam, layer=places[-1]), image, target))
        yield calls[number % len(calls)]
