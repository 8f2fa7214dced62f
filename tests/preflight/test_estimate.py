"""Predicted against measured: memory of really trained configurations, steps, and the table for real SDXL."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_runs import small, train, whole

from sdxl_nb import TrainConfig, estimate
from sdxl_nb.models import architectures
from sdxl_nb.preflight import counting, looks, prices
from sdxl_nb.preflight.forecast import IMPORTS, SPARE, Forecast
from sdxl_nb.system.errors import ConfigError, SdxlNbError
from sdxl_nb.training import disk

pytestmark = pytest.mark.slow

FIVE = [  # other resolutions, batches, ranks, targets, precisions, and checkpointing
    {"train_batch_size": 4, "resolution": 64},
    {"train_batch_size": 4, "resolution": 64, "gradient_checkpointing": True},
    {"train_batch_size": 7, "resolution": 64, "target_modules": "all", "rank": 16},
    {"train_batch_size": 2, "resolution": 128, "mixed_precision": "bf16"},
    {"train_batch_size": 4, "resolution": 128, "lora_dropout": 0.1, "target_modules": "attention+ff"},
]


def predicted(config):
    built = architectures.of(config)
    many = config.train_batch_size
    return counting.count_step(config, built.unet, built.scale, built.tokens, pictures=many, cuda=False)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The peak bytes of FIVE as they were really trained, in a process of their own."""
    folder = tmp_path_factory.mktemp("measured")
    script = Path(__file__).with_name("measure_peaks.py")
    environment = {**os.environ, "SDXL_NB_CACHE": str(folder / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), str(folder), json.dumps(FIVE)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.soak
@pytest.mark.parametrize("number", range(len(FIVE)))
def test_predicted_peak_is_the_measured_one(measured, number, tmp_path):
    count = predicted(small(tmp_path / "run", **FIVE[number]))
    assert count.peak == pytest.approx(measured[number], rel=0.15)
    assert count.peak > 1.3 * count.resident  # so that it is not the weights alone that agree


def test_a_batch_grows_in_proportion():
    config = TrainConfig.preset("tiny")
    built = architectures.of(config)
    one, eight = (
        counting.count_step(config, built.unet, built.scale, built.tokens, pictures=many, cuda=False) for many in (1, 8)
    )
    assert one.at(8).peak == pytest.approx(eight.peak, rel=0.05)
    assert one.at(8).flops == pytest.approx(eight.flops, rel=0.01)
    assert (one.frozen, one.trained) == (eight.frozen, eight.trained)


def test_flops_are_those_of_torch_on_the_real_model():
    from torch.utils.flop_counter import FlopCounterMode

    config = TrainConfig.preset("tiny", target_modules="attention", train_batch_size=2)
    built = architectures.of(config)
    unet, flat = counting._ready(config, built.unet, torch.float32, torch.device("cpu"))
    flat.zero_grad()
    with FlopCounterMode(display=False) as flops, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        counting._forward(unet, built.unet, (16, 16), built.tokens, 2, torch.float32).backward()
    counted = counting.count_step(config, built.unet, built.scale, built.tokens, pictures=2, cuda=False)
    assert counted.flops == pytest.approx(flops.get_total_flops(), rel=0.03)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_train_epochs": 3, "max_train_steps": None},
        {"num_train_epochs": 2, "gradient_accumulation_steps": 2, "max_train_steps": None},
        {"max_train_steps": 5},
    ],
)
def test_steps_are_exactly_those_of_training(tmp_path, changes):
    config = small(tmp_path / "run", checkpointing_steps=1000, **changes)
    (row,) = estimate(config, ()).rows
    seen = []
    train(config, lambda event: seen.append(event) if event["event"] == "step" else None)
    assert row.steps == len(seen)


def test_steps_on_several_gpus(tmp_path):
    config = small(tmp_path / "run", num_train_epochs=3, max_train_steps=None)
    row = estimate(config, "ml.g5.12xlarge", here=False).rows[0]
    assert (row.machine.count, row.steps) == (4, 3 * 1)  # 7 pictures, 2 a process on 4
    row = estimate(config, "ml.g5.xlarge", here=False).rows[0]
    assert row.steps == 3 * 4


