"""The network as a list of named layers, in the order they run: what views of layers are computed on.

They never touch the served modules. The graph holds a twin of the network: new modules over the very same tensors,
in evaluation mode, in-place layers made out-of-place, so that a captured output keeps its values. Nothing is stored
between runs, so any number of threads may run one graph.

Some networks (ConvNeXt, Swin) keep maps as (H, W, C) between two permutations. Their layers say so, and take and give
them as (C, H, W) like all others: a view of the same numbers.
"""

import copy
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from torchlight.model.errors import UnknownLayer

INPUT = "input"
Layout = Literal["channels first", "channels last", "unknown"]
PERMUTED: dict[tuple[Layout, tuple[int, ...]], Layout] = {  # layout before, order of the axes -> layout after
    ("channels first", (0, 2, 3, 1)): "channels last",
    ("channels last", (0, 3, 1, 2)): "channels first",
}
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
TAKE_CHANNELS_FIRST = (nn.Conv2d, nn.BatchNorm2d, *POOLS)  # modules that know no other layout
OUT_OF_PLACE = {operator.iadd: operator.add, operator.imul: operator.mul}  # as `x += y` is traced


@dataclass(frozen=True)
class Layer:
    """One step of the forward pass.

    Attributes:
        name: dotted module path, such as ``layer1.0.conv1``; a module that runs again gets ``_1``, ``_2``, ...; a
            function gets the path of the module that calls it, such as ``layer1.0.add``.
        type: class of the module, or name of the function: ``Conv2d``, ``ReLU``, ``add``, ``cat``.
        module: the module, None for a function. Do not change it.
        inputs: names of the layers that it reads, in order; ``input`` is the normalised image.
        in_shapes, out_shape: without the batch dimension: (C, H, W) for maps, (K,) for vectors.
        layout: how the layer itself keeps maps; ``unknown`` after axes were rearranged in another way.
    """

    name: str
    type: str
    module: nn.Module | None
    inputs: tuple[str, ...]
    in_shapes: tuple[tuple[int, ...], ...]
    out_shape: tuple[int, ...]
    layout: Layout = "channels first"

    @property
    def has_maps(self) -> bool:
        """Whether the output is maps (C, H, W)."""
        return len(self.out_shape) == 3 and self.layout != "unknown"

    @property
    def has_places(self) -> bool:
        """Whether the output is maps of more than one position."""
        return self.has_maps and prod(self.out_shape[1:]) > 1


