"""Accessibility of a page in a browser: axe-core, as `npm ci` in web/ installs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

AXE = Path(__file__).resolve().parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
GRAVE = ("serious", "critical")


def findings(page: Page) -> list[str]:
    """What axe-core calls serious or critical: rule, words, and the first elements."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm ci in web/")
    # Evaluated by the driver, not loaded by the page, whose policy allows no foreign script.
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("(rules) => axe.run(document, rules)", RULES)
    return [
        f"{one['id']}: {one['help']} {[node['target'] for node in one['nodes'][:3]]}"
        for one in found["violations"]
        if one["impact"] in GRAVE
    ]
