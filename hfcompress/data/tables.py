"""Reading rows from files, from folders saved by `datasets`, and from the Hub: one table per split."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfcompress.data.columns import Table, read_columns
from hfcompress.data.document import Document
from hfcompress.data.draft import ALL, DEFAULTS, Draft, ReadOptions, split_name
from hfcompress.data.judgements import add_judgement, clip_grades
from hfcompress.data.rows import ROW_FILES, Rows
from hfcompress.data.values import as_document, as_identifier
from hfcompress.errors import DataError

PARQUET = "parquet"
KINDS = (*ROW_FILES, f".{PARQUET}")
SAVED = ("dataset_dict.json", "state.json")
HUB = "hub:"


def table_files(path: Path) -> list[Path]:
    """Return the files with rows at a path: the file itself, or those in the folder or in its subfolder `data`."""
    if path.is_file():
        return [path] if _kind(path) else []
    for folder in (path, path / "data"):
        found = sorted(each for each in folder.glob("*") if each.is_file() and _kind(each))
        if found:
            return found
    return []


def _kind(path: Path) -> str | None:
    suffixes = [suffix for suffix in map(str.lower, path.suffixes) if suffix != ".gz"]
    return suffixes[-1] if suffixes and suffixes[-1] in KINDS else None


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk` of `datasets`."""
    return any((folder / name).is_file() for name in SAVED)


def read_saved(source: str | Path, options: ReadOptions = DEFAULTS) -> Draft:
    """Read a `Dataset` or `DatasetDict` written by `save_to_disk`.

    Raises:
        DataError: The folder cannot be opened, or its columns fit no layout.
    """
    import datasets

    folder = Path(source)
    try:
        opened = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(str(folder), error) from error
    return read_columns(folder.resolve().name, _tables(opened), options.label_threshold)


def read_files(source: str | Path, options: ReadOptions = DEFAULTS) -> Draft:
    """Read a CSV, TSV, JSON, JSON-lines or Parquet file, or a folder of such files of one kind.

    The name of a file begins with its split (`train.csv`, `validation-00000-of-00002.parquet`). CSV has quoting, TSV
    has none: there, a quotation mark is a character like others. Values keep the text that they have in the file.

    Raises:
        DataError: Files are of another kind or of several kinds or cannot be read, a line is malformed,
            or columns fit no layout.
    """
    path = Path(source)
    files = table_files(path)
    if not files:
        raise DataError(
            "This is no file with data",
            value=str(path),
            expected="a file in CSV, TSV, JSON, JSON lines or Parquet, or a folder",
            remedy="check the path",
        )
    kinds = {_kind(each) for each in files}
    if len(kinds) != 1:
        raise DataError(
            f"The files in {path} are of several kinds",
            value=[each.name for each in files],
            expected="files of one kind: " + ", ".join(KINDS),
            remedy="name one file, or keep one kind in the folder",
        )
    kind = str(kinds.pop())
    by_split: dict[str, list[Path]] = {}
    for each in files:
        by_split.setdefault(split_name(each.name) or (ALL if len(files) == 1 else _stem(each)), []).append(each)
    if kind in ROW_FILES:
        tables: dict[str, Table] = {split: Rows(names, kind) for split, names in by_split.items()}
        return read_columns(_stem(path), tables, options.label_threshold)
    import datasets

    with tempfile.TemporaryDirectory() as cache:
        try:
            opened = datasets.load_dataset(
                PARQUET,
                data_files={re.sub(r"\W", "_", split): list(map(str, names)) for split, names in by_split.items()},
                cache_dir=cache,
                keep_in_memory=True,
            )
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise _unreadable(str(path), error) from error
        return read_columns(_stem(path), _tables(opened), options.label_threshold)


def _stem(path: Path) -> str:
    return re.sub(r"(\.[a-z]+)+$", "", path.resolve().name) or path.name


