"""Weights that are not whole, or not as the configurations describe them: a sentence before anything is encoded."""

import json
import shutil

import pytest
import torch
from bases import checkpoint, configure_single_files, folder
from safetensors.torch import load_file, save_file

from sdxl_nb.models.loading import load, load_pipeline, load_unet
from sdxl_nb.models.objective.base_objective import of
from sdxl_nb.models.sources import EMBEDDED, WEIGHTS, Source
from sdxl_nb.system.errors import ModelError

PARTS = list(WEIGHTS)
BASE = EMBEDDED["embedded:tiny-sdxl"]
FIRST = {  # the first matrix of each part, where its encoder or all of it is looked at
    "unet": "add_embedding.linear_1.weight",
    "vae": "encoder.conv_in.weight",
    "text_encoder": "text_model.embeddings.position_embedding.weight",
    "text_encoder_2": "text_model.embeddings.position_embedding.weight",
}
ONE, TWO = "conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."


def refusal(path, ask=of):
    with pytest.raises(ModelError) as error:
        ask(Source(str(path)))
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(path), "X")


@pytest.fixture
def base(tmp_path):
    return folder(tmp_path / "base", tiny=True)


def weights(base, part):
    return base / part / f"{WEIGHTS[part]}.safetensors"


def rewrite(base, part, change):
    """Change the tensors of a part, by `change(dict)`."""
    tensors = load_file(weights(base, part))
    change(tensors)
    weights(base, part).unlink()  # it may be a link to the embedded one
    save_file(tensors, weights(base, part), {"format": "pt"})


def in_shards(base, part):
    """The part in two shards with an index; the shards' paths."""
    tensors, stem = load_file(weights(base, part)), WEIGHTS[part]
    weights(base, part).unlink()
    names = {name: f"{stem}-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(sorted(tensors))}
    for shard in set(names.values()):
        save_file({name: tensor for name, tensor in tensors.items() if names[name] == shard}, base / part / shard)
    (base / part / f"{stem}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return sorted((base / part).glob("*-of-00002.safetensors"))


@pytest.mark.parametrize("part", PARTS)
def test_shards_that_are_missing_cut_or_unnamed(base, part):
    _, last = in_shards(base, part)
    of(Source(str(base)))  # whole as it is
    index, whole = f"{WEIGHTS[part]}.safetensors.index.json", last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    assert refusal(base) == (
        f"The {part} of X is truncated or no safetensors file (a pickle is never read, whatever its name): "
        "download it again, as .safetensors."
    )
    last.unlink()
    assert refusal(base) == f"The {part} of X lacks {last.name}, which {index} names: download it again."
    for text, fault in (
        ("{", "is not valid JSON"),
        ("{}", "names no files"),
        ('{"weight_map": [1]}', "names no files"),
    ):
        (base / part / index).write_text(text)
        assert refusal(base) == f"{index} of the {part} {fault}: download it again."


@pytest.mark.parametrize("part", PARTS)
def test_codes_are_no_weights(base, part):
    """Trained on as numbers up to 255, without a word."""
    key, plain = FIRST[part], shutil.copytree(base, base.parent / "plain")
    for dtype, name in ((torch.int8, "I8"), (torch.uint8, "U8"), (torch.int32, "I32")):
        rewrite(base, part, lambda tensors, dtype=dtype: tensors.update({key: (tensors[key] * 100).to(dtype)}))
        assert refusal(base) == (
            f"X holds quantised weights (its {part} has {key} of {name}), whose scales would be lost: "
            "give the fp16, bf16 or fp32 model."
        )
    scale = key.replace(".weight", ".weight_scale")
    rewrite(plain, part, lambda tensors: tensors.update({scale: torch.ones(1)}))
    assert f"(its {part} has the tensor {scale})" in refusal(plain)


@pytest.mark.parametrize("part", PARTS)
def test_tensors_that_are_missing_or_of_another_shape(base, part):
    key, whole = FIRST[part], shutil.copytree(base, base.parent / "whole")
    rewrite(base, part, lambda tensors: tensors.update({key: tensors[key][1:].clone()}))
    shape = load_file(weights(whole, part))[key].shape
    sizes = " x ".join(map(str, (shape[0] - 1, *shape[1:]))), " x ".join(map(str, shape))
    assert refusal(base) == (
        f"The {part} of X has {key} of {sizes[0]} numbers where its config.json says {sizes[1]}: "
        "download it again, or give another."
    )
    rewrite(base, part, lambda tensors: tensors.pop(key))
    named = key.removeprefix("text_model.")
    assert refusal(base) == f"The {part} of X lacks 1 of its tensors, {named} first: download it again."


@pytest.mark.parametrize(
    ("part", "about", "words"),
    [
        ("unet", {"block_out_channels": [64, 96, 96]}, "numbers where its config.json says"),
        ("unet", {"block_out_channels": [64]}, "cannot be as its config.json says"),
        ("unet", {"norm_num_groups": 7}, "cannot be as its config.json says"),
        ("vae", {"block_out_channels": [16, 16, 16, 16]}, "numbers where its config.json says"),
        ("text_encoder", {"num_hidden_layers": 40}, "of its tensors"),
        ("text_encoder", {"num_hidden_layers": "many"}, "cannot be as its config.json says"),
        ("text_encoder_2", {"intermediate_size": 11}, "numbers where its config.json says 11"),
        ("text_encoder_2", {"vocab_size": 49408}, "numbers where its config.json says 49408 x"),
    ],
)
def test_the_configuration_of_another_model(tmp_path, part, about, words):
    said = refusal(folder(tmp_path / "base", tiny=True, **{part: about}))
    assert words in said and said.startswith(f"The {part} of X ") and said.endswith(".")


@pytest.mark.parametrize("part", PARTS)
def test_a_part_without_its_configuration_or_its_weights(base, part):
    weights(base, part).rename(base / part / "pytorch_model.bin")
    said = "has no safetensors weights, and pickled ones (.bin) are never read: give a model that has."
    assert refusal(base) == f"The {part} of X {said}"
    (base / part / "config.json").unlink()
    (base / part / "pytorch_model.bin").rename(weights(base, part))
    what = "X has no unet/config.json" if part == "unet" else f"The {part} of X has no config.json"
    assert refusal(base) == f"{what}: download it again, or give a whole SDXL model."


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("text_encoder", f"{ONE}embeddings.token_embedding.weight"),
        ("text_encoder", f"{ONE}final_layer_norm.weight"),
        ("text_encoder_2", f"{TWO}text_projection"),
        ("text_encoder_2", f"{TWO}token_embedding.weight"),
        ("text_encoder_2", f"{TWO}transformer.resblocks.1.attn.in_proj_weight"),
        ("vae", "first_stage_model.quant_conv.weight"),
        ("unet", "model.diffusion_model.out.2.weight"),
    ],
)
def test_one_file_that_lacks_a_tensor_is_not_filled_with_random_numbers(tmp_path, monkeypatch, part, key):
    configure_single_files(monkeypatch)
    path, tensors = tmp_path / "model.safetensors", dict(checkpoint())
    taken = tensors.pop(key)
    save_file(tensors, path)
    said = refusal(path, load_pipeline)
    lacks = 3 if "in_proj" in key else 1  # q, k and v are one tensor there
    assert said == f"The {part} of X lacks {lacks} of its tensors, {key} first: download it again."
    save_file(tensors | {key: taken[..., 1:].clone()}, path)
    assert f"The {part} of X has {key} of " in (said := refusal(path)) and " numbers where SDXL has " in said


