"""A captioner by name: tiny random models that this test makes, read from their folders, and what is refused."""

import json

import pytest
import torch
from PIL import Image
from test_editing import png

from sdxl_nb import DatasetBrowser, TrainConfig
from sdxl_nb.system.errors import DataError, ModelError
from sdxl_nb.widgets.dataset.captioner import Captioner

pytestmark = pytest.mark.slow

WORDS = ["a", "red", "green", "blue", "square", "on", "sand"]
SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
NARROW = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SIGHT = {**NARROW, "image_size": 16, "patch_size": 8}


def tokenizer_in(folder):
    from transformers import BertTokenizerFast

    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL.values(), *WORDS]))
    return BertTokenizerFast(str(folder / "vocab.txt"), **{f"{name}_token": word for name, word in SPECIAL.items()})


def blip(folder):
    """BLIP: a processor of its own for pictures and words."""
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    tokenizer = tokenizer_in(folder)
    ids = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = {**NARROW, "vocab_size": len(tokenizer), "encoder_hidden_size": 8, "projection_dim": 8, **ids}
    config = BlipConfig(text_config=text, vision_config={**SIGHT, "projection_dim": 8}, projection_dim=8)
    torch.manual_seed(0)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 16, "width": 16}), tokenizer).save_pretrained(folder)


def pair(folder):
    """A vision encoder and a decoder, with no processor of both."""
    from transformers import (
        BertConfig,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessor,
    )

    tokenizer = tokenizer_in(folder)
    words = BertConfig(**NARROW, vocab_size=len(tokenizer), is_decoder=True, add_cross_attention=True)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**SIGHT), words)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 0, 3
    torch.manual_seed(0)
    model = VisionEncoderDecoderModel(config=config)
    model.generation_config.decoder_start_token_id, model.generation_config.pad_token_id = 2, 0
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def asked(folder):
    """LLaVA: a model that answers what it is asked of a picture, and repeats the question."""
    from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tokenizer = tokenizer_in(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    words = {**NARROW, "model_type": "llama", "vocab_size": len(tokenizer), "eos_token_id": 3, "pad_token_id": 0}
    sight = {**SIGHT, "model_type": "clip_vision_model", "projection_dim": 8}
    config = LlavaConfig(vision_config=sight, text_config=words, image_token_index=len(tokenizer) - 1)
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    pictures = CLIPImageProcessor(size={"height": 16, "width": 16}, crop_size={"height": 16, "width": 16})
    talk = (
        "{% for turn in messages %}{% for part in turn.content %}{{ part.text or '<image>' }}{% endfor %}{% endfor %}"
    )
    options = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    LlavaProcessor(pictures, tokenizer, chat_template=talk, **options).save_pretrained(folder)


@pytest.mark.parametrize(("make", "goes_on"), [(blip, True), (pair, False), (asked, False)])
def test_a_model_in_a_folder_describes_pictures(tmp_path, make, goes_on):
    make(tmp_path / "model")
    captioner = Captioner(tmp_path / "model", longest=8)
    assert not captioner.is_loaded  # nothing is read before it is needed
    said = captioner(Image.new("RGB", (20, 12), "red"))
    assert said and set(said.split()) <= {*WORDS, SPECIAL["unk"]} and len(said.split()) <= 9
    assert captioner(Image.new("RGB", (20, 12), "red")) == said  # nothing is drawn by chance
    captioner.close()
    captioner.question = "red green blue"  # which BLIP goes on from, and LLaVA answers
    assert not captioner.is_loaded
    assert captioner(Image.new("RGB", (20, 12), "red")).startswith("red green blue") == goes_on


def test_captions_are_written_by_a_model_of_a_name_and_its_memory_given_back(tmp_path):
    blip(tmp_path / "model")
    (pictures := tmp_path / "pictures").mkdir()
    for name, colour in (("a", "red"), ("b", "blue")):
        (pictures / f"{name}.png").write_bytes(png(colour))
    config = TrainConfig.preset("tiny", train_data_dir=str(pictures))
    browser = DatasetBrowser(config, captioner=str(tmp_path / "model"))
    said = []
    browser._progress.observe(lambda change: said.append(change["new"]), "value")
    assert browser.caption() == 2 and browser._count.value == "<b>2 of 2 captioned</b>"
    assert all((pictures / f"{name}.txt").read_text().strip() for name in "ab")
    assert "Loading" in said[0] and "the first time it is fetched" in said[0] and said[-1] == ""
    assert not browser.captioner.is_loaded


def test_the_writing_is_cancelled_and_what_is_no_caption_is_not_written(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(png())
    config, answers = TrainConfig.preset("tiny", train_data_dir=str(tmp_path)), iter(["", "two\nlines "])

    def captioner(picture):
        assert browser._cancels.layout.display is None
        word = next(answers)
        if word:
            browser._cancels.click()
        return word

    browser = DatasetBrowser(config, captioner=captioner)
    assert browser.caption() == 1 and browser._cancels.layout.display == "none"
    assert "1 captions written before it was cancelled" in browser._notice.value
    assert "It had no words for 1, which still lack one." in browser._notice.value
    assert [path.name for path in tmp_path.glob("*.txt")] == ["b.txt"]
    assert (tmp_path / "b.txt").read_text() == "two lines\n"
    browser.captioner = lambda picture: None
    with pytest.raises(DataError, match=r"The captioner gave None for a\.png, not words: have it return a text"):
        browser.caption()
    assert not (tmp_path / "a.txt").exists() and browser._cancels.layout.display == "none"


def test_what_is_no_captioner_is_one_sentence(tmp_path):
    config = TrainConfig.preset("tiny", train_data_dir=str(tmp_path))
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    for given, words in (
        (7, "captioner must be a function of a picture, or the name of a model, not 7"),
        (
            str(tmp_path / "pickled"),
            "holds pickles, which can run code, and no .safetensors: give the folder of a capt",
        ),
        (str(tmp_path / "gone"), "gone does not exist"),
        ("https://example.com/model", "is an address"),
    ):
        with pytest.raises((DataError, ModelError), match=words):
            DatasetBrowser(config, captioner=given)
    blip(other := tmp_path / "other")
    about = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(about | {"model_type": "bert", "architectures": ["BertModel"]}))
    with pytest.raises(ModelError, match="is not a captioner that transformers reads from safetensors") as told:
        Captioner(other)(Image.new("RGB", (8, 8)))
    assert "\n" not in str(told.value)
    (other / "config.json").write_text(json.dumps(about | {"model_type": "own", "auto_map": {"AutoConfig": "own.C"}}))
    (other / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match="is not a captioner"):
        Captioner(other)(Image.new("RGB", (8, 8)))
    assert not (tmp_path / "ran").exists()
