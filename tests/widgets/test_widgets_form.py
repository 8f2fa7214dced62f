"""The configuration form, in process: what is typed, judged, shown and taken along."""

import json
import re
import shlex
import shutil
import threading

import pytest
from ipywidgets import Checkbox, Dropdown

from sdxl_nb.config.flags import read_flags, train_parser
from sdxl_nb.config.presets import names
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import PICTURES
from sdxl_nb.preflight.forecast import Machine, Row
from sdxl_nb.preflight.plan import plan, remarks
from sdxl_nb.runs.events import update
from sdxl_nb.runs.folder import RunFolder
from sdxl_nb.system.errors import ConfigError, SdxlNbError
from sdxl_nb.training.epochs import Counts
from sdxl_nb.widgets.form.editors import Editor, same
from sdxl_nb.widgets.form.form import OPEN, ConfigForm
from sdxl_nb.widgets.form.takeaway import as_flags, as_python, changes

pytestmark = pytest.mark.slow


@pytest.fixture
def form():
    return ConfigForm(TrainConfig.preset("tiny"))


def type_in(form, **values):
    for name, value in values.items():
        form._editors[name].input.value = value


def hint(form, name):
    return form._editors[name].hint.value


def test_every_field_has_its_input_and_its_sentence(form):
    assert list(form._editors) == list(TrainConfig.model_fields)
    shown = [editor.name for group in form._groups.values() for editor in group]
    assert sorted([*OPEN, *shown]) == sorted(TrainConfig.model_fields)
    assert form.config == TrainConfig.preset("tiny") and form.problems == {} and form.edits == {}
    assert "LoRA strength is lora_alpha / rank; not set means rank." in hint(form, "lora_alpha")
    assert (
        form._editors["learning_rate"].input.value == "0.0045" and form._editors["adam_epsilon"].input.value == "1e-08"
    )
    assert isinstance(form._editors["use_dora"].input, Checkbox)
    assert form._editors["mixed_precision"].input.options[0] == ("not set", "")
    assert isinstance(form._editors["aspect_ratio_buckets"].input, Dropdown)  # yes, no or not set


@pytest.mark.parametrize("preset", names())
def test_every_preset_is_shown_and_read_back_as_it_is(preset):
    config = TrainConfig.preset(preset)
    form = ConfigForm(config)
    for name, editor in form._editors.items():
        assert same(editor.read(), getattr(config, name)), name
    for editor in form._editors.values():
        form._typed(editor.name)
    assert form.edits == {} and form.value == config


def test_wrong_values_say_why_beside_the_field_and_config_raises_it(form):
    heard = []
    form.observe(lambda change: heard.append(change["new"]), "problems")
    type_in(form, rank="abc", resolution="100")
    assert form.value is None and form.problems == {"rank": "rank must be a whole number, not 'abc'"}
    assert 'role="alert"' in hint(form, "rank") and "sdxl-nb-wrong" in form._editors["rank"].row._dom_classes
    with pytest.raises(ConfigError, match="rank must be a whole number") as raised:
        form.config  # noqa: B018
    assert raised.value.problems == form.problems
    type_in(form, rank="4")
    assert form.problems == {"resolution": "resolution must be a multiple of 8, not 100: use 96 or 104"}
    type_in(form, resolution="96")
    assert form.config.rank == 4 and form.config.resolution == 96 and heard[-1] == {}
    assert 'role="note"' in hint(form, "rank") and "sdxl-nb-changed" in form._editors["rank"].row._dom_classes
    type_in(form, rank="8", resolution="64")
    assert form.edits == {} and "sdxl-nb-changed" not in form._editors["rank"].row._dom_classes


def test_what_is_typed_goes_over_the_base_as_flags_do(form):
    type_in(form, train_data_dir="pictures")
    assert form.config.dataset_name is None and form._editors["dataset_name"].input.value == ""
    type_in(form, dataset_name="a/b")
    assert form.problems == {"train_data_dir": "dataset_name and train_data_dir are both given: keep one of them"}
    type_in(form, dataset_name="", train_data_dir="")
    assert form.config.dataset_name == "embedded:blueprint" and form.edits == {}
    plain = ConfigForm()
    type_in(plain, pretrained_model_name_or_path="someone/else")
    assert plain.config.pretrained_vae_model_name_or_path is None


