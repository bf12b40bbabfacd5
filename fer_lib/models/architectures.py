"""Networks of our own for small devices, known to timm by name: residual, for faces of 48 to 64 pixels.

Plain 3 x 3 convolutions, batch norm and ReLU throughout (He et al. 2016): what int8 instructions speed up
most, and what loses least by them. No depthwise convolutions, whose few multiplications are no work to save;
no gates and no SiLU, whose ranges int8 holds badly. A network for photographs halves its map twice before its
first block; these halve it once, for a face of 48 pixels has no detail to spare.
"""

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

CONFIG = {"input_size": (3, 64, 64), "pool_size": (4, 4), "first_conv": "conv1.0", "classifier": "fc"}

default_cfgs = generate_default_cfgs({"face_resnet.untrained": CONFIG, "face_resnet_tiny.untrained": CONFIG})


class FaceResNet(ResNet):
    """timm's ResNet with a stem of three 3 x 3 convolutions and no pooling behind it."""

    def __init__(self, **settings):
        super().__init__(block=BasicBlock, stem_type="deep", **settings)
        self.maxpool = nn.Identity()


@register_model
def face_resnet(pretrained: bool = False, **settings) -> FaceResNet:
    """Return the depth of ResNet-18 at less width: 4.2 million parameters."""
    shape = {"layers": (2, 2, 2, 2), "channels": (64, 128, 192, 256), "stem_width": 32}
    return build_model_with_cfg(FaceResNet, "face_resnet", pretrained, **shape, **settings)


@register_model
def face_resnet_tiny(pretrained: bool = False, **settings) -> FaceResNet:
    """Return half that depth, narrower: 0.8 million parameters, which a megabyte holds in int8."""
    shape = {"layers": (1, 1, 1, 1), "channels": (40, 80, 128, 160), "stem_width": 20}
    return build_model_with_cfg(FaceResNet, "face_resnet_tiny", pretrained, **shape, **settings)
