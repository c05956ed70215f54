"""The examples of docs/how-to/loaders.md, run one after the other in a folder with a bundle and its data."""

import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa

from sama_bundle import Bundle
from tests.sama_bundle.test_streams import write_shard

ROOT = Path(__file__).parents[2]


def test_the_examples_run(bundle: Bundle, comments_folder: Path, comments: pa.Table) -> None:
    text = (ROOT / "docs" / "how-to" / "loaders.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 9
    rows = comments.to_pylist()
    write_shard(comments_folder / "comments.tar", [(row["key"], {"txt": row["text"].encode()}) for row in rows])
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=comments_folder,
        capture_output=True,
        text=True,
        check=False,
        env={
            "PYTHONPATH": str(ROOT),
            "HOME": str(comments_folder),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        },
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"{len(bundle.keep)} of 60 rows to train on, classes ('ham', 'spam')"
    assert lines[-1].startswith("0 content_sha256 row 0 of the data set (id 'c001') differs in its content: '")