@pytest.fixture(scope="module")
def real():
    """Real SDXL's table, and the processor seconds that it took."""
    begun = time.process_time()
    config = TrainConfig(mixed_precision="bf16", rank=16, train_batch_size=16, num_train_epochs=10, seed=0)
    table = estimate(config, ("ml.g4dn.xlarge", "ml.g5.2xlarge", "ml.p5.4xlarge"), pictures=100, here=False)
    return table, time.process_time() - begun


@pytest.mark.soak
def test_estimates_take_little_time(real, tmp_path):
    """Of the processor, which takes longer for the same where much else runs."""
    assert real[1] < 60
    begun = time.process_time()
    estimate(small(tmp_path / "run"), ())
    assert time.process_time() - begun < 20


def test_real_sdxl_is_counted(real):
    table, _ = real
    unet, copies = 2 * 2_567_463_684, 4 * table.count.trained  # in bf16; the LoRA and its gradient as well
    assert unet < table.count.frozen - copies < 1.02 * unet  # some of them lie in products a second time
    assert table.count.trained == 4 * 5_806_080
    assert 4.5e9 < table.count.kept < 5.2e9
    assert 13.5e12 < table.count.flops < 15e12
    assert 3800 < table.count.operations < 3950
    assert architectures.SDXL.text_parameters() == 817_720_320


def test_real_sdxl_says_what_fits(real):
    old, middle, large = real[0].rows
    assert not old.fits and "no bf16" in old.note
    assert (middle.micro_batch, middle.note) == (2, "2 at a time")
    assert large.micro_batch == 8 and large.peak < large.machine.memory
    assert large.seconds < middle.seconds
    assert large.steps == 10 * 7
    assert large.cost(large.machine.hourly) == pytest.approx((large.seconds * 70 + large.around) / 3600 * 7.912)
    assert large.cost(large.machine.spot) < large.cost(large.machine.hourly)


def test_advice_is_in_order_and_each_takes_less(real):
    flags = [flag for flag, _ in real[0].advice]
    assert flags == ["--train_batch_size 1", "--gradient_checkpointing", "--optimizer adamw8bit"]
    assert all(size < 90e9 for _, size in real[0].advice)


def test_table_displays_itself(real):
    text, page = str(real[0]), real[0]._repr_html_()
    assert "ml.g5.2xlarge" in text and "To make it smaller: --gradient_checkpointing: " in text
    assert "list price of 2" in text and "assume 40%" in text
    assert page.count("<tr>") == 4 and "color:#" not in page
    assert [row["machine"] for row in json.loads(json.dumps(real[0].as_dicts()))][1] == "ml.g5.2xlarge"


def test_this_machine_is_timed(tmp_path):
    (row,) = estimate(small(tmp_path / "run"), ()).rows
    assert row.measured and row.seconds > 0 and row.fits


@pytest.mark.soak
def test_cuda_graphs_keep_a_steps_memory_while_pictures_are_drawn(tmp_path):
    drawn = {"resolution": 64, "sample_prompts": ["a red circle --w 512 --h 512"]}
    plain = small(tmp_path, **drawn)
    jobs = [Forecast(config, architectures.of(config), 4) for config in (plain, plain.replace(cuda_graphs=True))]
    count = jobs[0].count.at(1)
    held = (count.peak - count.resident) * SPARE
    assert jobs[1].peak(1) - jobs[0].peak(1) == pytest.approx(held, abs=2) and held > 0


def test_start_up_encoding_and_drawing_are_in_the_time_of_the_whole(tmp_path):
    def around(**changes):
        (row,) = estimate(small(tmp_path / "run", **changes), "ml.g5.2xlarge", here=False).rows
        assert row.hours == pytest.approx((row.seconds * row.steps + row.around) / 3600)
        return row.around

    plain, uncached = around(), around(cache_latents=False)
    drawn = [around(validation_prompt=["a card"], num_validation_images=many) - plain for many in (2, 4)]
    assert plain > uncached > IMPORTS and drawn[1] == pytest.approx(2 * drawn[0]) and drawn[0] > 0


