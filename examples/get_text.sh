#!/usr/bin/env bash
# Prepares the texts of finetune_domain and claims/ from Debian packages: bash examples/get_text.sh DIR
# Writes general_fortunes.txt (quotations, jokes, dialogue), technical_manual.txt (PostgreSQL 15's manual),
# finance_guide.txt (GnuCash's guide), legal_licences.txt (licences and copyright files of this machine's packages),
# medical_practice.txt (the manual of GNUmed, which keeps a doctor's records),
# french_manual.txt and japanese_manual.txt (translated manual pages; some minutes).
# Packages are downloaded and unpacked in a temporary folder, not installed; w3m, man and col, which turn pages into
# text, are installed where they are missing. A text that is there already is left alone.
set -euo pipefail
export LC_ALL=C.UTF-8  # sort and w3m follow the locale: the texts would be others in another one
[ $# -eq 1 ] || { echo "bash examples/get_text.sh DIR" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
chmod 755 "$work"  # apt downloads as a user of its own
trap 'rm -rf "$work"' EXIT

source "$root/tests/support/packages.sh"
STET_PACKAGES=(w3m man-db bsdextrautils)
install_missing_packages

missing() { [ ! -s "$out/$1" ]; }
unpack() {  # PACKAGE...: their files, under $work
  for package in "$@"; do
    echo "get_text.sh: downloading $package"
    (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$package" && dpkg -x "$package"_*.deb .)
  done
}
pages() {  # FOLDER: its HTML pages as text, a blank line between them; of tables the cells alone, not what frames them
  find "$1" -name '*.html' -print0 | sort -z | while IFS= read -r -d '' page; do
    w3m -dump -cols 120 -T text/html "$page"
    echo
  done | sed -e '/[─━]/d' -e 's/ *│ */  /g'
}
manual() {  # LANGUAGE: its manual pages as text, a blank line between them; links to other pages are left out
  find "$work/usr/share/man/$1" -type f -name '*.gz' -print0 | sort -z | while IFS= read -r -d '' page; do
    GROFF_NO_SGR=1 MANWIDTH=100 man -l -Tutf8 "$page" 2>/dev/null | col -bx | cat -s
    echo
  done | iconv -c -f UTF-8 -t UTF-8
}
keep() {  # NAME: standard input becomes the text, as a whole or not at all
  cat >"$work/part"
  [ -s "$work/part" ] || { echo "get_text.sh: nothing found for $1" >&2; exit 1; }
  mv "$work/part" "$out/$1"
}

if missing general_fortunes.txt; then
  unpack fortunes fortunes-min
  find "$work/usr/share/games/fortunes" -type f ! -name '*.dat' ! -name '*.u8' -print0 | sort -z | xargs -0 cat |
    sed 's/^%$//' | iconv -c -f UTF-8 -t UTF-8 | keep general_fortunes.txt
fi
if missing technical_manual.txt; then
  unpack postgresql-doc-15
  pages "$work/usr/share/doc/postgresql-doc-15/html" | keep technical_manual.txt
fi
if missing finance_guide.txt; then
  unpack gnucash-docs
  pages "$(find "$work" -type d -path '*gnucash-guide*' | grep -E '/(C|en)(/|$)|gnucash-guide-en' | sort | head -1)" |
    keep finance_guide.txt
fi
if missing legal_licences.txt; then
  # The same licence stands in many packages: each file's contents are taken once.
  { find /usr/share/common-licenses -type f -print0; find /usr/share/doc -maxdepth 2 -name copyright -print0; } | sort -z |
    xargs -0 sha256sum | sort -u -k1,1 | sort -k2 | while read -r _ file; do
      cat "$file"
      echo
    done | iconv -c -f UTF-8 -t UTF-8 | keep legal_licences.txt
fi
if missing medical_practice.txt; then
  unpack gnumed-doc
  guide=$work/usr/share/doc/gnumed/user-manual
  find "$guide" -name '*Ru.html' -delete
  pages "$guide" | keep medical_practice.txt
fi
if missing french_manual.txt; then
  unpack manpages-fr
  manual fr | keep french_manual.txt
fi
if missing japanese_manual.txt; then
  unpack manpages-ja
  manual ja | keep japanese_manual.txt
fi
ls -l "$out"/*.txt
