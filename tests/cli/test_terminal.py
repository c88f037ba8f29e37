"""Names out of files reach a terminal written out, from every command: no sequence, no bell, no line of their own."""

import io
import json
import os
import pty
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from ctnet.cli.console import Terminal, say
from ctnet.data.demo import write_demo
from ctnet.errors import ConfigError, ToolFailed
from ctnet.terminal import guarded, printable

EVIL = "\x1b]0;owned\x07\x1b[31m\x9b5m\u202e\x08\nFORGED\r[bold][link=http://x]o[/]"
SHOWN = r"\x1b]0;owned\x07\x1b[31m\x9b5m\u202e\x08\nFORGED\r[bold][link=http://x]o[/]"
NEVER = {"Cc", "Cs", "Zl", "Zp"}
FILE = "\x1b]0;owned\x07\u202e\n[bold]"  # such as a file system takes
QUICK = ("--image-size", 64, "--batch-size", 4)


def assert_clean(*texts):
    """Fail where anything but ends of lines would have an effect on a terminal."""
    for text in texts:
        bad = {c for c in text if unicodedata.category(c) in NEVER and c != "\n"} | (set(text) & set("\u202e\u2066"))
        assert not bad, text
        assert not any(line.lstrip(" │┃").startswith("FORGED") for line in text.splitlines()), text


def run(*arguments, code=0, cwd=None):
    """Return what a process of the command line prints on both streams."""
    words = [os.fsencode(str(word)) for word in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "ctnet", *words], capture_output=True, cwd=cwd, timeout=400, check=False
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == code, err
    assert_clean(out, err)
    assert "Traceback" not in err
    return out, err


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A data set whose classes and images have names that are meant for a terminal."""
    folder = write_demo(tmp_path_factory.mktemp("sets") / "set", images_train=12, images_val=6, seed=3, size=(96, 120))
    for file in (folder / "annotations").glob("*.json"):
        content = json.loads(file.read_text())
        for category in content["categories"]:
            category["name"] += EVIL
        first = content["images"][0]
        (old,) = folder.rglob(Path(first["file_name"]).name)
        old.rename(old.with_name(FILE + old.name))
        first["file_name"] = str(Path(first["file_name"]).with_name(FILE + old.name))
        file.write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def weights(hostile):
    """Weights that were trained on it, whose file is called as badly."""
    run("train", "demo", "--data", hostile, "--max-steps", 1, "--out", hostile / "run", *QUICK)
    best = hostile / "run" / "checkpoints" / "best.safetensors"
    return best.rename(best.with_name(f"{FILE}.safetensors"))


def test_data_check_shows_names_as_they_are(hostile):
    out, _ = run("data", "check", hostile)
    assert r"\x1b]0;owned\x07" in out
    document = json.loads(run("data", "check", hostile, "--json")[0])
    assert any(name.endswith(EVIL) for name in document["splits"][0]["classes"])


def test_broken_annotations_are_quoted_safely(hostile, tmp_path):
    content = json.loads((hostile / "annotations" / "instances_train.json").read_text())
    content["annotations"][0]["bbox"] = EVIL
    content["images"][1]["file_name"] = f"missing{FILE}.png"
    content["images"][2]["width"] = EVIL
    file = tmp_path / f"{FILE}.json"
    file.write_text(json.dumps(content))
    run("data", "check", file, code=3)
    run("train", "demo", "--data", file, "--max-steps", 1, code=3)
    run("data", "check", tmp_path / f"{FILE}.yaml", code=3)


def test_labels_of_yolo_are_quoted_safely(tmp_path):
    for folder in ("images/train", "labels/train"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "images" / "train" / "a.png").write_bytes(b"\x1b]0;owned\x07")
    (tmp_path / "labels" / "train" / "a.txt").write_text(f"0 0.5 {EVIL} 0.5\n", encoding="utf-8")
    (tmp_path / "data.yaml").write_text(json.dumps({"path": ".", "train": "images/train", "names": [EVIL]}))
    run("data", "check", tmp_path / "data.yaml", code=3)


def test_every_command_with_weights(ctnet, hostile, weights, monkeypatch, tmp_path):
    """In this process, which has torch already."""
    image = next(file for file in hostile.rglob("*") if file.name.startswith(FILE) and file.suffix != ".safetensors")
    monkeypatch.chdir(tmp_path)
    for code, *words in (
        (0, "weights", "inspect", weights),
        (0, "weights", "convert", weights, "--to", "ctnet", "--out", "copy.safetensors"),
        (0, "predict", "--weights", weights, image, "--score", 0, *QUICK),
        (3, "predict", "--weights", weights, image, weights.parent / "last.pt", "--score", 0, *QUICK),
        (0, "eval", "--weights", weights, "--data", hostile, "--report", "page", *QUICK),
        (0, "export", "pt2", "--weights", weights, "--image-size", 64, "--no-verify"),
        (0, "bench", "--weights", weights, "--data", hostile, "--runtimes", "torch", "--batch-sizes", 1,
         "--warmup", 0, "--iterations", 1, "--image-size", 64),
        (0, "data", "view", hostile, "--out", "sheet.png"),
        (0, "data", "convert", hostile, "--out", "copy"),
        (4, "predict", "--weights", weights, image, "--out", weights),
        (3, "weights", "inspect", image),
    ):  # fmt: skip
        found, out, err = ctnet(*words)
        assert found == code, err
        assert "Traceback" not in err
        assert_clean(out, err)
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert_clean(page)
    assert r"\x1b]0;owned\x07" in page


def test_recipes_are_shown_as_they_are(tmp_path):
    file = tmp_path / f"{FILE}.yaml"
    file.write_text(f"extends: demo\nname: {json.dumps('a' + EVIL)}\ndata:\n  path: {json.dumps(EVIL)}\n")
    done = subprocess.run([sys.executable, "-m", "ctnet", "config", "show", file], capture_output=True, text=True)
    assert_clean(done.stdout, done.stderr)
    assert (done.returncode, "Traceback" in done.stderr) in ((0, False), (2, False))
    file.write_text(f"{json.dumps(EVIL)}: 1\n")
    run("config", "validate", file, code=2)
    file.write_text(f"data: {EVIL}")
    run("config", "validate", file, code=2)


def test_wrong_words_and_names_that_are_no_text(tmp_path):
    run("config", "show", "demo", f"--{FILE}", code=2)
    run("data", "check", "a", FILE, code=2)
    run(FILE, code=2)
    run("data", "check", b"no text \xff".decode(errors="surrogateescape"), code=3)


def test_doctor_shows_what_plug_ins_and_variables_say(tmp_path, monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", EVIL)
    facts = tmp_path / "p-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: p\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[ctnet.devices]\nbad = p:device\n")
    (tmp_path / "p.py").write_text(f"raise OSError({EVIL!r})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    out, _ = run("doctor")
    assert SHOWN in out


def test_on_a_terminal_only_ctnets_own_styles_pass(hostile):
    """With a bar, behind which rich prints in the streams' place and obeys what passes."""
    line = EVIL.replace("\n", "")  # lines of text that anybody prints are theirs
    program = f"""
import sys, warnings
from ctnet.cli import app
from ctnet.cli.reporter import ConsoleReporter
def command(*_, **__):
    with ConsoleReporter() as reporter:
        reporter.message("warning: " + {EVIL!r})
        reporter.progress("train", 1, 2, {{"loss": {FILE!r}}})
        print({line!r})
        warnings.warn({line!r})
    raise ValueError({line!r})
app.app = command
app.main()
"""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm-256color"}
    )
    os.close(theirs)
    seen = b""
    try:
        while some := os.read(ours, 4096):
            seen += some
    except OSError:  # how a terminal's end reads
        pass
    assert child.wait() == 1
    text = seen.decode()
    assert "\x1b[" in text  # there are styles and a bar
    assert text.count(r"\x1b]0;owned") >= 5
    for sequence in ("\x1b]", "\x07", "\x9b", "\u202e", "\x08", "\nFORGED"):
        assert sequence not in text


