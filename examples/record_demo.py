#!/usr/bin/env python3
"""Runs `make demo` and typesets what it prints as a picture: record_demo.py OUTPUT.svg

Run it in the repository's root, with rich 14 or 15. `examples/demo.svg` at the top of the README is made by it; a test
compares the picture with what the demonstration prints.
"""

import io
import re
import subprocess
import sys

from rich.console import Console
from rich.text import Text

COMMAND = ["make", "--no-print-directory", "demo"]
WIDTH = 132


def main():
    (output,) = sys.argv[1:]
    # Once before: what is recorded begins with everything built and the model unpacked.
    subprocess.run(COMMAND, check=True, capture_output=True)
    printed = subprocess.run(COMMAND, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text("$ make demo", style="bold green"))
    for line in printed.expandtabs(4).splitlines():
        # Commands, as make prints them before it runs them.
        is_command = line.startswith(("target/debug/rerank", "    FROM"))
        console.print(Text(line, style="green" if is_command else ""), soft_wrap=True)
    picture = console.export_svg(title="make demo")
    # A picture in a page may not fetch fonts.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    with open(output, "w", encoding="utf-8") as file:
        file.write(picture)


if __name__ == "__main__":
    main()
