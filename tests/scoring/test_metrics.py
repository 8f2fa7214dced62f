"""Each metric by hand, on embeddings that one can compute in the head."""

import numpy as np
import pytest
from PIL import Image
from small_encoders import clip, dino

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.scoring import metrics
from sdxl_nb.scoring.asked import _usual
from sdxl_nb.scoring.encoders import AestheticHead, Pixels, open_encoder
from sdxl_nb.scoring.evidence import Evidence, Training
from sdxl_nb.scoring.registry import as_scorer
from sdxl_nb.scoring.scorer import REGISTERED, Scorer, scorer
from sdxl_nb.system.errors import ConfigError, ModelError, SdxlNbError

EAST, NORTH, WEST = (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)
BETWEEN = (0.6, 0.8)
VALUES = (EAST, NORTH, WEST, BETWEEN)


class Known:
    """An encoder that embeds a picture by its one pixel, and texts by their words."""

    name = "known"

    def pictures(self, pictures):
        return np.array([VALUES[picture.getpixel((0, 0))] for picture in pictures], np.float32)

    def texts(self, texts):
        return np.array([{"east": EAST, "west": WEST}[text] for text in texts], np.float32), 1


def picture(value):
    return Image.new("L", (1, 1), value)


def evidence(rows, trained=(EAST, NORTH), **more):
    training = Training([f"{number}.png" for number in range(len(trained))], np.array(trained, np.float32))
    pictures = [[picture(value) for value in row] for row in rows]
    seeds = range(len(rows[0]))
    given = {"trained": training, "image_encoder": Known(), "text_encoder": Known()} | more
    return Evidence(5, ["east", "west"][: len(rows)], seeds, pictures, **given)


def test_likeness_is_the_mean_cosine_to_all_training_pictures():
    assert metrics.likeness(evidence([[0, 1], [2, 3]])) == pytest.approx(np.array([[0.5, 0.5], [-0.5, 0.7]]))


def test_the_clip_score_is_a_hundred_cosines_and_never_negative():
    values, remark = metrics.prompt(evidence([[0, 3], [0, 2]]))
    assert values == pytest.approx(np.array([[100.0, 60.0], [0.0, 100.0]]))
    assert remark == "1 of 2 prompts are longer than known reads: it saw their beginnings."


def test_diversity_is_one_minus_the_mean_cosine_to_the_other_seeds():
    assert metrics.diversity(evidence([[0, 0, 1]])) == pytest.approx(np.array([[0.5, 0.5, 1.0]]))
    assert metrics.diversity(evidence([[0, 2]])) == pytest.approx(np.array([[2.0, 2.0]]))


def test_a_copy_is_nearer_than_training_pictures_usually_are():
    shown = evidence([[0, 3], [2, 2]], trained=(EAST, NORTH, BETWEEN))
    # nearest others: 0.6, 0.8, 0.8 -> 95 % of them are below 0.8; pictures: 1, 1, and west is at -0.6 of BETWEEN
    assert shown.training.usual == pytest.approx(0.8)
    values, remark = metrics.copying(shown)
    assert values == [[1.0, 1.0], [0.0, 0.0]]
    assert remark == (
        "Nearest to a training picture is seed 0 of 'east': to 0.png, cosine 1.000; "
        "0.800 is usual between training pictures."
    )


def test_drift_is_the_mean_difference_of_pixels():
    plain = [[Image.new("RGB", (2, 2), (10, 20, 30)), Image.new("RGB", (2, 2), (0, 0, 0))]]
    base = [[Image.new("RGB", (2, 2), (16, 20, 30)), Image.new("RGB", (2, 2), (0, 0, 0))]]
    assert metrics.drift(evidence([[0]], plain=plain, plain_base=base)) == [[2.0, 0.0]]


def test_the_held_out_loss_has_a_value_for_each_picture():
    assert metrics.heldout_loss(evidence([[0]], losses=[0.5, 0.25])) == [[0.5], [0.25]]


def head(folder, **tensors):
    from safetensors.numpy import save_file

    path = folder / "head.safetensors"
    save_file({name.replace("_", "."): np.array(value, np.float32) for name, value in tensors.items()}, path)
    return str(path)


def test_an_aesthetic_head_is_linear_layers_one_after_the_other(tmp_path):
    one = AestheticHead(head(tmp_path, weight=[[2.0, 3.0]], bias=[1.0]))
    assert metrics.aesthetic(evidence([[0, 1]], aesthetic_head=one)) == [[3.0, 4.0]]
    two = {"layers_0_weight": [[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], "layers_0_bias": [0.0, 0.0, 1.0]}
    two |= {"layers_10_weight": [[1.0, 1.0, 1.0]], "layers_10_bias": [0.5]}
    assert metrics.aesthetic(evidence([[0, 1]], aesthetic_head=AestheticHead(head(tmp_path, **two)))) == [[3.5, 4.5]]
    with pytest.raises(ModelError, match="must hold linear layers that end in one number"):
        AestheticHead(head(tmp_path, weight=[[1.0], [2.0]]))
    with pytest.raises(ModelError, match="takes 3 numbers and the text encoder gives 2"):
        AestheticHead(head(tmp_path, weight=[[1.0, 1.0, 1.0]]))(np.zeros((1, 2)))
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match="cannot be read"):
        AestheticHead(str(tmp_path / "torn.safetensors"))
    with pytest.raises(ModelError, match=r"must be a \.safetensors file"):
        AestheticHead("head.pth")


