"""A random SDXL of the right structure, made in milliseconds: for tests that need shapes and names, not pictures."""

import torch

WIDE = {  # the architecture of stabilityai/stable-diffusion-xl-base-1.0's U-Net
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "norm_num_groups": 32,
}
SMALL = {
    "sample_size": 8,
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 1,
    "transformer_layers_per_block": (1, 2, 1),
    "attention_head_dim": (1, 2, 2),
    "cross_attention_dim": 64,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 32 + 6 * 8,
    "norm_num_groups": 4,
}


def make_unet(device="cpu", **changes):
    """A U-Net with SDXL's blocks; `make_unet("meta", **WIDE)` is the real SDXL's, without weights."""
    from diffusers import UNet2DConditionModel

    config = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        **SMALL,
        **changes,
    }
    torch.manual_seed(0)
    with torch.device(device):
        return UNet2DConditionModel(**config).eval().requires_grad_(False)


def make_text_encoders():
    """Two CLIP text encoders of hidden size 32, two layers each."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    def config():
        return CLIPTextConfig(
            vocab_size=514,
            hidden_size=32,
            intermediate_size=64,
            projection_dim=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
            bos_token_id=512,
            eos_token_id=513,
            pad_token_id=513,
        )

    torch.manual_seed(0)
    encoders = CLIPTextModel(config()), CLIPTextModelWithProjection(config())
    return tuple(encoder.eval().requires_grad_(False) for encoder in encoders)


def make_tokenizer():
    """Byte-level CLIP tokenizer without merges: 514 entries, 16 tokens."""
    from transformers import CLIPTokenizer

    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    entries = [*characters, *(c + "</w>" for c in characters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(entries)}
    return CLIPTokenizer(vocab=vocab, merges=[], pad_token="<|endoftext|>", model_max_length=16)


def make_pipeline(**unet_changes):
    """A whole StableDiffusionXLPipeline on the CPU: pictures of 32 x 32 pixels, random and worthless."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline

    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
        force_upcast=False,
    )
    text_encoder, text_encoder_2 = make_text_encoders()
    tokenizer = make_tokenizer()
    pipeline = StableDiffusionXLPipeline(
        vae=vae.eval().requires_grad_(False),
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=make_unet(**unet_changes),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
