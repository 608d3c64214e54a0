"""A token or password is never shown, however a configuration file is mistyped."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.app import run
from gateway.settings import Problem, SettingsError, load_settings
from gateway.settings.problems import dotted
from gateway.settings.secret_places import shown

PLANTED = "PlantedSecret0123456789"
PEER = "ae_title: CT_1, host: h, roles: [source]"
HEAD = "version: 1\ndata_dir: /srv/aigw\n"
GOOD = f"""\
{HEAD}peers:
  ct1:
    ae_title: CT_1
    host: h
    roles: [source]
    web:
      token: {PLANTED}
  pacs: {{ae_title: P, host: p, port: 104, roles: [destination]}}
routes:
  - {{name: a, action: ignore, reason: "none"}}
"""
FRAGMENTS = (
    "{",
    "}",
    "[",
    "]",
    ":",
    ": ",
    "- ",
    "&a ",
    "*",
    "<<: ",
    "${",
    "!x ",
    '"',
    "'",
    "\t",
    "\n",
    "|\n",
)


def told(text: str, tmp_path: Path) -> list[Problem]:
    path = tmp_path / "gw.yaml"
    path.write_text(text, encoding="utf-8")
    warnings: list[Problem] = []
    try:
        load_settings(path, {}, warnings=warnings)
    except SettingsError as error:
        return list(error.details)
    return warnings


def in_web(web: str) -> str:
    return f"{HEAD}peers:\n  ct1:\n    {PEER.replace(', ', chr(10) + '    ', 2)}\n{web}\n"


MISTAKES = {
    "key in upper case": in_web(f"    web:\n      Token: {PLANTED}"),
    "mistyped key": in_web(f"    web:\n      passwrd: {PLANTED}"),
    "another key": in_web(f"    web:\n      key: {PLANTED}"),
    "mistyped section": in_web(f"    wbe: {{tokn: {PLANTED}}}"),
    "without section": in_web(f"    tokn: {PLANTED}"),
    "a list": in_web(f"    web:\n      token: [{PLANTED}]"),
    "a list on the next line": in_web(f"    web:\n      token:\n        - {PLANTED}"),
    "the section itself": in_web(f"    web: {PLANTED}"),
    "the section as a list": in_web(f"    web: [{PLANTED}]"),
    "no space in a block": in_web(f"    web:\n      token:{PLANTED}"),
    "no space between braces": in_web(f"    web: {{token:{PLANTED}}}"),
    "only the secret between braces": in_web(f"    web: {{{PLANTED}}}"),
    "no space between the braces of a peer": f"{HEAD}peers: {{ct1: {{{PEER}, token:{PLANTED}}}}}\n",
    "next line between braces": in_web(f'    web: {{token:\n      "{PLANTED}", usr: 1}}'),
    "next line without indentation": in_web(f'    web: {{token:\n"{PLANTED}", usr: 1}}'),
    "all on one line": f"{HEAD}peers: {{ct1: {{{PEER}, hots: 1, wbe: {{tokn: {PLANTED}}}}}}}\n",
    "a file on one line": f"{{version: 1, peers: {{ct1: {{wbe: {{tokn: {PLANTED}}}}}}}, data_dirr: x}}\n",
    "a broken file on one line": f"{{version: 1, peers: {{ct1: {{wbe: {{tokn: {PLANTED}}}}}, data_dirr: x\n",
    "peers mistyped": f"{HEAD}peer: {{ct1: {{{PEER}, wbe: {{tokn: {PLANTED}}}}}}}\n",
    "peers as a list": f"{HEAD}peers:\n  - name: ct1\n    wbe: {{tokn: {PLANTED}}}\n",
    "too far left": in_web(f"    web:\n  tokn: {PLANTED}"),
    "at the very left": in_web(f"    wbe:\ntokn: {PLANTED}"),
    "given twice": in_web(f"    web:\n      token: a\n      token: {PLANTED}"),
    "as an alias": in_web(f"    web:\n      token: *{PLANTED}"),
    "as an anchor": in_web(f"    web:\n      token: &{PLANTED}"),
    "as an anchor twice": in_web(f"    web:\n      user: &{PLANTED} a\n      token: &{PLANTED} b"),
    "as a tag": in_web(f"    web:\n      token: !{PLANTED}"),
    "as a tag with a handle": in_web(f"    web:\n      token: !{PLANTED}!x y"),
    "behind an alias": f"{HEAD}web: &w {{tokn: {PLANTED}, listen: {{port: x}}}}\npeers: {{a: {{web: *w}}}}\n",
    "as a complex key": in_web(f"    web:\n      ? [{PLANTED}]\n      : x"),
    "unknown escape": in_web(f'    web:\n      token:\n        "{PLANTED}\\q"'),
    "unknown escape, all mistyped": in_web(f'    wbe:\n      tokn:\n        "{PLANTED}\\q"'),
    "open quote": in_web(f'    web:\n      token: "{PLANTED}'),
    "tab": in_web(f"    web:\n\ttokn: {PLANTED}"),
    "percent": in_web(f"    web:\n      token: %{PLANTED}"),
    "colon in it": in_web(f"    web:\n      tokn: {PLANTED}: x"),
    "a character that is not allowed": in_web(f"    wbe:\n      tokn: \x00{PLANTED}"),
    "in a comment": f"{HEAD}dicom:\n  max_associations: many # token {PLANTED}\n",
    "a number": in_web("    web: {usr: 1, token: 12345678}").replace("12345678", "9" * 18),
    "no YAML and no section": f"wbe: [tokn: {PLANTED}\n",
}


@pytest.mark.parametrize("text", MISTAKES.values(), ids=MISTAKES)
def test_no_mistake_shows_a_secret(text: str, tmp_path: Path) -> None:
    found = told(text, tmp_path)
    assert found
    said = "\n".join(map(str, found))
    assert PLANTED not in said
    assert "9" * 18 not in said


def test_nothing_slipped_in_anywhere_shows_a_secret(tmp_path: Path) -> None:
    halves = (PLANTED[:11], PLANTED[11:])
    for place in range(0, len(GOOD), 2):
        for fragment in FRAGMENTS[place // 2 % 3 :: 3]:
            text = GOOD[:place] + fragment + GOOD[place:]
            said = "\n".join(map(str, told(text, tmp_path)))
            assert not any(half in said for half in halves), text


def test_the_command_shows_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gw.yaml"
    path.write_text(MISTAKES["key in upper case"], encoding="utf-8")
    for arguments in (["check"], ["check", "--json"], ["serve"]):
        with pytest.raises(SystemExit) as caught:
            run([*arguments, "--config", str(path)])
        assert caught.value.code == 78
    out, err = capsys.readouterr()
    assert PLANTED not in out + err
    assert f'{path}:9:7  peers.ct1.web.Token: unknown setting, did you mean "token"?\n' in err


def test_lines_without_secrets_are_still_shown(tmp_path: Path) -> None:
    text = GOOD.replace("port: 104", "port: many").replace("name: a", "nmae: a")
    shown_lines = {found.line: bool(found.source) for found in told(text, tmp_path)}
    assert shown_lines == {10: True, 12: True}
    (broken,) = told(GOOD.replace('"none"', '"none'), tmp_path)
    assert broken.source, "the section says that no secret stands there"


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (("peers", "webpacs", "prot"), "peers.webpacs.prot"),
        (("peers", "a", "web", "passwrd"), "peers.a.web.passwrd"),
        (("peers", "a", "web", "token:abc"), "peers.a.web.***"),
        (("peers", "a", "web", "Bearer xyz"), "peers.a.web.***"),
        (("peers", "a", "description"), "peers.a.description"),
        (("peers", "a", "token:abc"), "peers.a.***"),
        (("web", "listen", "prt"), "web.listen.prt"),
        (("routes", 0, "when", "Modalty"), "routes.0.when.Modalty"),
    ],
)
def test_a_key_that_may_be_a_secret_is_not_shown(location: tuple[str | int, ...], expected: str) -> None:
    assert dotted(shown(location)) == expected