def test_a_scorer_that_did_not_say_what_it_needs_is_told():
    bare = Evidence(1, ["east"], [0], [[picture(0)]])
    with pytest.raises(SdxlNbError, match=r'needs=\("image", "training"\)'):
        bare.training  # noqa: B018
    with pytest.raises(SdxlNbError, match=r'needs=\("text",\)'):
        bare.text  # noqa: B018


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, "must return lists of numbers"),
        ([["a"]], "must return lists of numbers"),
        ([[]], "returned no value for a prompt"),
        ([[float("nan")]], "returned a value that is no finite number at step 5"),
    ],
)
def test_a_scorer_that_gives_no_numbers_is_named(given, message):
    with pytest.raises(SdxlNbError, match=f"Scorer odd {message}"):
        Scorer("odd", lambda evidence: given).values(evidence([[0]]))


def test_a_scorer_says_what_it_is_once_and_in_words_that_are_known():
    with pytest.raises(ConfigError, match="unknown need picture of scorer odd: did you mean pictures"):
        Scorer("odd", len, needs=("picture",))
    with pytest.raises(ConfigError, match="better must be higher or lower, not 'more'"):
        Scorer("odd", len, "more")
    with pytest.raises(ConfigError, match="drift is a metric already"):
        scorer("drift")(len)
    scorer("redness_of_tests", "lower", sentence="Red.")(len)
    try:
        assert as_scorer("redness_of_tests") == Scorer("redness_of_tests", len, "lower", sentence="Red.")
        assert as_scorer(len).name == "redness_of_tests"
    finally:
        del REGISTERED["redness_of_tests"]


def test_pixels_are_the_middle_square_around_grey():
    flat = Pixels().pictures([Image.new("RGB", (50, 30), "white"), Image.new("RGB", (7, 9), "black")])
    assert flat.shape == (2, 3072) and flat[0] @ flat[1] == pytest.approx(-1) and flat[0] @ flat[0] == pytest.approx(1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    return clip(folder / "clip"), dino(folder / "dino")


def test_encoders_are_those_of_transformers_at_length_one(folders):
    import torch
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, Dinov2Model

    pictures = [Image.effect_noise((40, 50), 90).convert("RGB"), Image.new("RGB", (64, 64), "red")]
    for folder, kind in zip(folders, (CLIPModel, Dinov2Model), strict=True):
        model, found = kind.from_pretrained(folder).eval(), open_encoder(folder).pictures(pictures)
        pixels = AutoImageProcessor.from_pretrained(folder)(images=pictures, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            vision = model.vision_model if kind is CLIPModel else model
            pooled = vision(pixels).pooler_output
            own = (model.visual_projection(pooled) if kind is CLIPModel else pooled).numpy()
        np.testing.assert_allclose(found, own / np.linalg.norm(own, axis=-1, keepdims=True), atol=1e-5)
    clip_folder, texts = folders[0], ["a cat", "a cat that is far too long for sixteen tokens"]
    embedded, cut = open_encoder(clip_folder).texts(texts)
    with torch.no_grad():
        tokens = AutoTokenizer.from_pretrained(clip_folder)(texts[:1], return_tensors="pt")
        one = CLIPModel.from_pretrained(clip_folder).eval()
        own = one.text_projection(one.text_model(**tokens).pooler_output).numpy()[0]
    np.testing.assert_allclose(embedded[0], own / np.linalg.norm(own), atol=1e-5)
    assert cut == 1 and embedded.shape == (2, 16)


def test_what_is_no_encoder_is_refused_in_one_sentence(folders, tmp_path):
    import shutil

    with pytest.raises(ModelError, match="reads no text: give a CLIP or SigLIP"):
        open_encoder(folders[1]).texts(["a"])
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"holds pickles, which can run code, and no \.safetensors"):
        open_encoder(str(pickled))
    broken = tmp_path / "broken"
    shutil.copytree(folders[1], broken)
    (broken / "config.json").write_text('{"model_type": "never-heard-of"}')
    with pytest.raises(ModelError, match="is not an encoder that transformers reads"):
        open_encoder(str(broken))
    with pytest.raises(ModelError, match=r"The encoder: no-one/nothing .* Or give a local folder, or pixels"):
        open_encoder("no-one/nothing")


def test_what_a_run_draws_is_what_it_is_scored_by():
    config = TrainConfig(validation_prompt=["a cat"], sample_prompts=["a red cup --w 832 --h 1216", "a cat --s 9"])
    assert _usual(config, None, []) == ["a cat", "a red cup"]
