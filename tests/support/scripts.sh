#!/usr/bin/env bash
# Runs the project's scripts in a copy of their places, with what they call put in place by stand-ins that only say what
# they were given, and asks programs that take no arguments for help: scripts.sh PROGRAM...
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() { echo "$1" >&2; echo "$printed" >&2; exit 1; }
expect() { grep -qF -- "$1" <<<"$printed" || fail "missing in the output: $1"; }
stand_in() { # stand_in FILE: a program of that name, standard input is what it does
  mkdir -p "$(dirname "$1")"
  { echo '#!/usr/bin/env bash'; cat; } >"$1"
  chmod +x "$1"
}

for program in "$@"; do
  printed=$("$program" --help)
  expect "Usage: "
  printed=$("$program" --nope 2>&1) && fail "no error: $program --nope"
  expect "--nope"
done

copy=$folder/copy
mkdir -p "$copy/examples" "$copy/tests/support" "$copy/build/release"
cp "$root"/examples/*.sh "$copy/examples"
cp "$root/tests/run.sh" "$copy/tests"
cp "$root/tests/support/packages.sh" "$copy/tests/support"
bin=$folder/bin
export PATH="$bin:$PATH"
stand_in "$bin/cmake" <<<'exit 0'
stand_in "$bin/nvcc" <<<'exit 1'
stand_in "$bin/ctest" <<<'echo "1/1 Test #1: a ... Passed 0.1 sec"'
stand_in "$bin/apt-get" <<<'for package; do touch "${package}_1.deb"; done'

# An optional package that cannot be installed, without root, does not keep the tests from running.
stand_in "$bin/dpkg-query" <<<'[ "${!#}" = libsentencepiece-dev ] || echo installed'
stand_in "$bin/id" <<<'echo 1000'
stand_in "$bin/sudo" <<<'exit 1'
printed=$(bash "$copy/tests/run.sh" 2>&1) || fail "tests/run.sh ended"
expect "goes on without libsentencepiece-dev"
expect "1 test programs passed"
stand_in "$bin/dpkg-query" <<<'[ "${!#}" = ninja-build ] || echo installed'
printed=$(bash "$copy/tests/run.sh" 2>&1) && fail "tests/run.sh goes on without a package that it needs"
stand_in "$bin/dpkg-query" <<<'echo installed'

# What is given to quickstart.sh counts, the folder for results as well.
for program in forgetting_sample split_fashion_mnist; do
  stand_in "$copy/build/release/examples/$program" <<<"echo \"ran $program \$*\""
done
for given in "--seeds 1" "--out=else where" "--out else"; do
  arguments=("$given")
  [ "${given/=/}" != "$given" ] || read -ra arguments <<<"$given"
  printed=$(bash "$copy/examples/quickstart.sh" "${arguments[@]}")
  case $given in
    --out*) expect "ran split_fashion_mnist $given" && expect "results in $copy/else" ;;
    *) expect "ran split_fashion_mnist --out build/release/quickstart $given" && expect "results in $copy/build/release/quickstart" ;;
  esac
done

# Texts do not depend on the locale, and the folder for what is temporary may have a space in its name.
stand_in "$bin/dpkg" <<'END'
case $2 in
  fortunes_*) mkdir -p usr/share/games/fortunes; echo "a joke" >usr/share/games/fortunes/b; echo "A quotation" >usr/share/games/fortunes/B ;;
  postgresql*) html=usr/share/doc/postgresql-doc-15/html; mkdir -p $html; touch $html/{a,B}.html ;;
  gnucash*) mkdir -p usr/share/doc/gnucash-guide/C; touch usr/share/doc/gnucash-guide/C/a.html ;;
  gnumed*) mkdir -p usr/share/doc/gnumed/user-manual; touch usr/share/doc/gnumed/user-manual/a.html ;;
  manpages*) mkdir -p usr/share/man/{fr,ja}/man1; touch usr/share/man/{fr,ja}/man1/{a,B}.1.gz ;;
esac
END
stand_in "$bin/apt-get" <<<'touch "${!#}_1.deb"'
stand_in "$bin/w3m" <<<'echo "│$(basename "${!#}") under $LC_ALL"'
stand_in "$bin/man" <<<'echo "$(basename "${!#}") under $LC_ALL"'
mkdir "$folder/a space" "$folder/the texts"
echo mine >"$folder/the texts/legal_licences.txt"
printed=$(unset LC_ALL; LANG=C TMPDIR="$folder/a space" bash "$copy/examples/get_text.sh" "$folder/the texts" 2>&1) || fail "get_text.sh ended"
[ "$(cat "$folder/the texts/general_fortunes.txt")" = $'A quotation\na joke' ] || fail "general_fortunes.txt"
[ "$(cat "$folder/the texts/technical_manual.txt")" = $'  B.html under C.UTF-8\n\n  a.html under C.UTF-8' ] || fail "technical_manual.txt"
[ "$(cat "$folder/the texts/french_manual.txt")" = $'B.1.gz under C.UTF-8\n\na.1.gz under C.UTF-8' ] || fail "french_manual.txt"
[ "$(cat "$folder/the texts/legal_licences.txt")" = mine ] || fail "a text that was there is another one"
[ -z "$(ls -A "$folder/a space")" ] || fail "get_text.sh leaves temporary files"
