"""Fails with the links of a folder of HTML that lead to no file, or to no part of one."""

import html.parser
import pathlib
import sys
import urllib.parse


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.parts = [], {""}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.parts.add(attributes.get("id"))
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])


book = pathlib.Path(sys.argv[1]).resolve()
pages = {path.resolve(): Page(path.read_text()) for path in book.rglob("*.html")}
broken = []
for path, page in pages.items():
    # What is printed has every chapter on one page; the one for what is not found is reached from anywhere.
    if path.name in ("print.html", "404.html", "toc.html"):
        continue
    for link in page.links:
        if "://" in link or link.startswith("mailto:"):
            continue
        target, part = urllib.parse.urldefrag(link)
        to = (path.parent / urllib.parse.unquote(target)).resolve() if target else path
        if not to.exists() or (to in pages and urllib.parse.unquote(part) not in pages[to].parts):
            broken.append(f"{path.relative_to(book)}: {link}")
sys.exit("\n".join(broken) or 0)