def test_what_only_drawing_needs_is_said_when_it_draws(base):
    key = "decoder.conv_in.weight"
    rewrite(base, "vae", lambda tensors: tensors.update({key: tensors[key][1:].clone()}))
    of(Source(str(base)))
    assert f"The vae of X has {key} of 63 x 4 x 3 x 3 numbers where its config.json says 64 x" in refusal(
        base, lambda source: load(source, "vae")
    )


def test_older_names_are_the_same_weights(base):
    """diffusers' VAEs before 0.17, and encoders of transformers 5 without `text_model.`."""
    older = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def rename(tensors):
        for name in list(tensors):
            new = next((name.replace(now, then) for now, then in older.items() if now in name), name)
            tensors[new.removeprefix("text_model.")] = tensors.pop(name)

    for part in ("vae", "text_encoder"):
        rewrite(base, part, rename)
    source = Source(str(base))
    of(source)
    theirs, ours = (load(each, "vae").state_dict() for each in (source, Source(str(BASE))))
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())


def test_a_base_is_looked_at_again_when_it_has_changed(base):
    source = Source(str(base))
    load_unet(source)
    rewrite(base, "unet", lambda tensors: tensors.pop(FIRST["unet"]))
    assert "lacks 1 of its tensors" in refusal(base, load_unet)


def test_another_vae_is_looked_at_too(base, tmp_path):
    vae = shutil.copytree(base / "vae", tmp_path / "vae")
    key = FIRST["vae"]
    tensors = load_file(vae / "diffusion_pytorch_model.safetensors")
    (vae / "diffusion_pytorch_model.safetensors").unlink()
    save_file(tensors | {key: (tensors[key] * 100).to(torch.int8)}, vae / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ModelError, match=r"vae holds quantised weights \(its vae has encoder.conv_in.weight of I8\)"):
        of(Source(str(base), vae=str(vae)))
