"""The shapes of the embedded tiny SDXL: SDXL's own classes and file layout at a thousandth of its size.

Every part is the class that real SDXL uses (diffusers and transformers), so that whatever works on this base runs
the same code on the real one. Sizes: shared feasibility study, see the model card.
"""

from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

MAX_TOKENS = 32  # real SDXL: 77
HIDDEN_1, HIDDEN_2 = 64, 96  # real SDXL: 768, 1280


def make_vae() -> AutoencoderKL:
    """RGB (N, 3, H, W) in [-1, 1] to latents (N, 4, H/4, W/4); real SDXL divides by 8."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=1.0,  # set to 1 / std of the latents once the VAE is trained
        force_upcast=False,  # trained in fp32 and small: fp16-safe
    )


def make_text_encoders(vocab_size: int, bos: int, eos: int) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """The two CLIP text encoders; hidden states (N, 32, 64) and (N, 32, 96), pooled embedding (N, 96)."""

    def config(hidden: int, activation: str) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=vocab_size,
            hidden_size=hidden,
            intermediate_size=4 * hidden,
            projection_dim=HIDDEN_2,
            num_hidden_layers=3,
            num_attention_heads=hidden // 32,
            max_position_embeddings=MAX_TOKENS,
            hidden_act=activation,
            bos_token_id=bos,
            eos_token_id=eos,
            pad_token_id=eos,
        )

    return CLIPTextModel(config(HIDDEN_1, "quick_gelu")), CLIPTextModelWithProjection(config(HIDDEN_2, "gelu"))


def make_unet() -> UNet2DConditionModel:
    """Latents (N, 4, 16, 16), timestep, text (N, 32, 160), pooled (N, 96) and time ids (N, 6) to noise."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 96, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=(1, 1, 1),
        attention_head_dim=(2, 3, 4),  # the number of heads, as diffusers names it
        cross_attention_dim=HIDDEN_1 + HIDDEN_2,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=HIDDEN_2 + 6 * 32,
        norm_num_groups=32,
    )


def make_scheduler() -> EulerDiscreteScheduler:
    """SDXL's own noise schedule and sampler."""
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        timestep_spacing="leading",
        steps_offset=1,
        use_karras_sigmas=False,
    )
