#!/usr/bin/env python3
"""Runs the test suites of stock clients, unmodified, with Menes as their `nats-server`.

    run.py DIR [--server PATH] [--reference PATH] [--suite NAME ...] [--json FILE]

DIR holds checkouts of the clients (see README.md beside this file); nothing is fetched. A test that
fails is run again alone before it is believed. With a reference server every suite runs there too,
and what fails there as well is the suite's own affair. Every other failure must be explained in
`exclusions.toml`, or the run fails.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXCLUSIONS = HERE.parent / "exclusions.toml"

# Seconds one test may take (pytest), and one file of tests (Deno), on a loaded machine.
TEST_LIMIT = 120
FILE_LIMIT = 600
# A suite with more failures than this is not run again test by test.
MAX_RERUNS = 60

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass
class Exclusion:
    """One or more tests of a suite that are not expected to pass, and why."""

    suite: str
    tests: list[str]
    reason: str
    # Whether the tests are run at all.
    run: bool = True
    seen: set[str] = field(default_factory=set)

    def covers(self, suite: str, test: str) -> bool:
        return suite == self.suite and any(re.fullmatch(pattern, test) for pattern in self.tests)


def read_exclusions(path: Path) -> list[Exclusion]:
    with path.open("rb") as file:
        entries = tomllib.load(file).get("excluded", [])
    exclusions = [Exclusion(**entry) for entry in entries]
    for exclusion in exclusions:
        if not exclusion.reason.strip():
            sys.exit(f"{path}: {exclusion.suite} {exclusion.tests}: a reason is missing")
    return exclusions


def excluded(exclusions: list[Exclusion], suite: str, test: str) -> Exclusion | None:
    return next((one for one in exclusions if one.covers(suite, test)), None)


class Runner:
    """Runs one suite with one server on the PATH."""

    def __init__(self, suite: str, checkouts: Path, server: Path, exclusions: list[Exclusion]):
        self.suite = suite
        self.checkouts = checkouts
        self.exclusions = exclusions
        # Not under the working folder of a suite: what a killed test leaves must not stay there.
        self.work = Path(tempfile.mkdtemp(prefix="conformance-"))
        bin_folder = self.work / "bin"
        bin_folder.mkdir()
        (bin_folder / "nats-server").symlink_to(server)
        (self.work / "tmp").mkdir()
        self.environment = {
            **os.environ,
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "TMPDIR": str(self.work / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NO_COLOR": "1",
        }

    def close(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)

    def not_run(self, test: str) -> bool:
        exclusion = excluded(self.exclusions, self.suite, test)
        return exclusion is not None and not exclusion.run

    def execute(self, command: list[str], folder: Path, limit: float, log: Path) -> None:
        """Runs a command in a session of its own, and what it left behind ends with it."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*isolation(), *command],
                cwd=folder.resolve(),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                output.write(f"\n(ended after {limit:.0f} seconds)\n".encode())
            finally:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                process.wait()
                # Every server leaves its store, and a suite starts hundreds.
                for left in (self.work / "tmp").iterdir():
                    shutil.rmtree(left) if left.is_dir() else left.unlink()


_isolation: list[str] | None = None


def isolation() -> list[str]:
    """A network of its own, where it can be had: the suites use fixed ports."""
    global _isolation
    if _isolation is None:
        shell = 'ip link set lo up && exec "$@"'
        prefix = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        if os.geteuid() != 0:
            prefix.insert(1, "--map-root-user")
        prefix += ["sh", "-c", shell, "sh"]
        try:
            works = subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            works = False
        if not works:
            print("no network of their own for the suites: ports 4222 and others must be free", file=sys.stderr)
        _isolation = prefix if works else []
    return _isolation


class PytestRunner(Runner):
    def run(self, only: list[str] | None = None) -> dict[str, str]:
        folder = (self.checkouts / "nats.py").resolve()
        package = self.suite.split("/")[1]
        report = self.work / "report.xml"
        report.unlink(missing_ok=True)
        sources = [folder / name / "src" for name in ("nats", "nats-core", "nats-server", "nats-jetstream", "nats-key-value")]
        self.environment["PYTHONPATH"] = ":".join(map(str, sources))
        python = os.environ.get("CONFORMANCE_PYTHON", "python3")
        command = [
            python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--timeout={TEST_LIMIT}",
            f"--rootdir={folder}", "-c", str(folder / "pyproject.toml"),
            f"--junitxml={report}", "-o", "junit_family=xunit1",
        ]  # fmt: skip
        command += only if only else [f"{package}/tests"]
        log = self.work / "log"
        self.execute(command, folder, 3600, log)
        if not report.exists():
            print(log.read_text(errors="replace")[-3000:], file=sys.stderr)
            sys.exit(f"{self.suite}: pytest wrote no report")
        results: dict[str, str] = {}
        for case in ElementTree.parse(report).getroot().iter("testcase"):
            name = self.name(case)
            outcomes = {child.tag for child in case}
            if outcomes & {"failure", "error"}:
                outcome = FAILED
            elif "skipped" in outcomes:
                outcome = SKIPPED
            else:
                outcome = PASSED
            # A test and its subtests have the same name: one that failed says it all.
            if results.get(name) != FAILED:
                results[name] = outcome
        return results

    @staticmethod
    def name(case: ElementTree.Element) -> str:
        file = case.get("file", "")
        module = file.removesuffix(".py").replace("/", ".")
        inner = case.get("classname", "").removeprefix(module).strip(".").replace(".", "::")
        return "::".join(part for part in (file, inner, case.get("name", "")) if part)


