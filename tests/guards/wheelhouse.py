"""Guards of what hosts install from; as in enrolment.py."""

from __future__ import annotations

from .enrolment import Guard

HOUSE, LOCK, PIP, PROJECT = (
    f"roles/pingmon_common/files/wheelhouse{part}.py" for part in ("", "_lock", "_pip", "_project")
)
HOUSE_TESTS, LOCK_TESTS, PIP_TESTS, PROJECT_TESTS = (
    f"tests/roles/test_wheelhouse{part}.py" for part in ("", "_lock", "_pip", "_project")
)

GUARDS: list[Guard] = [
    (PIP, '"--only-binary", ":all:", ', "", f"{PIP_TESTS} nobody_listed"),
    (PIP, "                refuse_impure(made)\n", "", f"{PIP_TESTS} compiled_parts"),
    (PIP, "if sha256(file.read_bytes()) not in known:", "if False:", f"{PIP_TESTS} what_no_lock_names"),
    (PIP, "if NO_NETWORK.search(said):", "if False:", f"{PIP_TESTS} away_is_one_sentence"),
    (PIP, "repack(made, done / made.name)", "shutil.copy(made, done / made.name)", f"{HOUSE_TESTS} same_bytes"),
    (
        HOUSE,
        'note.read_text() != f"{key} {before}"',
        "not note.read_text().startswith(key)",
        f"{HOUSE_TESTS} damaged_archive",
    ),
    (LOCK, "PATCHES = (0, 99)", "PATCHES = (0,)", f"{LOCK_TESTS} asked_about_the_host"),
    (LOCK, "        if pin.name in pins:", "        if False:", f"{LOCK_TESTS} two_versions"),
    (LOCK, "GLIBC = 28", "GLIBC = 34", f"{PIP_TESTS} newer_hosts"),
    (PROJECT, "built == sha256(wheel.read_bytes()) and ", "", f"{PROJECT_TESTS} builds_it_anew"),
    (PROJECT, " and sources == sources_digest(root)", "", f"{PROJECT_TESTS} builds_it_anew"),
    (PROJECT, 'if not any(name.startswith("pingmon/static/") ', "if not any(name ", f"{PROJECT_TESTS} browser_part"),
]
