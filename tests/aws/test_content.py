"""What a job's places hold: told alike wherever they lie, and what SageMaker would bring beside it."""

import json

import pytest
from hub import Hub
from sagemaker_emulator import SageMakerEmulator

from sdxl_nb.aws import staging
from sdxl_nb.aws.identity import content, run_folder
from sdxl_nb.aws.identity.content import CHANNELS
from sdxl_nb.aws.messages import AwsError
from sdxl_nb.aws.session import Session
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import DataError


@pytest.fixture(scope="module", name="aws")
def aws_fixture(tmp_path_factory):
    with SageMakerEmulator(tmp_path_factory.mktemp("aws")) as emulator:
        yield emulator


@pytest.fixture
def put(aws):
    """Put objects into the bucket; they are gone afterwards."""
    made = []

    def put_(**objects):
        for key, body in objects.items():
            aws.client("s3").put_object(Bucket=aws.bucket, Key=key, Body=body)
            made.append(key)

    yield lambda objects: put_(**objects)
    for key in made:
        aws.client("s3").delete_object(Bucket=aws.bucket, Key=key)


def looked(aws, hub=False, **settings):
    config = TrainConfig(**{"seed": 1, "pretrained_model_name_or_path": "embedded:tiny-sdxl"} | settings)
    return staging.look(Session(), config, staging.plan(config, aws.bucket), hub=hub)


def write(folder, files):
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return folder


FILES = {"a.png": b"1", "b/c.txt": b"22", "b.txt": b"333"}


def test_the_same_files_are_told_alike_here_in_s3_and_in_the_job(aws, put, tmp_path):
    put({f"pics/{name}": body for name, body in FILES.items()} | {"pics/": b"", "pics-rejected/d.png": b"4"})
    (staged, notes) = looked(aws, train_data_dir=f"s3://{aws.bucket}/pics")
    assert staged.channels == {"train": f"s3://{aws.bucket}/pics/"} and not notes
    here, there = content.of_place(write(tmp_path / "pics", FILES)), staged.contents["train"]
    assert there.files == 3 and there.tells(here) and here.tells(there)
    place, heard = content.heard(staged.told())["train"]
    assert heard.tells(here) and place == content.short(f"s3://{aws.bucket}/pics/") and len(staged.told()) <= 512
    for name, body in {"a.png": b"12", "e.png": b"", "b/c.tx": b"22"}.items():
        other = content.of_place(write(tmp_path / name.replace("/", "-"), FILES | {name: body}))
        assert not heard.tells(other)
    assert not here.tells(content.of_place(write(tmp_path / "same-size", FILES | {"a.png": b"2"})))


def test_other_bytes_under_the_same_prefix_are_another_text(aws, put):
    put({"pics/a.png": b"1"})
    before = looked(aws, train_data_dir=f"s3://{aws.bucket}/pics")[0].told()
    assert looked(aws, train_data_dir=f"s3://{aws.bucket}/pics/")[0].told() == before
    put({"pics/a.png": b"2"})
    assert looked(aws, train_data_dir=f"s3://{aws.bucket}/pics")[0].told() != before


@pytest.mark.parametrize(
    ("setting", "key", "last"),
    [
        ("pretrained_model_name_or_path", "m/model.safetensors", "model.safetensors"),
        ("pretrained_vae_model_name_or_path", "m/vae.safetensors", "vae.safetensors"),
        ("train_data_dir", "sets/pictures.zip", "pictures.zip"),
        ("validation_data_dir", "sets/held.tar", "held.tar"),
    ],
)
def test_one_object_is_one_file_in_the_job(aws, put, setting, key, last):
    channel = CHANNELS[setting][0]
    put({key: b"weights", f"{key}.old": b"-"})
    staged, notes = looked(aws, **{setting: f"s3://{aws.bucket}/{key}"})
    assert staged.paths[setting] == f"/opt/ml/input/data/{channel}/{last}"
    assert staged.channels[channel] == f"s3://{aws.bucket}/{key}" and staged.contents[channel].files == 1
    assert notes == [
        f"1 other objects whose keys begin like that of s3://{aws.bucket}/{key} come along, and are not used."
    ]


def test_a_folder_called_like_a_file_stays_a_folder(aws, put):
    put({"x.safetensors/unet/config.json": b"{}"})
    staged, _ = looked(aws, pretrained_model_name_or_path=f"s3://{aws.bucket}/x.safetensors")
    assert staged.channels["model"].endswith("/x.safetensors/") and staged.paths == {
        "pretrained_model_name_or_path": "/opt/ml/input/data/model"
    }


def test_without_access_the_name_says_what_a_place_is():
    config = TrainConfig(
        train_data_dir="s3://b/pics", pretrained_model_name_or_path="s3://b/m.safetensors",
        pretrained_vae_model_name_or_path="s3://b", seed=1,
    )  # fmt: skip
    staged = staging.plan(config, "mine")
    assert staged.channels == {"train": "s3://b/pics/", "model": "s3://b/m.safetensors", "vae": "s3://b/"}
    assert staged.paths["pretrained_model_name_or_path"] == "/opt/ml/input/data/model/m.safetensors"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"pretrained_model_name_or_path": "s3://b/m.ckpt"}, r"m\.ckpt is a pickle, which can run code"),
        ({"train_data_dir": "s3://b/data.yaml"}, r"is a list, and a job gets that file alone"),
        ({"train_data_dir": "s3://"}, r"names no bucket"),
        ({"lora_weights": "none/such.safetensors"}, r"such\.safetensors is not there: give a LoRA file"),
        ({"base_lora": ["a.safetensors"]}, r"base_lora names files of this machine, .*: put them into the base"),
    ],
)
def test_places_that_no_job_can_train_on(settings, sentence):
    with pytest.raises(DataError, match=sentence):
        staging.plan(TrainConfig(**settings, seed=1), "mine")