def test_values_of_every_kind(form):
    type_in(
        form,
        lora_alpha="",
        validation_prompt="one\n\n two words \n",
        target_modules="to_q to_v",
        rank_pattern='{"attn2.to_k": 8}',
        mixed_precision="bf16",
        aspect_ratio_buckets="false",
        use_dora=True,
        learning_rate="1e-4",
    )
    config = form.config
    assert (config.lora_alpha, config.validation_prompt, config.use_dora) == (None, ["one", "two words"], True)
    assert (config.target_modules, config.rank_pattern) == (["to_q", "to_v"], {"attn2.to_k": 8})
    assert (config.mixed_precision, config.aspect_ratio_buckets, config.learning_rate) == ("bf16", False, 1e-4)
    type_in(form, target_modules=r"down_blocks.*to_q|to_k", mixed_precision="")
    assert form.config.target_modules == r"down_blocks.*to_q|to_k" and form.config.mixed_precision is None


def test_a_preset_changes_what_was_not_typed(form):
    type_in(form, rank="16")
    form.preset = "sdxl-24gb"
    assert form.config.replace(seed=0) == TrainConfig.preset("sdxl-24gb", rank=16, seed=0, output_dir="output/tiny")
    assert form._editors["resolution"].input.value == "1024"
    form._reset.click()
    assert form.edits == {} and form.config.rank == TrainConfig.preset("sdxl-24gb").rank
    form.preset = "as given"
    assert form.config == TrainConfig.preset("tiny")


def test_state_can_be_set_from_code(form):
    form.edits = {"rank": 3, "validation_prompt": ["a", "b"]}
    assert form._editors["rank"].input.value == "3" and form._editors["validation_prompt"].input.value == "a\nb"
    assert form.config.rank == 3
    assert ConfigForm(preset="sdxl-8gb", edits={"rank": 2}).config.rank == 2
    with pytest.raises(TypeError, match="ConfigForm has no setting presets: did you mean preset"):
        ConfigForm(presets="tiny")


def test_folded_groups_say_what_is_in_them_and_unfold_at_a_problem(form):
    fold = form._folds["LoRA"]
    assert not any(other.unfolded for other in form._folds.values()) and fold._head.description == "▸ more LoRA"
    assert len(fold.children) == 1  # what is folded is not built in the browser
    type_in(form, use_dora=True, lora_dropout="2")
    assert fold._head.description == "▾ more LoRA · 2 changed · 1 to be mended"
    assert form._editors["lora_dropout"].row in fold.children[1].children
    fold._head.click()  # a person who folds it up has seen the problem, and still sees that there is one
    type_in(form, lora_dropout="3")
    assert fold._head.description == "▸ more LoRA · 2 changed · 1 to be mended" and len(fold.children) == 1
    assert "error-color" in fold._head.style.text_color
    type_in(form, lora_dropout="0.0", use_dora=False)
    assert fold._head.description == "▸ more LoRA" and "error-color" not in fold._head.style.text_color
    fold._head.click()
    type_in(form, lora_dropout="3", gradient_accumulation_steps="0")
    assert [group for group, other in form._folds.items() if other.unfolded] == ["training", "LoRA"]


