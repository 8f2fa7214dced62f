"""The file of `score --prompts`: plain lines, or sample prompts, whose options scores do not use."""

import pytest

from sdxl_nb.scoring.command import _lines
from sdxl_nb.system.errors import ConfigError


def test_plain_lines_and_sample_prompts(tmp_path, capsys):
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffa red cup\r\n\r\n# mine\r\n a tin \r\n".encode())
    assert _lines(str(file)) == ["a red cup", "a tin"]
    assert capsys.readouterr().err == ""
    file.write_text("a red cup --w 832 --h 1216 --d 42\na red cup --d 43\na tin --n blurry\n")
    assert _lines(str(file)) == ["a red cup", "a tin"]
    assert capsys.readouterr().err.startswith("Note: the options of the prompts in ")


@pytest.mark.parametrize("text, said", [("# nothing", "holds no prompt"), ("a cup -s 20", "looks like an option")])
def test_what_is_wrong_with_it_is_a_sentence(tmp_path, text, said):
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(ConfigError, match=f"^--prompts .*p.txt.*{said}"):
        _lines(str(tmp_path / "p.txt"))