def test_two_pictures_of_a_pair_are_twice_the_work(tmp_path):
    (row,), (pairs,) = (  # both take the layers one by one
        estimate(small(tmp_path / "run", **each), "ml.g5.2xlarge", here=False).rows
        for each in ({"tlora_min_rank": 1}, {"slider_negative_dir": "opposites"})
    )
    assert pairs.seconds == pytest.approx(2 * row.seconds) and pairs.around > row.around


def test_sample_prompts_are_estimated_by_their_own_sizes_and_steps(tmp_path):
    def about(*lines):
        config = small(tmp_path / "run", sample_prompts=list(lines) or None)
        (row,) = estimate(config, "ml.g5.2xlarge", here=False).rows
        return row.peak, row.around

    (least, plain), (small_peak, drawn) = about(), about("a --w 64 --h 64 --s 4")
    twice = about("a --w 64 --h 64 --s 8")[1]
    assert twice - plain > 1.6 * (drawn - plain) > 0  # decoding is no more
    large, longer = about("a --w 64 --h 64 --s 4", "a --w 512 --h 1024 --s 4")
    assert large > small_peak >= least and longer > drawn
    square = about("a --w 768 --h 768 --s 4")[0]
    assert square > large  # 589,824 pixels, beside 524,288


def test_pictures_together_are_those_of_one_size(tmp_path):
    lines = ["a --w 256 --h 256 --l 1"] * 3 + ["b --w 256 --h 512"] * 3 + ["c --w 512 --h 1024 --l 7.5"]
    drawings = small(tmp_path / "run", sample_prompts=lines).drawings()
    found = [looks._together(drawings[number], drawings) for number in (0, 3, 6)]
    assert found == [(256, 256, 3), (512, 256, 2 * 2), (1024, 512, 2)]


def test_what_stays_on_the_device_is_counted(tmp_path):
    base = {"resolution": 64, "train_batch_size": 1}

    def peak(**changes):
        return estimate(small(tmp_path / "run", **base, **changes), "ml.g5.xlarge", here=False).rows[0].peak

    least = peak()
    assert peak(cache_text_embeddings=False) > least
    assert peak(cache_latents=False) > least
    assert peak(train_text_encoder=True) > peak(cache_text_embeddings=False)
    assert peak(optimizer="adamw8bit") < least


def test_an_unknown_instance_names_the_nearest():
    with pytest.raises(ConfigError, match=r"ml\.g5\.2xlarg is not known here: did you mean ml\.g5\.2xlarge\?"):
        estimate(TrainConfig.preset("tiny"), "ml.g5.2xlarg")


def test_unknown_pictures_are_said(tmp_path):
    (tmp_path / "d").mkdir()
    config = TrainConfig.preset("tiny", train_data_dir=str(tmp_path / "d"), max_train_steps=None)
    table = estimate(config, ())
    assert table.rows[0].steps is None and "is empty" in str(table)


# Prices.


class FakePrices:
    """What the AWS price list answers."""

    def __init__(self, usagetype):
        self.usagetype, self.asked = usagetype, None

    def get_products(self, **request):
        self.asked = request
        hourly = {"unit": "Hrs", "pricePerUnit": {"USD": "1.7770000000"}}
        product = {
            "product": {"attributes": {"usagetype": self.usagetype}},
            "terms": {"OnDemand": {"x": {"priceDimensions": {"y": hourly}}}},
        }
        return {"PriceList": [json.dumps(product)]}


def test_prices_of_today_where_aws_answers():
    client = FakePrices("EUC1-Train:ml.g5.2xlarge")
    assert prices.find("ml.g5.2xlarge", "eu-central-1", client) == prices.Price(1.777, "AWS price list today")
    assert {"Type": "TERM_MATCH", "Field": "regionCode", "Value": "eu-central-1"} in client.asked["Filters"]


