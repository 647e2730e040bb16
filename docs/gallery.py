"""The gallery's page: ``python -m docs.gallery [FAMILY...]`` trains what is not there, starts a server that has all of
it, asks each family its sample request, measures and draws, and writes

* ``docs/gallery.json``: of each family what was found, and the digest of the recipe that it was found with;
* ``docs/gallery/NAME.png``: its picture, by the family's ``show.py``;
* ``docs/gallery.md``: a function of the records alone (``page``); a test compares the two.

Named families only are done anew; what is recorded of the others stays.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from loadtests.client import request_bytes
from loadtests.latency import library_call, p50_of, p50_over_http
from loadtests.processes import Running, call, cores, our_server
from models import answers, gallery, train, trainer
from models.families import BY_NAME, FAMILIES
from models.recipes import Recipe

HERE = Path(__file__).parent
PAGE, RECORDS, PICTURES = HERE / "gallery.md", HERE / "gallery.json", HERE / "gallery"
TARGET = "X-Amzn-SageMaker-Target-Model"
_SECONDS = 1.5  # of calls for each median
_WIDE, _NARROW = 320, 110  # characters of a body in a section, in the table
_FEW = 3  # items shown of a list

HEAD = """# Gallery: SageMaker's built-in algorithms

Each family of SageMaker's built-in algorithms, trained on real data that ships in packages and served in that
algorithm's own request and response formats:

```bash
python -m models train            # all of them; FAMILY... for some
serving up --config models/endpoints-gallery.yaml
```

Every family has an endpoint of its own name there (serverless: no process while nobody calls), and is a member of the
multi-model endpoint `gallery`. Trained models, model cards and sample requests lie in `models/artifacts/`; how each is
trained is one file, `models/FAMILY/train.py`.

*Measured* is on held-out data, with a named baseline in brackets. *p50* is one caller's median of the request shown,
over HTTP on loopback, by a server that has all families in memory; *library* is, where the artifact is a model of rows,
the same rows predicted in process by the library that runs it. {machine}

This page is what `python -m docs.gallery` wrote."""

TABLE = """
| family | learns | data | measured | artifact | request | answer | p50 | library |
|---|---|---|---|---|---|---|---|---|"""

SECTION = """
## {title}

![{title}](gallery/{name}.png)

{training}Trained in {seconds:.0f} s on {trained:,} {unit} of {data}.
On {held:,} that were held out: {measured}{aim}.

- **Data**: {source}. Licence: {licence}.
- **Input**: {inputs}.
- **Output**: {outputs}.
- **Artifact**: {files}.
{limits}

```bash
curl -s localhost:8080/endpoints/{name}/invocations \\
  -H 'Content-Type: {content_type}'{accept_header} --data-binary @models/artifacts/cards/{name}/{body}
```

```python
runtime = boto3.client("sagemaker-runtime", endpoint_url="http://localhost:8080")
answer = runtime.invoke_endpoint(
    EndpointName="{name}",
    ContentType="{content_type}",{accept_argument}
    Body=Path("models/artifacts/cards/{name}/{body}").read_bytes(),
)
print(answer["Body"].read())
```

Sent: `{request}`

Answered: `{answer}`