def test_everything_that_cannot_be_seen_is_written_out_and_nothing_else():
    joiners = {0x200C, 0x200D}  # parts of words and of emoji
    for code in range(0x110000):
        character = chr(code)
        category = unicodedata.category(character)
        changed = printable(character) != character
        if category in NEVER or unicodedata.bidirectional(character) in {
            "LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"
        }:  # fmt: skip
            assert changed, hex(code)
        elif code in joiners or category not in {"Cf", "Cn"}:
            assert not changed, hex(code)
    once = printable(EVIL)
    assert once == SHOWN
    assert printable(once) == once
    assert printable("a\tb\nc", keep="\n") == r"a\tb" + "\nc"
    assert printable("日本\u3000Äpfel 👩‍🚒") == "日本\u3000Äpfel 👩‍🚒"


def test_an_error_keeps_every_value_on_its_line():
    error = ConfigError(f"no {EVIL}", file=Path(EVIL), hint=EVIL)
    assert_clean(str(error))
    assert len(str(error).splitlines()) == 3
    failed = str(ToolFailed("atc failed", output=["one", EVIL], status=1))
    assert failed.splitlines()[-2:] == ["    one", f"    {SHOWN}"]


def test_what_is_printed_from_anywhere_is_written_out(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    with guarded():
        print(EVIL)
        sys.stdout.writelines([EVIL, "\n"])
        say(EVIL, "second")
        console = Terminal()
        console.print(EVIL, style="red")
        assert not hasattr(sys.stdout, "buffer")
    assert sys.stdout is out
    assert_clean(out.getvalue().replace("\nFORGED", ""))
    assert out.getvalue().splitlines()[-3:] == [SHOWN, "second", SHOWN]


def test_letters_that_the_encoding_lacks_end_no_command(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "ctnet", "data", "check", "Äpfel"], capture_output=True, env=environment, check=False
    )
    assert done.returncode == 3
    assert rb"\xc4pfel" in done.stderr
