"""What the README prints runs as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.integration.conftest import ServerProcess

README = Path(__file__).parents[2] / "README.md"


def test_the_sdk_example_runs_as_printed(server: ServerProcess, tmp_path: Path) -> None:
    [example] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert '"localhost:50051"' in example
    script = tmp_path / "example.py"
    script.write_text(example.replace('"localhost:50051"', f'"{server.address}"'))  # the one port a test may not take
    outputs = [
        subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
        for _ in range(2)
    ]
    for output in outputs:
        assert output.returncode == 0, output.stderr
        assert re.search(r"[0-9a-f]{64}", output.stdout)
    assert outputs[0].stdout.splitlines()[-1] == outputs[1].stdout.splitlines()[-1]