@pytest.mark.parametrize("field", ["train_data_dir", "dataset_name"])
def test_pictures_that_cannot_be_trained_on_are_named_as_such_beside_their_field(form, tmp_path, field):
    (tmp_path / "empty").mkdir()
    shutil.copytree(PICTURES / "emblem", tmp_path / "bare", ignore=shutil.ignore_patterns("*.txt", "metadata*"))
    for folder, said in (("empty", " is empty: check train_data_dir."), ("bare", "or give a trigger_word")):
        type_in(form, **{field: str(tmp_path / folder)})
        form._outlook.wait(600)
        assert said in hint(form, field) and 'role="alert"' in hint(form, field)
        assert "sdxl-nb-wrong" in form._editors[field].row._dom_classes
        assert form.problems == {} and getattr(form.config, field).endswith(folder)  # elsewhere it may be right
        text = form._outlook.value
        assert "These pictures cannot be trained on" in text and said in text and "Not on this machine" not in text
        assert "--" not in text
        type_in(form, rank="3" if folder == "empty" else "4")
        assert said in hint(form, field)  # these pictures are the same
    type_in(form, **{field: str(PICTURES / "emblem")})
    assert 'role="note"' in hint(form, field)  # at once
    form._outlook.wait(600)
    assert 'role="note"' in hint(form, field) and "cannot be trained on" not in form._outlook.value
    type_in(form, **{field: str(tmp_path / "empty")})
    assert 'role="alert"' in hint(form, field)  # known from before, and looked at again
    shutil.copytree(PICTURES / "emblem", tmp_path / "empty", dirs_exist_ok=True)
    type_in(form, rank="5")
    form._outlook.wait(600)
    assert 'role="note"' in hint(form, field) and "cannot be trained on" not in form._outlook.value


def test_what_was_looked_up_while_the_form_marks_stays_marked(form, tmp_path, monkeypatch):
    """A thread looks at the pictures; it may be done before the fields are marked for what was typed."""
    field, marked, mark = "train_data_dir", threading.Event(), Editor.mark

    def slowly(editor, *, edited, problem):
        if editor.name == field and not problem and threading.current_thread() is threading.main_thread():
            marked.wait(0.5)
        mark(editor, edited=edited, problem=problem)
        if problem:
            marked.set()

    for name in ("bare", "empty"):  # the first brings what looking needs
        (tmp_path / name).mkdir()
        type_in(form, **{field: str(tmp_path / name)})
        form._outlook.wait(600)
        monkeypatch.setattr(Editor, "mark", slowly)
    assert "is empty" in hint(form, field) and "sdxl-nb-wrong" in form._editors[field].row._dom_classes


@pytest.mark.parametrize("wrong", ["tiny", {"rank": 4}, TrainConfig])
def test_what_is_no_configuration_is_refused_in_one_sentence(wrong):
    with pytest.raises(TypeError, match=r"ConfigForm takes a TrainConfig, not .*: ConfigForm\(preset=.tiny.\) starts"):
        ConfigForm(wrong)


def test_what_will_happen(form):
    form._outlook.wait(600)
    text = re.sub("<[^>]*>", "\n", form._outlook.value)
    assert "56 pictures at 64 px, 8 a step: 7 steps an epoch." in text and "450 steps are 64.3 epochs;" in text
    assert "517,888 trainable parameters" in text
    type_in(form, max_train_steps="", mixed_precision="fp16")
    form._outlook.wait(600)
    assert "700 steps are 100 epochs" in form._outlook.value
    assert 'role="alert"' in form._outlook.value and "mixed_precision fp16 needs a CUDA GPU" in form._outlook.value
    assert "Not on this machine" in form._outlook.value and ": use mixed_precision no, or preset" in form._outlook.value
    type_in(form, rank="0", validation_prompt="<script>")
    assert "rank must be at least 1" in form._outlook.value and "What will happen" not in form._outlook.value


@pytest.mark.parametrize(
    ("steps", "pictures", "said"),
    [
        (1, 1, "1 picture at 64 px, 8 a step: 1 step an epoch. 1 step is 1 epoch; a checkpoint every step."),
        (1, 56, "56 pictures at 64 px, 8 a step: 7 steps an epoch. 1 step is 0.1 epochs;"),
        (1, 1000, "125 steps an epoch. 1 step is less than 0.1 epochs;"),
        (1_000_000, 56, "1,000,000 steps are 142,857.1 epochs;"),
        (14, 56, "14 steps are 2 epochs;"),
    ],
)
def test_numbers_and_plurals_of_what_will_happen(steps, pictures, said):
    drawn = {"validation_prompt": "a card", "num_validation_images": 1, "validation_epochs": 1}
    config = TrainConfig.preset("tiny", max_train_steps=steps, checkpointing_steps=1, **drawn)
    text = " ".join(plan(config, Counts(pictures, 0, pictures, 1)))
    assert said in text and " 1 validation picture before the first step, every epoch and at the end: " in text
    assert "1 step; a checkpoint" in plan(config.replace(max_train_steps=1), None)[0]