def read_hub(source: str | Path, options: ReadOptions = DEFAULTS) -> Draft:
    """Read a data set of the Hub, `hub:ORG/NAME` or `hub:ORG/NAME:CONFIG`.

    Sets in the layout of BEIR and MTEB have the configurations `corpus` and `queries` and one with qrels. Other sets
    are read by their columns.

    Raises:
        DataError: The data set cannot be opened, or its columns fit no layout.
    """
    import datasets

    repository, _, config = str(source).removeprefix(HUB).partition(":")
    if not repository.strip("/"):
        raise DataError(
            "No data set of the Hub is named",
            value=str(source),
            expected="hub:ORG/NAME",
            remedy="name one, e.g. hub:org/set",
        )
    try:
        configs = [] if config else list(datasets.get_dataset_config_names(repository))
        if {"corpus", "queries"} <= set(configs):
            return _read_hub_beir(repository, configs)
        opened = datasets.load_dataset(repository, config or None)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise _unreadable(f"{repository}{f', configuration {config}' if config else ''}", error, hub=True) from error
    tables = _tables(opened)
    info = getattr(next(iter(tables.values()), None), "info", None)
    license_name = str(getattr(info, "license", "") or "")
    return read_columns(repository, tables, options.label_threshold, license=license_name)


def _read_hub_beir(repository: str, configs: list[str]) -> Draft:
    """Read corpus, queries and qrels from the configurations of a repository; qrels are in `qrels` or `default`."""
    import datasets

    qrels = next((name for name in ("qrels", "default") if name in configs), None)
    if qrels is None:
        raise DataError(
            f"{repository} has a corpus and queries and no judgements",
            value=configs,
            expected="a configuration named qrels or default",
            remedy="name the configuration with rows to read, hub:ORG/NAME:CONFIG",
        )
    draft = Draft(repository)
    draft.queries = {key: query.text for key, query in _hub_texts(repository, "queries").items()}
    draft.corpus = _hub_texts(repository, "corpus")
    judged = _tables(datasets.load_dataset(repository, qrels))
    for name, table in judged.items():
        split = (split_name(name) if len(judged) > 1 or name != "train" else ALL) or ALL
        for number, row in enumerate(table, 1):
            query, document = as_identifier(row.get("query-id")), as_identifier(row.get("corpus-id"))
            if query is None or document is None:
                raise _bad_row(repository, name, number, row, "ids in query-id and corpus-id")
            where = f"Row {number} of {repository} ({name}), query {query!r}, document {document!r}"
            add_judgement(draft, split, query, document, row.get("score", 1), where)
    clip_grades(draft)
    return draft


def _hub_texts(repository: str, config: str) -> dict[str, Document]:
    """Return the texts of a configuration by id; a missing text is empty."""
    import datasets

    found = {}
    for table in _tables(datasets.load_dataset(repository, config)).values():
        for number, row in enumerate(table, 1):
            read = as_document(row)
            if read is None:
                raise _bad_row(repository, config, number, row, "_id and text, each a string or a number")
            found[read[0]] = read[1]
    return found


def _bad_row(repository: str, name: str, number: int, row: Mapping[str, Any], expected: str) -> DataError:
    return DataError(
        f"Row {number} of {repository} ({name})", value=dict(row), expected=expected, remedy="correct the data set"
    )


def _tables(opened: Mapping[str, Table] | Table) -> dict[str, Table]:
    return dict(opened) if isinstance(opened, Mapping) else {ALL: opened}


def _unreadable(name: str, error: Exception, hub: bool = False) -> DataError:
    return DataError(
        f"The data set {name} cannot be read",
        value=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
        expected="a data set of the Hub that `datasets` opens without code of its own"
        if hub
        else "CSV, TSV, JSON, JSON lines, Parquet, or a folder by save_to_disk",
        remedy="check the name, the network and access rights (huggingface-cli login)"
        if hub
        else "write the files again",
    )
