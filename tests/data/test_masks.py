"""Masks: where they come from, how they are cut with their picture, and what is refused."""

import io

import numpy as np
import pytest
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image

from sdxl_nb.audit.inspection import audit_dataset
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.crops import plan_crop
from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.data.decoding import PictureError
from sdxl_nb.data.masks import GIVEN, NONE, OWN, Masks, cut, has_shape, read_mask
from sdxl_nb.data.sampling import Choices
from sdxl_nb.system.errors import ConfigError, DataError
from sdxl_nb.widgets.dataset.cards import with_mask


def encoded(picture, kind="PNG", **options):
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def half(size, mode="L"):
    """White on the left, black on the right."""
    picture = Image.new(mode, size)
    picture.paste(Image.new(mode, (size[0] // 2, size[1]), "white"))
    return picture


def saved(folder, pictures, masks, column="mask"):
    """A saved data set with a column of masks; its TrainConfig's changes."""
    rows = {"image": [{"bytes": encoded(one)} for one in pictures], "text": ["a thing"] * len(pictures)}
    rows[column] = [None if mask is None else {"bytes": encoded(mask)} for mask in masks]
    table = Dataset.from_dict(rows).cast_column("image", ImageFeature()).cast_column(column, ImageFeature())
    table.save_to_disk(str(folder / "set"))
    return {"train_data_dir": str(folder / "set"), "masked_loss": True}


def fading(size):
    """Red, transparent on the right."""
    picture = Image.new("RGB", size, "red")
    picture.putalpha(half(size))
    return picture


def test_each_picture_has_its_mask_or_none(tmp_path):
    red = Image.new("RGB", (16, 8), "red")
    pictures = [red, red, fading((16, 8)), red.convert("RGBA")]
    given = open_dataset(TrainConfig(**saved(tmp_path, pictures, [half((16, 8)), None, None, None])))
    masks = Masks(given)
    assert masks.kinds.tolist() == [GIVEN, NONE, OWN, NONE]  # an alpha channel without transparency is no mask
    assert str(masks) == (
        "2 of 4 pictures have a mask, 1 of them by their transparency; the others are trained wholly."
    )
    masks.refuse_unusable()
    crop = plan_crop((8, 16), (8, 16), center_crop=True)
    wanted = [[255, 255, 0, 0]] * 2
    assert [masks.cut(i, crop, 4).tolist() for i in range(4)] == [wanted, [[255] * 4] * 2] * 2
    assert str(Masks(given.select([0]))) == "1 of 1 pictures have a mask."


def test_a_file_beside_the_picture_goes_before_its_transparency(tmp_path):
    white = Image.new("L", (16, 8), "white")
    given = open_dataset(TrainConfig(**saved(tmp_path, [fading((16, 8))], [white])))
    assert Masks(given).cut(0, plan_crop((8, 16), (8, 16), True), 4).tolist() == [[255] * 4] * 2


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(40, 24), (80, 48), (20, 12)])
def test_a_mask_is_cut_where_its_picture_is(size, flip):
    """The picture is its own mask: what is cut of both is the same, at whatever size the mask is painted."""
    picture = Image.new("L", (40, 24))
    picture.paste(255, (8, 4, 24, 16))
    crop = plan_crop((24, 40), (24, 24), flip=flip, u=0.3, v=0.8, interpolation="box")
    of_picture = np.asarray(crop.picture(picture)).reshape(6, 4, 6, 4).mean(axis=(1, 3))
    mask = cut(picture.resize(size, Image.Resampling.NEAREST), crop, 4)
    assert crop.left == 13 and mask.shape == (6, 6)
    np.testing.assert_allclose(mask, of_picture, atol=0.5 if size != (20, 12) else 65)  # half a pixel of it
    assert mask.max() == 255 and mask.min() == 0


@pytest.mark.parametrize("size", [(37, 53), (64, 64), (311, 200)])
def test_a_white_mask_stays_white(size):
    crop = plan_crop((size[1], size[0]), (48, 32), u=0.4, v=0.6)
    assert (cut(Image.new("L", size, 255), crop, 8) == 255).all()


@pytest.mark.parametrize(
    ("mask", "values"),
    [
        (half((4, 2)), [255, 255, 0, 0]),
        (half((4, 2), "1"), [255, 255, 0, 0]),
        (half((4, 2), "RGB"), [255, 255, 0, 0]),
        (half((4, 2), "RGB").quantize(2), [255, 255, 0, 0]),
        (Image.merge("LA", [Image.new("L", (4, 2), 255), half((4, 2))]), [255, 255, 0, 0]),  # painted on nothing
        (Image.fromarray(np.array([[65535, 32768, 0, 257]], np.uint16)), [255, 127, 0, 1]),
    ],
    ids=["L", "1", "RGB", "P", "LA", "I;16"],
)
def test_masks_as_editors_save_them(mask, values):
    assert np.asarray(read_mask(encoded(mask), "m.png"))[0].tolist() == values


def test_a_turned_mask_is_read_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = read_mask(encoded(half((8, 4)), exif=exif), "m.png")
    assert upright.size == (4, 8) and np.asarray(upright)[:, 0].tolist() == [255] * 4 + [0] * 4


def test_masks_that_are_none_name_what_to_do():
    with pytest.raises(PictureError, match=r"^m.png is not a picture that can be read: "):
        read_mask(b"GIF, not", "m.png")
    with pytest.raises(PictureError, match=r"^m.tif has F pixels \(32 bits a channel\): save it as an 8-bit grey"):
        read_mask(encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "m.tif")


def test_a_mask_of_another_shape_is_refused(tmp_path):
    red = Image.new("RGB", (16, 8), "red")
    there = saved(tmp_path, [red] * 3, [half((8, 8)), half((32, 16)), half((8, 16))])
    masks = Masks(open_dataset(TrainConfig(**there)))
    with pytest.raises(DataError) as refused:
        masks.refuse_unusable()
    assert str(refused.value) == (
        "the mask of row 0 is 8x8, another shape than its picture row 0 of 16x8: save it in the picture's shape, or "
        "remove it (1 other masks cannot be used either)."
    )
    assert [fault.name for fault in masks.faults] == ["row 0", "row 2"]


@pytest.mark.parametrize(
    ("size", "wanted", "same"),
    [
        ((100, 67), (1000, 667), True),
        ((128, 85), (1500, 1000), True),
        ((100, 100), (101, 100), True),
        ((100, 100), (102, 100), False),
        ((64, 64), (64, 128), False),
        ((64, 128), (128, 64), False),
    ],
)
def test_shapes_are_the_same_but_for_whole_pixels(size, wanted, same):
    assert has_shape(size, wanted) is has_shape(wanted, size) is same


def test_no_mask_at_all_is_refused(tmp_path):
    given = open_dataset(TrainConfig(**saved(tmp_path, [Image.new("RGB", (8, 8))], [None])))
    with pytest.raises(DataError, match=r"^None of the 1 pictures has a mask: add NAME-masklabel.png beside NAME"):
        Masks(given).refuse_unusable()


def test_a_column_is_named_or_refused(tmp_path):
    there = saved(tmp_path, [Image.new("RGB", (8, 8))], [half((8, 8))], column="where")
    assert open_dataset(TrainConfig(**there)).mask_bytes(0) is None
    assert open_dataset(TrainConfig(**there, mask_column="where")).mask_bytes(0) == encoded(half((8, 8)))
    with pytest.raises(DataError, match=r"has no column 'elsewhere' .* name the right one with --mask_column"):
        open_dataset(TrainConfig(**there, mask_column="elsewhere"))
    with pytest.raises(DataError, match=r"^the mask of row 0 cannot be opened \(No such file or directory\): check"):
        Masks(open_dataset(TrainConfig(**there, mask_column="text"))).refuse_unusable()


@pytest.mark.parametrize("name", ["mask_column", "unmasked_weight", "unmasked_probability"])
def test_settings_of_masks_need_masked_loss(name):
    value = "where" if name == "mask_column" else 0.5
    with pytest.raises(ConfigError, match=f"{name} needs masked_loss: add it, or drop {name}"):
        TrainConfig(**{name: value})
    assert TrainConfig(**{name: value}, masked_loss=True).masked_loss


def test_chances_come_from_a_stream_of_their_own():
    def at(position):
        return Choices.at(3, position, timesteps=1000, empty_share=0.1)

    drawn = [at(position).goes_unmasked(0.25) for position in range(4000)]
    assert abs(sum(drawn) - 1000) < 110 and drawn == [at(position).goes_unmasked(0.25) for position in range(4000)]
    asked, plain = at(7), at(7)
    asked.goes_unmasked(0.5)
    assert (asked.noise((4,)) == plain.noise((4,))).all() and not plain.goes_unmasked(0)


@pytest.mark.parametrize(("colour", "seen"), [("black", (0, 0, 0)), ("#102030", (16, 32, 48))])
def test_transparent_pictures_are_laid_on_a_colour(tmp_path, colour, seen):
    fading((16, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (16, 8), "red").save(tmp_path / "b.png")
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("red")
    given = open_dataset(TrainConfig(train_data_dir=str(tmp_path), alpha_background=colour))
    assert given[0].picture.getpixel((15, 0)) == seen and given[0].picture.getpixel((0, 0)) == (255, 0, 0)
    assert given.background(1) == "white"


def test_a_random_colour_is_the_seeds_and_the_pictures_own(tmp_path):
    fading((16, 8)).save(tmp_path / "a.png")
    fading((8, 8)).save(tmp_path / "b.png")
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("red")

    def colours(seed):
        given = open_dataset(TrainConfig(train_data_dir=str(tmp_path), alpha_background="random", seed=seed))
        return [given.background(index) for index in range(2)]

    assert colours(1) == colours(1) and len({*colours(1), *colours(2)}) == 4
    with pytest.raises(ConfigError, match="alpha_background must be white, black, random or a colour such as #808080"):
        TrainConfig(alpha_background="blue")


def in_a_folder(folder, *places, **pictures):
    """Red pictures with captions, and at each place a mask that is white on the left."""
    for place in places:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        half((16, 8)).save(folder / place)
    for name, picture in pictures.items():
        (picture or Image.new("RGB", (16, 8), "red")).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text("a thing")
    return TrainConfig(train_data_dir=str(folder), masked_loss=True)


def test_masks_in_a_folder_belong_to_their_pictures(tmp_path):
    config = in_a_folder(tmp_path, "a-masklabel.png", "masks/b.png", a=None, b=None, c=fading((16, 8)), d=None)
    given = open_dataset(config)
    masks = Masks(given)
    assert list(given.names) == ["a.png", "b.png", "c.png", "d.png"] and not given.faults
    assert masks.kinds.tolist() == [GIVEN, GIVEN, OWN, NONE]
    assert [given.mask_name(index) for index in (0, 1)] == ["a-masklabel.png", "b.png"]
    assert [np.asarray(masks.read(index))[0, [0, 15]].tolist() for index in range(3)] == [[255, 0]] * 3


def test_the_audit_tells_of_masks(tmp_path):
    config = in_a_folder(tmp_path, "a-masklabel.png", a=None, b=Image.new("RGB", (64, 64), "red"), c=fading((16, 8)))
    half((9, 8)).save(tmp_path / "b-masklabel.png")
    report = audit_dataset(config.replace(pretrained_model_name_or_path="embedded:tiny-sdxl"), progress=False)
    told = {finding.kind: finding for finding in report.findings}
    assert report.fails and told["unusable_mask"].files == ["b.png"]
    assert told["masks"].message == "3 of 3 pictures have a mask, 1 of them by their transparency."
    assert "transparent" not in told


def test_the_browser_paints_what_is_not_trained_blue():
    seen = with_mask(Image.new("RGB", (16, 8), "red"), half((16, 8)))
    assert seen.getpixel((0, 0)) == (255, 0, 0) and seen.getpixel((15, 7)) == (119, 46, 129)
