"""How much faster the mesh decoder is than the plain one: dense pooling, one gather a spiral, stored attention.

Both compute the same numbers from the same weights (checked before timing). Runs of the two
alternate, and the ratio is of the medians, so that other work on the machine disturbs both alike.

    python -m benchmarks.studies.decoder_speed --json out/benchmarks/decoder_speed.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from conv.spiral_conv import SpiralConv
from src.models.cmr.mesh_decoder import Deblock, MeshDecoder
from template.cmr_assets import load_hierarchy
from utils.files import write_json


class PlainDecoder:
    """The decoder by its definition in docs/architectures.md, on the parameters of a `MeshDecoder`."""

    def __init__(self, decoder: MeshDecoder, dense_up: list[torch.Tensor], spirals: list[torch.Tensor]) -> None:
        self.decoder, self.dense_up, self.spirals = decoder, dense_up, spirals

    def attention(self, feature: torch.Tensor) -> torch.Tensor:
        """feature (B, 1000) -> (B, 1000), with the energy matrix stored."""
        layer = self.decoder.attention
        query, key, value = layer.query_conv(feature), layer.key_conv(feature), layer.value_conv(feature)
        weights = torch.softmax(query[:, :, None] @ key[:, None, :], dim=-1)
        return layer.gamma * (weights @ value[:, :, None])[:, :, 0] + feature

    @staticmethod
    def convolve(conv: SpiralConv, x: torch.Tensor, spirals: torch.Tensor) -> torch.Tensor:
        """Gather and one linear layer: x (B, V, C) -> (B, V, O)."""
        batch, vertices, _ = x.shape
        gathered = x[:, spirals[:, : conv.length].reshape(-1)].reshape(batch, vertices, -1)
        return F.linear(gathered, conv.layer.weight, conv.layer.bias)

    def deblock(self, block: Deblock, x: torch.Tensor, up: torch.Tensor, spirals: torch.Tensor) -> torch.Tensor:
        """Dense pooling, then four spirals gathered one by one."""
        y = up @ x
        wide = [self.convolve(conv, y, spirals) for conv in (block.conv, block.conv_2d3, block.conv_d3)]
        return torch.relu(self.convolve(block.conv1, y, spirals) + torch.cat(wide, dim=2))

    def __call__(self, feature: torch.Tensor) -> list[torch.Tensor]:
        """feature (B, 1000) -> four meshes (B, V_l, 3), finest first."""
        net, meshes = self.decoder, []
        x = net.de_layers[0](self.attention(feature)).view(len(feature), net.coarsest, -1)
        for step, head in enumerate(net.heads):
            up, spirals = self.dense_up[-1 - step], self.spirals[-1 - step]
            x = self.deblock(net.de_layers[step + 1], x, up, spirals)
            mesh = self.convolve(head, x, spirals)
            if meshes:
                mesh = (mesh + up @ meshes[-1]) / 2
            meshes.append(mesh)
            x = torch.cat([x, mesh], dim=2)
        return meshes[::-1]


def make_pair(device: str = "cpu") -> tuple[MeshDecoder, PlainDecoder]:
    """Our decoder of the stand-in hand with random weights, and the plain one on the same weights."""
    hierarchy = load_hierarchy()
    decoder = MeshDecoder(hierarchy).to(device)
    nn.init.constant_(decoder.attention.gamma, 0.5)
    dense_up = [torch.as_tensor(up.toarray(), dtype=torch.float32, device=device) for up in hierarchy.up]
    spirals = [torch.as_tensor(spiral, device=device) for spiral in hierarchy.spirals[:-1]]
    return decoder, PlainDecoder(decoder, dense_up, spirals)


def _run(decode: Callable[[torch.Tensor], list[torch.Tensor]], feature: torch.Tensor, backward: bool) -> float:
    def wait() -> None:
        if feature.is_cuda:
            torch.cuda.synchronize()

    wait()
    start = time.perf_counter()
    with torch.set_grad_enabled(backward):
        meshes = decode(feature)
    if backward:
        sum(mesh.square().mean() for mesh in meshes).backward()
    wait()
    return time.perf_counter() - start


def measure(batch: int, repeats: int, device: str) -> dict[str, float]:
    """Median times in ms of forward, and of forward with backward, ours and plain, and the ratios."""
    torch.manual_seed(0)
    decoder, plain = make_pair(device)
    feature = torch.randn(batch, 1000, device=device)
    with torch.no_grad():
        difference = max(
            float((a - b).abs().max()) for a, b in zip(decoder.decode_mesh(feature), plain(feature), strict=True)
        )
    if difference > 1e-4:
        raise RuntimeError(f"the two decoders differ by {difference}; their times mean nothing")
    result: dict[str, float] = {"difference": difference}
    for name, backward in (("forward", False), ("forward_backward", True)):
        pairs = [
            (_run(decoder.decode_mesh, feature, backward), _run(plain, feature, backward)) for _ in range(repeats + 1)
        ][1:]
        ours, theirs = (1000 * statistics.median(times) for times in zip(*pairs, strict=True))
        result |= {f"{name}_ms": ours, f"{name}_plain_ms": theirs, f"{name}_ratio": theirs / ours}
    return result


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32, help="images in a batch (default 32)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each (default 5)")
    parser.add_argument("--threads", type=int, help="CPU threads; default as torch chooses")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", help="also write the result here")
    return parser


def main(args: argparse.Namespace) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    result = measure(args.batch, args.repeats, args.device)
    for name in ("forward", "forward_backward"):
        print(
            f"{name}: {result[f'{name}_ms']:.0f} ms, plain {result[f'{name}_plain_ms']:.0f} ms, "
            f"{result[f'{name}_ratio']:.2f} times as fast"
        )
    if args.json:
        write_json(
            args.json,
            {
                "batch": args.batch,
                "device": args.device,
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                **result,
            },
        )


if __name__ == "__main__":
    main(get_args_parser().parse_args())