{samples}"""


# --- finding out -------------------------------------------------------------------------------------------------


class Live:
    """One family of a running server."""

    def __init__(self, server: Running, name: str) -> None:
        self._server = server
        self._name = name

    def headers(self, content_type: str, accept: str) -> dict[str, str]:
        """Of a request to this family's member."""
        headers = {"Content-Type": content_type, TARGET: f"{self._name}.tar.gz"}
        return {**headers, "Accept": accept} if accept else headers

    def ask(self, body: bytes, content_type: str, accept: str) -> bytes:
        """The answer (``models.showing.Ask``). Raises ValueError with the server's words where it refuses."""
        return self._asked(body, content_type, accept)[0]

    def checked(self, folder: Path, which: str, sample: Mapping[str, Any]) -> tuple[bytes, str]:
        """The answer to a sample and its type. Raises ValueError when it is not what the card expects."""
        body = (folder / sample["body"]).read_bytes()
        said, kind = self._asked(body, sample["content_type"], sample["accept"])
        file = folder / sample["expected"]
        expected = file.read_bytes() if file.suffix == ".png" else json.loads(file.read_bytes())
        if found := answers.differences(expected, answers.read(said, kind), sample["tolerance"]):
            raise ValueError(f"{self._name}, sample {which}: {found[0]}")
        return said, kind

    def p50(self, body: bytes, content_type: str, accept: str) -> float:
        """Median microseconds of a call."""
        request = request_bytes("/invocations", body, self.headers(content_type, accept))
        return p50_over_http(self._server.port, request, _SECONDS)

    def _asked(self, body: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
        answer = call(self._server.port, "POST", "/invocations", body, self.headers(content_type, accept))
        if answer.status != 200:
            raise ValueError(f"{self._name} answered {answer.status}: {answer.body[:500]!r}")
        return answer.body, answer.headers.get("content-type", "")


def found(family: Recipe, out: Path, server: Running) -> dict[str, Any]:
    """What is recorded of a family: asked, measured, drawn. Raises ValueError when it does not answer as it should."""
    folder = out / "cards" / family.name
    card = json.loads((folder / "card.json").read_text())
    live = Live(server, family.name)
    checked = {which: live.checked(folder, which, sample) for which, sample in card["samples"].items()}
    sample = card["samples"]["request"]
    body, content_type = (folder / sample["body"]).read_bytes(), sample["content_type"]
    own = library_call(out / family.name, body, content_type)
    PICTURES.mkdir(exist_ok=True)
    show = importlib.import_module(f"models.{family.family}.show")
    show.draw(live.ask, folder, PICTURES / f"{family.name}.png")
    manifest = gallery.entry(family, out)
    files = {file: facts["bytes"] for file, facts in manifest["files"].items() if file.startswith(f"{family.name}/")}
    kept = ("title", "training", "framework", "score", "data", "limits")
    return {
        "recipe": manifest["recipe"],
        "seconds": manifest["seconds"],
        **{key: card[key] for key in kept},
        "inputs": card["inputs"]["description"],
        "outputs": card["outputs"]["description"],
        "files": {file.partition("/")[2]: size for file, size in files.items()},
        "request": {**sample, "shown": shown(body, content_type, _WIDE), "short": shown(body, content_type, _NARROW)},
        "answer": {
            "content_type": checked["request"][1],
            "shown": shown(*checked["request"], _WIDE),
            "short": shown(*checked["request"], _NARROW),
        },
        "samples": {
            which: {key: one[key] for key in ("body", "content_type", "accept")}
            for which, one in card["samples"].items()
        },
        "p50_us": round(live.p50(body, content_type, sample["accept"])),
        "library_us": round(p50_of(own, _SECONDS)) if own else None,
    }


def shown(body: bytes, content_type: str, wide: int) -> str:
    """A body for people: its beginning, numbers and lists shortened, at most ``wide`` characters. What is no text is
    told by its type and size."""
    kind = content_type.partition(";")[0].strip()
    if kind.startswith("image/") or "recordio" in kind or kind == "application/x-image":
        return f"{kind}, {len(body):,} bytes"
    text = body.decode().strip()
    more = ""
    if kind != "application/json":
        text, _, rest = text.partition("\n")
        more = " \u2026" if rest else ""
    if kind in ("application/json", answers.LINES):
        text = json.dumps(_shortened(json.loads(text)), ensure_ascii=False).replace('"\u2026"', "\u2026")
    text += more
    return text if len(text) <= wide else text[: wide - 1] + "\u2026"


def _shortened(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _shortened(one) for key, one in value.items()}
    if isinstance(value, list):
        short = [_shortened(one) for one in value[:_FEW]]
        return [*short, "\u2026"] if len(value) > _FEW else short
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, str) and len(value) > 60:
        return value[:59] + "\u2026"
    return value


# --- the page ----------------------------------------------------------------------------------------------------


def page(records: Mapping[str, Any]) -> str:
    """The whole page: families in the order of their table, those without a record left out."""
    there = [(family, records["families"][family.name]) for family in FAMILIES if family.name in records["families"]]
    lines = [HEAD.format(machine=records["machine"]), TABLE]
    lines += [_row(family, record) for family, record in there]
    lines += [_section(family, record) for family, record in there]
    return "\n".join(lines) + "\n"