class DenoRunner(Runner):
    RESULT = re.compile(r"^(?P<name>\S.*) \.\.\. (?P<outcome>ok|FAILED|ignored)\b")
    BEGUN = re.compile(r"^(?P<name>\S.*) \.\.\.$|^(?P<open>\S.*) \.\.\. *(?!ok|FAILED|ignored)")

    def run(self, only: list[str] | None = None) -> dict[str, str]:
        package = self.suite.split("/")[1]
        import_map = self.work / "import_map.json"
        import_map.write_text(json.dumps(self.import_map()))
        results: dict[str, str] = {}
        if only:
            for test in only:
                file, name = test.split("::", 1)
                results.update(self.run_file(file, import_map, name))
            return results
        folder = self.checkouts / "nats.js"
        for path in sorted((folder / package / "tests").glob("*_test.ts")):
            file = str(path.relative_to(folder))
            if self.not_run(f"{file}::"):
                continue
            outcomes = self.run_file(file, import_map)
            failed = sum(outcome == FAILED for outcome in outcomes.values())
            print(f"  {file}: {len(outcomes)} tests, {failed} failed", file=sys.stderr, flush=True)
            results.update(outcomes)
        return results

    def run_file(self, file: str, import_map: Path, only: str | None = None) -> dict[str, str]:
        deno = os.environ.get("CONFORMANCE_DENO", "deno")
        command = [
            deno, "test", "-A", "--no-check", "--no-config", "--no-lock", "--cached-only",
            f"--import-map={import_map}",
        ]  # fmt: skip
        if only:
            command.append(f"--filter=/^{re.escape(only).replace('/', '[/]')}$/")
        log = self.work / "log"
        self.execute([*command, file], self.checkouts / "nats.js", FILE_LIMIT, log)
        results: dict[str, str] = {}
        begun = None
        text = log.read_text(errors="replace")
        for line in text.splitlines():
            if match := self.RESULT.match(line):
                outcome = {"ok": PASSED, "FAILED": FAILED, "ignored": SKIPPED}[match["outcome"]]
                results[f"{file}::{match['name']}"] = outcome
                begun = None
            elif match := self.BEGUN.match(line):
                begun = match["name"] or match["open"]
        # The file ended without this one: it took too long, or took the process with it.
        if begun:
            results[f"{file}::{begun}"] = FAILED
        if not results and not only:
            print(text[-3000:], file=sys.stderr)
            results[f"{file}::(the file)"] = FAILED
        return results

    def import_map(self) -> dict:
        """Where the suites find what they import: in checkouts instead of the JavaScript registry."""

        def at(*parts: str) -> str:
            return (self.checkouts / parts[0]).resolve().joinpath(*parts[1:]).as_uri()

        imports = {
            "js-sha256": "npm:js-sha256@0.11.1",
            "ajv": "npm:ajv@8.17.1",
            "tweetnacl": "npm:tweetnacl@1.0.3",
            "nst": at("nats.js", "nst/src/mod.ts"),
        }
        for path in sorted((self.checkouts / "std").glob("*/deno.json")):
            package = json.loads(path.read_text())
            exports = package.get("exports", {})
            exports = {".": exports} if isinstance(exports, str) else exports
            for name, target in exports.items():
                imports[package["name"] + name[1:]] = at("std", path.parent.name, target)
        for name in ("jwt", "nkeys", "nuid"):
            imports[f"@nats-io/{name}"] = at(f"{name}.js", "src/mod.ts")
        for folder in ("core", "jetstream", "kv", "obj", "services", "transport-deno", "nst"):
            name = "nats-core" if folder == "core" else folder
            imports[f"@nats-io/{name}"] = at("nats.js", folder, "src/mod.ts")
            imports[f"@nats-io/{name}/internal"] = at("nats.js", folder, "src/internal_mod.ts")
        scopes = {
            at("nats.js", folder, "tests") + "/": {"nst": at("nats.js", folder, "tests/nst.ts")}
            for folder in ("core", "jetstream", "kv", "obj", "services", "transport-deno")
        }
        return {"imports": imports, "scopes": scopes}


