"""`ctnet config` and the ways out of the command line."""

import json
import subprocess
import sys


def test_list_show_and_validate(ctnet, tmp_path):
    assert "centernet_resdcn18" in ctnet("config", "list")[1].split()
    assert "centernet_resdcn18" in json.loads(ctnet("config", "list", "--json")[1])["recipes"]
    code, out, _ = ctnet("config", "show", "optimizer.lr=0.5", "--json")
    shown = json.loads(out)
    assert code == 0
    assert shown["recipe"]["optimizer"]["lr"] == 0.5
    assert shown["sources"]["optimizer.lr"] == "command line"
    assert "optimizer.lr" in ctnet("config", "show")[1]
    file = tmp_path / "mine.yaml"
    file.write_text("schedule: {epochs: many}\n")
    code, _, err = ctnet("config", "validate", file)
    assert code == 2
    assert "schedule.epochs" in err
    assert str(file) in "".join(err.split())


def test_version_and_module_form():
    done = subprocess.run([sys.executable, "-m", "ctnet", "--version"], capture_output=True, text=True, check=True)
    from ctnet import __version__

    assert done.stdout.strip() == __version__


def test_a_bug_shows_its_traceback_and_asks_for_a_report(ctnet, monkeypatch):
    def broken() -> list:
        raise RuntimeError("cogs")

    monkeypatch.setattr("ctnet.config.recipe_names", broken)
    code, _, err = ctnet("config", "list")
    assert code == 1
    assert "Traceback" in err
    assert "report" in err


def test_ctrl_c_has_its_exit_code(ctnet, monkeypatch):
    def interrupted() -> list:
        raise KeyboardInterrupt

    monkeypatch.setattr("ctnet.config.recipe_names", interrupted)
    assert ctnet("config", "list")[0] == 130