def test_steps_are_counted_as_training_counts_them(form, tmp_path):
    def said():
        form._outlook.wait(600)
        return re.sub("<[^>]*>", "\n", form._outlook.value)

    type_in(form, validation_split="0.2", max_train_steps="", num_train_epochs="10", validation_epochs="3")
    assert "56 pictures (11 of them held out) at 64 px, 8 a step: 6 steps an epoch." in said()
    assert "60 steps are 10 epochs" in said()
    prompts = len(form.config.validation_prompt)
    assert f"every 3 epochs and at the end: {prompts * form.config.num_validation_images * 5} in all." in said()
    for name in ("5_red card", "1_card"):
        shutil.copytree(PICTURES / "emblem", tmp_path / name)
    pictures = len(list(tmp_path.glob("1_card/*.png")))
    type_in(form, train_data_dir=str(tmp_path), trigger_word="x", validation_split="0", train_batch_size="1")
    assert f"{2 * pictures} pictures (with repeats {6 * pictures} an epoch) at 64 px" in said()
    assert f"1 a step: {6 * pictures} steps an epoch." in said()
    form._editors["folder_repeats"].input.value = False
    assert f"{2 * pictures} pictures at 64 px, 1 a step: {2 * pictures} steps an epoch." in said()


def test_the_estimate_is_made_when_asked_for_and_gone_with_the_next_change(form, monkeypatch):
    class Table:
        rows = (Row(Machine("this machine", "cpu", 1, None, None), 1, 1, 36.0, 200),)

        def _repr_html_(self):
            return "<table>two hours</table>"

    asked = []
    monkeypatch.setattr("sdxl_nb.preflight.estimate_table.estimate", lambda config: asked.append(config) or Table())
    form._outlook.wait(600)
    form._outlook._button.click()
    form._outlook.wait(600)
    assert asked == [form.config] and "two hours" in form._outlook._table.value
    assert form.start.button.description == "Start · about 2 h 0 min"
    type_in(form, rank="16")
    assert form._outlook._table.value == "" and form.start.button.description == "Start"
    monkeypatch.setattr("sdxl_nb.preflight.estimate_table.estimate", lambda config: 1 / 0)
    form._outlook._button.click()
    form._outlook.wait(600)
    assert "ZeroDivisionError" in form._outlook._notice.value
    type_in(form, rank="x")
    assert form._outlook._button.disabled


@pytest.mark.parametrize("preset", [None, *names()])
def test_taken_along_it_is_the_same(preset, tmp_path):
    config = TrainConfig.preset("tiny", rank=3, train_data_dir="my pictures", validation_prompt=["it's", '"b"'])
    scope = {}
    exec(as_python(config, preset), scope)
    assert scope["config"] == config
    argv = shlex.split(as_flags(config).replace("\\\n", " "))
    assert argv[:3] == ["python", "-m", "sdxl_nb.train"]
    assert read_flags(train_parser("x", "y"), argv[3:])[0] == config


def test_python_is_short():
    config = TrainConfig.preset("tiny", rank=3)
    assert changes(config, "tiny") == {"rank": 3}
    assert as_python(TrainConfig.preset("tiny"), "tiny").endswith('config = TrainConfig.preset("tiny")\n')
    assert as_python(config, "tiny").endswith('TrainConfig.preset(\n    "tiny",\n    rank=3,\n)\n')


def test_the_file_is_saved_and_its_text_is_escaped(form, tmp_path):
    type_in(form, validation_prompt="</textarea><script>")
    texts = [widget.value for widget in form._takeaway._texts]
    assert all(text.count("</textarea>") == 1 and "<script>" not in text for text in texts)
    form._takeaway._path.value = str(tmp_path / "mine.yaml")
    form._takeaway._save.click()
    assert TrainConfig.load(tmp_path / "mine.yaml") == form.config and "Saved as" in form._notice.value
    form._takeaway._path.value = str(tmp_path / "mine.txt")
    form._takeaway._save.click()
    assert "must end in .json, .yaml or .yml" in form._notice.value
    assert json.loads(form._takeaway._file())["validation_prompt"] == ["</textarea><script>"]
    type_in(form, rank="x")
    assert form._takeaway._save.disabled and "textarea" not in form._takeaway._texts[0].value