SUITES: dict[str, type[Runner]] = {
    "nats.py/nats": PytestRunner,
    "nats.py/nats-core": PytestRunner,
    "nats.py/nats-jetstream": PytestRunner,
    "nats.py/nats-key-value": PytestRunner,
    "nats.js/core": DenoRunner,
    "nats.js/jetstream": DenoRunner,
    "nats.js/kv": DenoRunner,
    "nats.js/obj": DenoRunner,
    "nats.js/services": DenoRunner,
}


def results_of(suite: str, checkouts: Path, server: Path, exclusions: list[Exclusion]) -> tuple[dict[str, str], list[str]]:
    """The outcome of every test, and the tests that passed only when they were run again alone."""
    runner = SUITES[suite](suite, checkouts, server, exclusions)
    try:
        results = {test: outcome for test, outcome in runner.run().items() if not runner.not_run(test)}
        doubtful = [
            test for test, outcome in results.items()
            if outcome == FAILED and excluded(exclusions, suite, test) is None and "(the file)" not in test
        ]  # fmt: skip
        passed_alone = []
        if len(doubtful) <= MAX_RERUNS:
            for test in doubtful:
                if runner.run([test]).get(test) == PASSED:
                    results[test] = PASSED
                    passed_alone.append(test)
        return results, passed_alone
    finally:
        runner.close()


def main() -> None:
    # What a suite started must end with this, however it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", type=Path)
    parser.add_argument("--server", type=Path, default=Path("target/release/menes"))
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--suite", action="append", choices=[*SUITES, []], default=[])
    parser.add_argument("--json", type=Path, help="where to write every outcome")
    arguments = parser.parse_args()
    exclusions = read_exclusions(EXCLUSIONS)
    checkouts = arguments.checkouts.resolve()
    for server in filter(None, (arguments.server, arguments.reference)):
        if not server.exists():
            sys.exit(f"{server} does not exist")

    lines, unexplained, everything = [], [], {}
    for suite in arguments.suite or SUITES:
        if not (checkouts / suite).exists():
            print(f"{suite}: no checkout in {checkouts}, left out")
            continue
        print(f"{suite} ...", flush=True)
        results, alone = results_of(suite, checkouts, arguments.server.resolve(), exclusions)
        reference: dict[str, str] = {}
        if arguments.reference:
            reference, _ = results_of(suite, checkouts, arguments.reference.resolve(), exclusions)
        everything[suite] = {"menes": results, "reference": reference}
        failed = [test for test, outcome in results.items() if outcome == FAILED]
        missing = [test for test, outcome in reference.items() if outcome == PASSED and test not in results]
        on_both = [test for test in failed if reference.get(test) == FAILED]
        explained, bad = [], []
        for test in [*failed, *missing]:
            if test in on_both:
                continue
            exclusion = excluded(exclusions, suite, test)
            if exclusion:
                exclusion.seen.add(test)
                explained.append((test, exclusion.reason))
            else:
                bad.append(test)
        lines.append((
            suite, len(results),
            sum(outcome == PASSED for outcome in results.values()),
            sum(outcome == SKIPPED for outcome in results.values()),
            len(on_both), len(explained), len(bad),
            sum(outcome == PASSED for outcome in reference.values()) if reference else "-",
        ))  # fmt: skip
        for test in alone:
            print(f"  passed only alone: {test}")
        for test in on_both:
            print(f"  fails on the reference too: {test}")
        for test, outcome in results.items():
            exclusion = excluded(exclusions, suite, test)
            if exclusion and outcome == PASSED:
                print(f"  excluded, but passes: {test} ({exclusion.reason})")
        for test in bad:
            print(f"  UNEXPLAINED: {test}")
        unexplained += [(suite, test) for test in bad]
        if arguments.json:
            arguments.json.write_text(json.dumps(everything, indent=1))

    heads = ("suite", "tests", "passed", "skipped", "fail on both", "excluded", "UNEXPLAINED", "reference passes")
    widths = [max(len(str(row[at])) for row in [heads, *lines]) for at in range(len(heads))]
    for row in [heads, *lines]:
        print("  ".join(str(cell).ljust(width) if at == 0 else str(cell).rjust(width) for at, (cell, width) in enumerate(zip(row, widths))))
    if unexplained:
        sys.exit(f"{len(unexplained)} failures are not explained in {EXCLUSIONS.name}")


if __name__ == "__main__":
    main()
