"""Encoders f: images (timm and small networks), texts, vectors; heads; frozen encoders with an adapter."""

from .base import Encoder, is_pretrained
from .build import RAW_INPUT, build_encoder, default_encoder, encoder_config, encoder_names, side_of_weights
from .frozen import FrozenEncoder
from .heads import predictor, projector

__all__ = ["RAW_INPUT", "Encoder", "FrozenEncoder", "build_encoder", "default_encoder", "encoder_config",
           "encoder_names", "is_pretrained", "predictor", "projector", "side_of_weights"]  # fmt: skip
