"""Facts about layers."""

from model.errors import ViewNotApplicable
from model.graph import NetworkGraph


def first_convolution(graph: NetworkGraph) -> str:
    """Return the name of the first convolution, the layer that sees the image itself.

    Raises:
        ViewNotApplicable: the network has no convolution.
    """
    for layer in graph.layers.values():
        if layer.type == "Conv2d":
            return layer.name
    raise ViewNotApplicable("this network has no convolution; name a layer")