def _row(family: Recipe, record: Mapping[str, Any]) -> str:
    score, size = record["score"], sum(record["files"].values())
    cells = (
        f"[{family.name}](#{_anchor(record['title'])})",
        family.summary,
        record["data"]["name"],
        _measured(score),
        f"{max(record['files'], key=lambda file: record['files'][file])}, {_size(size)}",
        f"`{record['request']['short']}`",
        f"`{record['answer']['short']}`",
        _time(record["p50_us"]),
        _time(record["library_us"]) if record["library_us"] is not None else "",
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _section(family: Recipe, record: Mapping[str, Any]) -> str:
    score, data, request = record["score"], record["data"], record["request"]
    accept = request["accept"]
    least = "at least" if score["higher_is_better"] else "at most"
    aim = "" if score["aim"] is None else f"; {least} {score['aim']:g} is asked of it"
    return SECTION.format(
        name=family.name,
        title=record["title"],
        training=f"{record['training']} " if record["training"] else "",
        seconds=max(1.0, record["seconds"]),
        trained=data["rows_trained"],
        held=data["rows_held_out"],
        unit=data["unit"],
        data=data["name"],
        source=data["source"],
        licence=data["licence"],
        measured=_measured(score),
        aim=aim,
        inputs=record["inputs"].rstrip("."),
        outputs=record["outputs"].rstrip("."),
        files=", ".join(f"`{file}` ({_size(size)})" for file, size in record["files"].items()),
        limits="\n".join(f"- {limit}" for limit in record["limits"]),
        content_type=request["content_type"],
        accept_header=f" -H 'Accept: {accept}'" if accept else "",
        accept_argument=f'\n    Accept="{accept}",' if accept else "",
        body=request["body"],
        request=request["shown"],
        answer=record["answer"]["shown"],
        samples=_samples(family, record["samples"]),
    )


def _measured(score: Mapping[str, Any]) -> str:
    """The metric beside its baseline."""
    value, baseline = _number(score["value"]), _number(score["baseline_value"])
    return f"{score['metric']} **{value}** ({score['baseline']}: {baseline})"


def _samples(family: Recipe, samples: Mapping[str, Any]) -> str:
    """The further requests of the card."""
    lines = [f"More requests, each with its answer, in `models/artifacts/cards/{family.name}/`:", ""]
    for which, sample in samples.items():
        if which != "request":
            accept = f", answered as `{sample['accept']}`" if sample["accept"] else ""
            lines.append(f"- `{sample['body']}`: `{sample['content_type']}`{accept}")
    return "\n".join(lines)


def _anchor(title: str) -> str:
    """How a heading is linked to."""
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def _number(value: float) -> str:
    return f"{value:,.3f}" if abs(value) < 1000 else f"{value:,.0f}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{max(1, round(count / 1000))} KB"


def _time(microseconds: float) -> str:
    if microseconds < 1000:
        return f"{microseconds:.0f} \u00b5s"
    return f"{microseconds / 1000:.2f} ms" if microseconds < 10_000 else f"{microseconds / 1000:.0f} ms"


# --- the command -------------------------------------------------------------------------------------------------


def read(file: Path = RECORDS) -> dict[str, Any]:
    """What is recorded; nothing yet, where there is no file."""
    if not file.is_file():
        return {"machine": "", "families": {}}
    records: dict[str, Any] = json.loads(file.read_text())
    return records


def write(records: Mapping[str, Any]) -> None:
    """Records and page, families in the order of their table."""
    found = records["families"]
    ordered = {family.name: found[family.name] for family in FAMILIES if family.name in found}
    whole = {"machine": records["machine"], "families": ordered}
    RECORDS.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(whole))


def _chosen(console: Console, names: Sequence[str], out: Path) -> Iterator[Recipe]:
    """Those of the named families that could be trained."""
    families = [BY_NAME[name] for name in dict.fromkeys(names)] or list(FAMILIES)
    display = train.Display(console)
    with display.live():
        failed = trainer.train(families, out, display, jobs=min(train.MOST_JOBS, cores()))
    yield from (family for family in families if family not in failed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; 0 when every family asked for is on it as it should be."""
    parser = argparse.ArgumentParser(prog="python -m docs.gallery", description="Write the gallery's page anew.")
    parser.add_argument("families", nargs="*", metavar="FAMILY", type=train.known, help="which (default: all)")
    names = parser.parse_args(arguments).families
    console, out = Console(), gallery.DEFAULT_OUT
    records, failed = read(), 0
    chosen = list(_chosen(console, names, out))
    with our_server(str(out / gallery.PACKED), seconds=120) as server:
        for family in chosen:
            try:
                records["families"][family.name] = record = found(family, out, server)
            except (ValueError, ImportError, OSError, RuntimeError) as error:
                failed += 1
                console.print(f"{family.name:<26} {error}", style="red", markup=False, soft_wrap=True)
                continue
            console.print(f"{family.name:<26} p50 {_time(record['p50_us'])}", markup=False, highlight=False)
    records["machine"] = f"Measured on {cores()} cores of a shared machine."
    write(records)
    console.print(f"{len(records['families'])} of {len(FAMILIES)} families on {gallery.near(PAGE)}", highlight=False)
    return 1 if failed or len(chosen) < (len(names) or len(FAMILIES)) else 0


if __name__ == "__main__":
    sys.exit(main())