class NetworkGraph:
    """The layers of a network for S x S images.

    Attributes:
        network: the twin, whose modules ``layers`` refer to. Never to be changed.
        layers: by name, in the order they run; does not contain ``input``, nor what does not depend on it.
        output: name of the layer that gives the logits.
    """

    def __init__(self, network: nn.Module, image_size: int) -> None:
        """Trace ``network`` and run it once on zeros, on its own device and in its own precision."""
        self.network = _twin(network)
        tracer = _NamingTracer()
        graph = tracer.trace(self.network)
        _make_out_of_place(graph)
        self._module = fx.GraphModule(self.network, graph)
        names = {node: name for node, name in tracer.names.items() if node.op != "placeholder"}
        (image,) = (node for node in graph.nodes if node.op == "placeholder")
        self._nodes = {INPUT: image} | {name: node for node, name in names.items()}
        weights = next(network.parameters())
        with torch.inference_mode():
            zeros = torch.zeros(1, 3, image_size, image_size, device=weights.device, dtype=weights.dtype)
            values = _CapturingInterpreter(self._module, self._nodes.values(), ()).capture(zeros, {})
        shapes = {node: tuple(value.shape[1:]) for node, value in values.items() if isinstance(value, Tensor)}
        layouts = _find_layouts(self._module, shapes)
        self._channels_last = frozenset(
            node for node, shape in shapes.items() if len(shape) == 3 and layouts.get(node) == "channels last"
        )
        self.layers = self._describe_layers(shapes, layouts)
        self.output = next(reversed(self.layers))

    def find_layer(self, name: str) -> Layer:
        """Return the layer of that name.

        Raises:
            UnknownLayer: there is none; the message lists all names.
        """
        if name not in self.layers:
            raise UnknownLayer(f"layer {name!r} does not exist; this network has {', '.join(self.layers)}")
        return self.layers[name]

    def name_of(self, module: nn.Module) -> str:
        """Return the name of the layer that runs a module of :attr:`network`, the first one if several do."""
        return next(layer.name for layer in self.layers.values() if layer.module is module)

    def only_reader(self, name: str) -> Layer | None:
        """Return the only layer that reads the output of ``name``; None if there are several or none."""
        readers = [layer for layer in self.layers.values() if name in layer.inputs]
        return readers[0] if len(readers) == 1 else None

    def run(
        self, images: Tensor, keep: Collection[str], replace: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Run the network and return the outputs of some layers.

        Gradients flow to inputs that require them, if the caller has them enabled; never to parameters.

        Args:
            images: (N, 3, S, S) float32 normalised, on the network's device.
            keep: names of layers, or ``input``.
            replace: (N, ...) outputs to use in place of the layers' own; if one requires a gradient, the rest of the
                network is a function of it.

        Returns:
            name -> (N, ...) output, not a copy; maps are (N, C, H, W) in every layout.

        Raises:
            UnknownLayer: one of the names does not exist.
        """
        for name in (*keep, *(replace or {})):
            if name != INPUT:
                self.find_layer(name)
        replaced = {self._nodes[name]: value for name, value in (replace or {}).items()}
        kept = [self._nodes[name] for name in keep]
        values = _CapturingInterpreter(self._module, kept, self._channels_last).capture(images, replaced)
        return {name: values[self._nodes[name]] for name in keep}

    def compile_outputs(self, names: Sequence[str]) -> Callable[[Tensor], tuple[Tensor, ...]]:
        """Return a function to the outputs of some layers, which takes no longer than the network itself.

        Args:
            names: of layers.

        Returns:
            (N, 3, S, S) float32 normalised -> one (N, ...) tensor for each name, in the layout of its layer.
        """
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        graph.graph_copy(self._module.graph, copies)
        graph.output(tuple(copies[self._nodes[name]] for name in names))
        module = fx.GraphModule(self.network, graph)
        graph.eliminate_dead_code()
        module.recompile()
        return module

    def _describe_layers(
        self, shapes: Mapping[fx.Node, tuple[int, ...]], layouts: Mapping[fx.Node, Layout]
    ) -> dict[str, Layer]:
        names = {node: name for name, node in self._nodes.items() if node in layouts and node in shapes}
        given = {**shapes, **{node: (shapes[node][2], *shapes[node][:2]) for node in self._channels_last}}
        layers = {}
        for node, name in names.items():
            if name == INPUT:
                continue
            inputs = [source for source in node.all_input_nodes if source in names]
            module = self.network.get_submodule(str(node.target)) if node.op == "call_module" else None
            layers[name] = Layer(
                name=name,
                type=type(module).__name__ if module is not None else name.rsplit(".", 1)[-1].rstrip("_0123456789"),
                module=module,
                inputs=tuple(names[source] for source in inputs),
                in_shapes=tuple(given[source] for source in inputs),
                out_shape=given[node],
                layout=layouts[node],
            )
        return layers


class _NamingTracer(fx.Tracer):
    """Records the name of each step, as :class:`Layer` defines it.

    Attributes:
        names: by node, in the order of the steps, all different.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[fx.Node, str] = {}
        self._path = ""  # of the module whose forward method is being traced

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Take torchvision's LayerNorm2d, which permutes inside, for the one step that LayerNorm is."""
        return isinstance(m, nn.LayerNorm) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        outer, self._path = self._path, self.path_of_module(m)
        try:
            return super().call_module(m, forward, args, kwargs)
        finally:
            self._path = outer

    def create_proxy(self, kind: str, *args: Any, **kwargs: Any) -> fx.Proxy:
        proxy = super().create_proxy(kind, *args, **kwargs)
        function = re.sub(r"_\d+$", "", proxy.node.name)  # fx numbers functions over the whole network
        path = self._path if kind == "call_module" else f"{self._path}.{function}".lstrip(".")
        numbered = (path, *(f"{path}_{index}" for index in range(1, len(self.names) + 1)))
        self.names[proxy.node] = next(name for name in numbered if name not in self.names.values())
        return proxy


class _CapturingInterpreter(fx.Interpreter):
    """One forward pass that keeps the values of some nodes and frees the others after their last use.

    Of nodes whose maps are channels last, it keeps and takes (N, C, H, W).
    """

    def __init__(self, module: fx.GraphModule, keep: Collection[fx.Node], channels_last: Collection[fx.Node]) -> None:
        super().__init__(module)
        self._keep, self._channels_last = frozenset(keep), channels_last
        self._replaced: Mapping[fx.Node, Tensor] = {}
        self._kept: dict[fx.Node, Any] = {}

    def capture(self, images: Tensor, replaced: Mapping[fx.Node, Tensor]) -> dict[fx.Node, Any]:
        self._replaced = replaced
        self.run(images)
        return self._kept

    def run_node(self, n: fx.Node) -> Any:
        if n not in self._keep and n not in self._replaced:
            return super().run_node(n)
        is_last = n in self._channels_last
        value = self._replaced[n] if n in self._replaced else super().run_node(n)
        if is_last and n not in self._replaced:
            value = value.movedim(3, 1)  # (N, H, W, C) -> (N, C, H, W)
        if n in self._keep:
            self._kept[n] = value
        return value.movedim(1, 3) if is_last else value  # so that a gradient reaches what was kept


def _find_layouts(module: fx.GraphModule, shapes: Mapping[fx.Node, tuple[int, ...]]) -> dict[fx.Node, Layout]:
    """Return the layout of each step that depends on the image: that of what it reads, unless axes are permuted.

    Args:
        shapes: of the steps that give a tensor, without N.
    """
    layouts: dict[fx.Node, Layout] = {}
    for node in module.graph.nodes:
        read = {layouts[source] for source in node.all_input_nodes if source in layouts}
        if not read and node.op != "placeholder":
            continue  # parameters, and what is computed of them alone
        layer = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        layout: Layout = "channels last" if "channels last" in read else "channels first"
        if read == {"unknown"}:
            layout = "unknown"
        if node.target in (torch.permute, "permute"):
            layout = PERMUTED.get((layout, _order_of_axes(node)), "unknown")
        elif isinstance(layer, TAKE_CHANNELS_FIRST):
            layout = "channels first"
        elif isinstance(layer, nn.Linear) and layout == "channels first" and len(shapes[node]) == 3:
            layout = "unknown"  # of columns it has made others
        layouts[node] = layout
    return layouts


def _order_of_axes(node: fx.Node) -> tuple[int, ...]:
    """Return the dimensions that a permutation is given, one by one or in a row."""
    given: list[Any] = [*node.args[1:], *(value for name, value in node.kwargs.items() if name == "dims")]
    return tuple(given if isinstance(given[0], int) else given[0])


def _make_out_of_place(graph: fx.Graph) -> None:
    """Rewrite functions that overwrite their input, so that captured outputs stay as they were."""
    for node in graph.nodes:
        if node.op == "call_function":
            node.target = OUT_OF_PLACE.get(node.target, node.target)
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}


def _twin(network: nn.Module) -> nn.Module:
    """Return new modules over the same parameters and buffers, in evaluation mode, with nothing done in place."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    twin = copy.deepcopy(network, memo=shared).eval()
    for module in twin.modules():
        if getattr(module, "inplace", False):
            module.__dict__["inplace"] = False
    return twin