def test_the_plain_twin(form):
    type_in(form, output_name="a<b")
    assert "<th style='text-align:left'>output_name</th><td style='text-align:left'>a&lt;b</td>" in form.table().data
    shown = form._repr_mimebundle_()
    assert shown["text/html"] == form.table().data and shown["text/plain"] == "ConfigForm"
    type_in(form, rank="x")
    with pytest.raises(ConfigError):
        form.table()
    assert "rank must be a whole number" in form._repr_mimebundle_()["text/html"]
    assert "<th" in ConfigForm()._repr_mimebundle_()["text/html"]


@pytest.fixture
def started(monkeypatch, tmp_path):
    """A form whose Start is heard and starts nothing; what it would launch, and the run folder."""
    heard = []

    def launched(config, say):
        heard.append(config)
        raise SdxlNbError("not here")

    monkeypatch.setattr("sdxl_nb.widgets.form.start.launch", launched)
    return ConfigForm(TrainConfig.preset("tiny", output_dir=str(tmp_path / "mine"))), heard, tmp_path / "mine"


def press(form, name):
    button = form.start.button if name == "Start" else getattr(form.start, name)
    button.click()
    form.start.wait(600)


def test_start_launches_what_the_form_says(started):
    form, heard, _ = started
    type_in(form, rank="16")
    press(form, "Start")
    assert heard == [form.config] and heard[0].rank == 16 and "not here" in form.start._notice.value
    type_in(form, rank="abc")
    assert form.start.button.disabled


def test_a_run_that_lies_there_is_never_lost_unasked(started):
    form, heard, place = started
    folder = RunFolder(form.config)
    folder.begin(form.config, resumed_from=None)
    update(place / "run.json", status="completed")
    folder.release()
    press(form, "Start")
    assert heard == [] and "holds a run already: it was completed" in form.start._question.children[0].value
    assert [b.description for b in form.start._question.children[1].children] == ["Start in a new folder", "Replace it"]
    press(form, "_other")
    assert heard.pop().output_dir == f"{place}-2" == form.config.output_dir and f"{place}-2" in form._notice.value
    assert form._editors["output_dir"].input.value == f"{place}-2" and form.start._question.children == ()
    type_in(form, output_dir=str(place))
    update(place / "run.json", status="stopped")
    press(form, "Start")
    assert "Go on with it" in [b.description for b in form.start._question.children[1].children]
    press(form, "_replace")
    assert heard.pop().overwrite_output_dir and not form.config.overwrite_output_dir


def test_another_preset_moves_neither_the_run_nor_the_pictures(tmp_path):
    mine = TrainConfig.preset("tiny", train_data_dir=str(tmp_path), output_dir="output/mine", trigger_word="zarko")
    form = ConfigForm(mine)
    form.preset = "sdxl-24gb"
    kept = {name: getattr(form.config, name) for name in ("train_data_dir", "output_dir", "trigger_word")}
    assert kept == {name: getattr(mine, name) for name in kept} and form.config.rank == 32


def test_what_seldom_makes_sense_is_a_remark_and_no_error(form, tmp_path):
    assert remarks(TrainConfig.preset("tiny"), Counts(56, 0, 56, 56)) == []
    assert all(remarks(TrainConfig.preset(name), Counts(25, 0, 25, 25)) == [] for name in names())
    type_in(form, learning_rate="5", train_data_dir=str(tmp_path))
    form._outlook.wait(600)
    assert form.problems == {} and "Worth a second look" in form._outlook.value
    assert "learning_rate 5 is 1,111 times what is usual here (0.0045)" in form._outlook.value
    assert "The tiny base knows plain coloured shapes alone" in form._outlook.value
    often = TrainConfig.preset("sdxl-24gb", max_train_steps=9000)
    assert remarks(often, Counts(25, 0, 25, 25))[0].startswith("Each picture is seen 2,880 times")
