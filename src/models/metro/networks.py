"""METRO as released, and its transformer on the shared body of the fair recipe; each anonymous or told the person."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from src.models import told_betas
from src.models.backbones import Backbone
from src.models.cmr.encoders import CHANNELS, build_resnet
from src.models.cmr.rest_mesh import size_unit
from src.models.losses import MESH_UNIT
from src.models.mano_networks import ContextNetwork
from src.models.metro.released import translate
from src.models.metro.template_tokens import N_JOINTS, TemplateTokens
from src.models.metro.transformer import MeshTransformer
from template import HandModel
from utils.install import pip_install

#: Of the training pictures of torchvision's and HRNet's ImageNet weights; images in [0, 1].
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: The slim transformer of the fair recipe: channels, layers of an encoder, and length of the picture's feature.
WIDTHS, OUTPUTS, LAYERS, FEATURES = (64, 32, 16), (64, 32, 3), 2, 128


def build_backbone(name: str, weights: str | Path | None = None) -> tuple[nn.Module, int]:
    """A network from images (B, 3, S, S) to pooled features (B, C), with released names; and C.

    Of the shared body (one of `backbones.BACKBONES`), which gives maps, `Metro` takes the mean of the coarsest.

    Raises:
        ValueError: the name is unknown, timm is absent, or the weights are another network's.
    """
    name = name.lower()
    if name in CHANNELS:
        resnet = build_resnet(name, weights)
        resnet.fc = nn.Identity()
        return resnet, CHANNELS[name][-1]
    if not name.startswith("hrnet"):
        body = Backbone(name, weights)
        return body, body.channels[-1]
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"the backbone {name} is timm's, which is not installed: {pip_install('timm')}") from error
    network = timm.create_model(name, pretrained=False, num_classes=0, checkpoint_path=str(weights) if weights else "")
    return network, network.num_features


class Metro(nn.Module):
    """Image to hand mesh as released (Lin et al., CVPR 2021): ImageNet colours, metres, weak perspective.

    Args:
        backbone: ``hrnet_w64`` (needs timm), a ResNet, or the shared body.
        sees_shape: the tokens are the person's rest hand in place of the mean one (`metro_identity`).
        hand: hand layer of the template; None for the one that `load_hand_assets` finds.
        template_pose: of the tokens: "mean", as released, or "flat".
        transformer: sizes other than the released ones, for `MeshTransformer`.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        backbone: str = "resnet50",
        weights: str | Path | None = None,
        sees_shape: bool = False,
        hand: HandModel | None = None,
        transformer: Mapping[str, object] | None = None,
        template_pose: str = "flat",
    ) -> None:
        super().__init__()
        self.sees_shape = sees_shape
        self.tokens = TemplateTokens(hand, template_pose == "mean")
        self.backbone, channels = build_backbone(backbone, weights)
        self.transformer = MeshTransformer(3 + channels, **(transformer or {}))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def translate_released(self, state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Names of a released checkpoint as ours (`released.translate`, which see); ours stay."""
        if not any(name.startswith("trans_encoder.") for name in state):  # of METRO's code, or of its relatives
            return state
        first = self.transformer.encoders[0]
        return translate(state, len(first.position), len(first.layers))

    def forward(
        self, image: torch.Tensor, betas: torch.Tensor | None = None, K: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """What `MeshTransformer` returns, metres, relative to the wrist, camera axes; keypoints, the joints seen by the
        camera, with a confidence of one. ``K`` is not used."""
        output = self.transformer(self._tokens(image, betas))
        seen = (see(output["joints"], output["camera"]) + 1) * (image.shape[-1] / 2) - 0.5
        return output | {"keypoints_2d": seen, "keypoint_confidence": torch.ones_like(seen[..., 0])}

    def _tokens(self, image: torch.Tensor, betas: torch.Tensor | None) -> torch.Tensor:
        """Template points, metres, each with the picture's feature: (B, 216, 3 + C)."""
        if isinstance(self.backbone, Backbone):
            feature = self.backbone(image)[-1].mean((2, 3))
        else:
            feature = self.backbone((image * 0.5 + 0.5 - self.mean) / self.std)
        with torch.autocast(image.device.type, enabled=False):
            points = self.tokens.template
            if self.sees_shape:
                points = self.tokens.select(self.tokens.of_betas(told_betas("metro_identity", betas)))
        points = points.expand(len(image), -1, -1)
        return torch.cat([points, feature.float()[:, None].expand(-1, points.shape[1], -1)], dim=2)

    @torch.no_grad()
    def attention(
        self, image: torch.Tensor, betas: torch.Tensor | None = None, K: torch.Tensor | None = None
    ) -> torch.Tensor:
        """How much each joint looks at each vertex in the last layer, mean over heads: (B, 21, 778), zero at vertices
        that are no tokens."""
        return self.tokens.over_mesh(self.transformer.attention(self._tokens(image, betas)))


def see(points: torch.Tensor, camera: torch.Tensor) -> torch.Tensor:
    """Weak perspective: points (B, P, 3), metres, by cameras (B, 3) = (s, tx, ty) to (B, P, 2) in -1..1 of the crop."""
    return camera[:, None, :1] * (points[..., :2] + camera[:, None, 1:])


class OneStageMetro(ContextNetwork):
    """METRO's transformer with the body, 2D head and crop geometry that the fair networks share.

    The hand starts as the template turned and stretched by a matrix that is read from the picture; to it comes what
    the transformer, whose tokens are the points of that start, finds for each.

    Args:
        sees_shape: the template is the person's rest hand; how it differs from the mean one is also read in
            centimetres, through weights that start at zero, and what is found is scaled by the person's size over
            the template's. For the mean person it starts as the network without.
        hand: hand layer of the template; None for the one that `load_hand_assets` finds.
    """

    def __init__(
        self,
        backbone: str = "regnet_x_400mf",
        weights: str | Path | None = None,
        sees_shape: bool = False,
        hand: HandModel | None = None,
        crop_geometry: bool = True,
    ) -> None:
        super().__init__(backbone, weights, crop_geometry)
        self.tokens = TemplateTokens(hand)
        self.to_tokens = nn.Sequential(nn.Linear(self.context_size, 512), nn.ReLU(), nn.Linear(512, FEATURES))
        self.start = nn.Linear(FEATURES, 9)
        nn.init.zeros_(self.start.weight)
        nn.init.zeros_(self.start.bias)
        self.transformer = MeshTransformer(3 + FEATURES, WIDTHS, OUTPUTS, layers=LAYERS, dropout=0.0, has_camera=False)
        self._start_upsampling_as_interpolation()
        self.difference = nn.Linear(3, WIDTHS[0], bias=False) if sees_shape else None
        if self.difference is not None:
            nn.init.zeros_(self.difference.weight)

    @torch.no_grad()
    def _start_upsampling_as_interpolation(self) -> None:
        """A vertex starts as the mean of its four nearest tokens, weighted by inverse distance."""
        vertices = torch.as_tensor(self.tokens.hand.assets.v_template, dtype=torch.float32)
        distance, nearest = torch.cdist(vertices, vertices[self.tokens.selection]).topk(4, largest=False)
        share = 1 / distance.clamp_min(1e-6)
        layer = self.transformer.upsampling
        layer.weight.zero_().scatter_(1, nearest, share / share.sum(1, keepdim=True))
        layer.bias.zero_()

    def forward(
        self, image: torch.Tensor, betas: torch.Tensor | None = None, K: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Mesh and keypoints, see `src.models`; ``joints`` (B, 21, 3), ``vertices_coarse`` (B, 195, 3) likewise."""
        output, context, turn = self._read(image, K)
        tokens, added, start, unit = self._tokens(context, betas)
        found = self.transformer(tokens, added)
        with torch.autocast(image.device.type, enabled=False):
            starts = {
                "joints": start[:, :N_JOINTS],
                "vertices_coarse": start[:, N_JOINTS + self.tokens.selection],
                "vertices": start[:, N_JOINTS:],
            }
            found = {name: unit * found[name].float() + points for name, points in starts.items()}
            if turn is not None:
                found = {name: value @ turn.transpose(1, 2) for name, value in found.items()}
        return output | found

    def _tokens(
        self, context: torch.Tensor, betas: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor | float]:
        """Tokens and what is added to their embedding; the start (B, 799, 3), metres; the unit of what is found."""
        with torch.autocast(context.device.type, enabled=False):
            points, unit, added = self.tokens.template_points, MESH_UNIT, None
            if self.difference is not None:
                mesh = self.tokens.hand.rest(told_betas("metro_identity", betas))
                points = self.tokens.all_points(mesh)
                added = self.difference((self.tokens.select(points) - self.tokens.template) * 100)
                unit = size_unit(mesh, self.tokens.template_size)
            feature = self.to_tokens(context)
            start = points @ self.start(feature).view(-1, 3, 3).transpose(1, 2)
            tokens = self.tokens.select(start) / MESH_UNIT
            tokens = torch.cat([tokens, feature[:, None].expand(-1, tokens.shape[1], -1)], dim=2)
        return tokens, added, start, unit

    @torch.no_grad()
    def attention(
        self, image: torch.Tensor, betas: torch.Tensor | None = None, K: torch.Tensor | None = None
    ) -> torch.Tensor:
        """How much each joint looks at each vertex, (B, 21, 778); see `Metro.attention`."""
        tokens, added, _, _ = self._tokens(self._read(image, K)[1], betas)
        return self.tokens.over_mesh(self.transformer.attention(tokens, added))