def test_dated_prices_where_it_does_not():
    hosting = FakePrices("USE1-Host:ml.g5.2xlarge")
    assert prices.find("ml.g5.2xlarge", "us-east-1", hosting).source == "list price of 2026-09-27"
    assert prices.find("ml.g5.2xlarge", "eu-central-1", hosting) is None
    assert prices.price("ml.g5.2xlarge") == 1.515
    assert prices.price("ml.t3.medium") is None and prices.stored("ml.p5en.48xlarge") is None
    assert prices.price("ml.g7e.2xlarge") == 4.2039 and prices.instance("ml.g7e.2xlarge").memory_gb > 96


def test_money_is_never_cut_low():
    assert prices.cents(48 * 1.515) == 72.72 and prices.cents(72.7201) == 72.73 and prices.cents(0.0001) == 0.01
    assert prices.cents(3 * 0.1) == 0.3 and prices.cents(0.0) == 0.0 and prices.cents(1e-12) == 0.0
    assert [prices.an_hour(price) for price in (1.515, 4.2, 25.2513, 12)] == ["$1.515", "$4.20", "$25.2513", "$12.00"]


def test_every_family_that_matters_is_in_the_table():
    families = {name.split(".")[1] for name in prices.names()}
    assert families >= {"g4dn", "g5", "g6", "g6e", "p3", "p4d", "p5"}
    for name in prices.names():
        instance = prices.instance(name)
        assert instance.tflops("fp16") > instance.tflops("no") > 0 and instance.memory_gb > 15
        assert prices.stored(name) is None or prices.stored(name).hourly > 0.5


# Disk.


def test_a_full_disk_is_refused_in_one_sentence(tmp_path, monkeypatch):
    need = disk.Need(10, 3 * 10**9, 10**9, tmp_path / "cache", tmp_path / "run", checkpoints=10**9)
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 4 * 10**9)
    with pytest.raises(SdxlNbError) as refused:
        disk.refuse_full_disk(need)
    sentence = str(refused.value)
    assert sentence.startswith("The disk has 4.0 GB free and this run writes 4.0 GB for the cache in ")
    assert "1.0 GB for the run in" in sentence and "\n" not in sentence
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 6 * 10**9)
    disk.refuse_full_disk(need)


def test_predicted_disk_is_what_a_run_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("SDXL_NB_CACHE", str(tmp_path / "cache"))
    config = small(tmp_path / "run", target_modules="all", rank=32)
    need = estimate(config, ()).need
    train(config)
    written = sum(f.stat().st_size for f in (tmp_path / "cache").rglob("*.safetensors"))
    run = sum(f.stat().st_size for f in (tmp_path / "run").rglob("*.safetensors"))
    assert need.cache == pytest.approx(written, rel=0.25)
    assert need.checkpoints == pytest.approx(run, rel=0.15)


def test_training_refuses_a_full_disk_before_it_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 1000)
    with pytest.raises(SdxlNbError, match=r"The disk has 1 kB free and this run writes .* for the run in "):
        train(small(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_training_says_what_the_audit_finds(tmp_path):
    train(small(tmp_path / "run", resolution=64, max_train_steps=1))
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "Data audit (names, sizes and captions): 7 pictures; too small 7" in log


def test_pictures_of_every_round_are_counted_and_a_cache_that_is_not_known_is_not_nothing(tmp_path):
    config = small(tmp_path / "run", validation_prompt=["a", "b"], num_validation_images=1)
    need = estimate(config, (), here=False).need
    assert need.validation == pytest.approx(3 * 2 * disk.PICTURE * 32 * 32, abs=1)  # before, after steps 4 and 6
    assert "kB of cache (latents" in str(need) and str(need).endswith("; there is room.")
    said = str(disk.Need(None, 0, 0, tmp_path, tmp_path))
    assert said.startswith("Disk: a cache for pictures not counted yet, 0 kB of checkpoints") and "room" not in said


def test_a_lora_to_go_on_from_is_counted_with_its_rank(tmp_path):
    config = small(tmp_path, lora_weights=str(whole().folder), rank=16, target_modules="attention")
    found = estimate(config, [], pictures=7, here=False)
    plain = estimate(small(tmp_path, rank=2, target_modules="attention"), [], pictures=7, here=False)
    assert found.count.trained == plain.count.trained
    assert any("Counted with rank 2 of lora_weights" in note for note in found.notes)
