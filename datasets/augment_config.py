"""How much to augment, with the two settings that this repository trains with."""

from __future__ import annotations

from dataclasses import dataclass

COLOUR_SPACES = ("linear", "hsv")


@dataclass(frozen=True)
class AugmentConfig:
    """Ranges of the random changes; the defaults change nothing. All draws are uniform.

    Attributes:
        rotation_deg: largest in-plane rotation about the camera's optical axis, degrees (180: any).
        scale: factors (low, high) on the crop's side; the draw is uniform in the logarithm.
        shift: largest shift of the crop, as a fraction of its side, in x and in y.
        brightness: largest offset, with colours in [0, 1].
        contrast: factors (low, high) on all colours.
        saturation: factors (low, high).
        hue_deg: largest turn of the hue, degrees.
        noise: largest standard deviation of Gaussian pixel noise, with colours in [0, 1].
        probability: with which each photometric change happens to an image. The geometric ones always happen.
        colour_space: saturation and hue as one matrix a image ("linear", quick) or in HSV ("hsv").
    """

    rotation_deg: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    brightness: float = 0.0
    contrast: tuple[float, float] = (1.0, 1.0)
    saturation: tuple[float, float] = (1.0, 1.0)
    hue_deg: float = 0.0
    noise: float = 0.0
    probability: float = 0.5
    colour_space: str = "linear"

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: naming the value that makes no sense.
        """
        for name in ("scale", "contrast", "saturation"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} is ({low}, {high}); it must be (low, high) with 0 < low <= high")
        for name in ("rotation_deg", "shift", "brightness", "hue_deg", "noise"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability is {self.probability}; it must lie in [0, 1]")
        if self.colour_space not in COLOUR_SPACES:
            raise ValueError(f"colour_space is {self.colour_space!r}; choose one of {', '.join(COLOUR_SPACES)}")

    @classmethod
    def paper(cls) -> AugmentConfig:
        """What the paper's code did, photometric only, but clipped to the valid range (docs/facts.md 7.1, 8.13)."""
        return cls(brightness=32 / 255, contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue_deg=18.0, colour_space="hsv")

    @classmethod
    def fair(cls) -> AugmentConfig:
        """Geometric and photometric: any in-plane rotation, a jittered crop, milder colours, some noise."""
        return cls(
            rotation_deg=180.0,
            scale=(0.9, 1.1),
            shift=0.05,
            brightness=0.12,
            contrast=(0.7, 1.3),
            saturation=(0.6, 1.4),
            hue_deg=12.0,
            noise=0.03,
        )

    @property
    def is_geometric(self) -> bool:
        """Whether anything moves."""
        return self.rotation_deg > 0 or self.scale != (1.0, 1.0) or self.shift > 0

    @property
    def is_photometric(self) -> bool:
        """Whether any colour changes."""
        changes = self.brightness or self.hue_deg or self.noise
        return self.probability > 0 and (bool(changes) or (self.contrast, self.saturation) != ((1.0, 1.0), (1.0, 1.0)))