def test_nothing_there_no_bucket_and_no_access(aws, put):
    put({"pics-rejected/a.png": b"1"})
    with pytest.raises(DataError, match=rf"There is nothing at s3://{aws.bucket}/pics/: give the prefix"):
        looked(aws, train_data_dir=f"s3://{aws.bucket}/pics")
    with pytest.raises(AwsError, match=r"s3://nowhere-b/x/ was not listed: There is no such bucket"):
        looked(aws, train_data_dir="s3://nowhere-b/x")
    aws.fail("s3:GET", "AccessDenied", status=403)
    staged, notes = looked(aws, train_data_dir=f"s3://{aws.bucket}/pics")
    aws.heal()
    assert staged.contents == {} and staged.told() == ""
    assert notes[0].startswith(f"What s3://{aws.bucket}/pics/ holds is not known here: s3://{aws.bucket}/pics/ was not")


def test_a_repository_is_told_by_its_files_and_not_by_what_is_said_of_them(aws, tmp_path, monkeypatch):
    folder = write(tmp_path / "naruto", {"data/a.parquet": b"1", "README.md": b"x"})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with Hub(datasets={"me/naruto": folder}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        staged, notes = looked(aws, hub=True, dataset_name="me/naruto")
        assert staged.hub == {"dataset": "me/naruto"} and staged.contents["dataset"].bytes.startswith("hub:")
        assert not notes and looked(aws, dataset_name="me/naruto")[0].told() == ""
    write(folder, {"data/a.parquet": b"2"})
    with Hub(datasets={"me/naruto": folder}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert looked(aws, hub=True, dataset_name="me/naruto")[0].told() != staged.told()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    _, notes = looked(aws, hub=True, dataset_name="me/naruto")
    assert notes == ["What me/naruto holds is not known here, the hub does not say: only its name counts."]


def test_texts_that_are_none_of_ours_say_nothing():
    for text in ("", "any", "[]", '{"train": 3}', '{"train": "a b"}', '{"train": "a b c d e"}', "null"):
        assert content.heard(text) == {}


# What came, and what was promised


def test_what_changed_after_the_start_is_refused_and_another_place_is_not(tmp_path, capsys):
    config = TrainConfig(train_data_dir=str(write(tmp_path / "train", FILES)), seed=1)
    found = run_folder.find(config)
    text = content.told({"train": ("s3://b/pics/", found["train"])})
    run_folder.refuse_changed(config, found, text, {})
    write(tmp_path / "train", {"d.png": b"4"})
    later = run_folder.find(config)
    with pytest.raises(DataError, match=r"^The pictures \(train\) changed .* \(3 files of 6 bytes then, 4 files of 7"):
        run_folder.refuse_changed(config, later, text, {})
    with pytest.raises(DataError):
        run_folder.refuse_changed(config, later, text, {"train": "s3://b/pics/"})
    assert capsys.readouterr().out == ""
    run_folder.refuse_changed(config, later, text, {"train": "s3://b/other/"})
    assert "train is s3://b/other/, not what was listed at the start" in capsys.readouterr().out


@pytest.mark.parametrize("setting", [name for name in CHANNELS if name != "dataset_name"])
def test_every_place_is_part_of_what_a_run_is(tmp_path, setting):
    settings = {"pretrained_model_name_or_path": "embedded:tiny-sdxl", "seed": 1}
    if setting == "class_data_dir":
        settings |= {"with_prior_preservation": True, "class_prompt": "a card"}
    config = TrainConfig(**settings | {setting: str(write(tmp_path / "place", FILES))})
    before = run_folder.name(config, run_folder.find(config))
    assert run_folder.name(config, run_folder.find(config)) == before != config.fingerprint()
    write(tmp_path / "place", {"a.png": b"9"})
    assert run_folder.name(config, run_folder.find(config)) != before


def test_another_run_of_the_same_settings_is_told_of(tmp_path):
    config = TrainConfig(train_data_dir=str(write(tmp_path / "train", FILES)), seed=1)
    first = run_folder.find(config)
    assert run_folder.remember(tmp_path / "c", "a", config, "11111111x", first) == []
    assert run_folder.remember(tmp_path / "c", "b", config, "11111111x", first) == []
    (tmp_path / "c" / "job-c.json").write_text("[3")
    write(tmp_path / "train", {"d.png": b"4"})
    assert run_folder.remember(tmp_path / "c", "d", config, "22222222x", run_folder.find(config)) == [
        "An earlier run of the same settings, 11111111, was trained on other pictures (3 files of 6 bytes then, "
        "4 files of 7 bytes now): this is another run."
    ]
    assert json.loads((tmp_path / "c" / "job-d.json").read_text())["run"] == "22222222x"


def test_class_pictures_of_another_base_are_drawn_anew(tmp_path):
    config = TrainConfig(pretrained_model_name_or_path=str(write(tmp_path / "model", FILES)), seed=1)
    before = run_folder.class_folder(config, run_folder.find(config))
    assert run_folder.class_folder(config.replace(rank=8), run_folder.find(config)) == before
    write(tmp_path / "model", {"a.png": b"9"})
    assert run_folder.class_folder(config, run_folder.find(config)) != before
