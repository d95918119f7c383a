# Sourced by the scripts that break the code on purpose: a copy of the tree is changed in one place, built, and the
# named tests must fail. start_mutations ROOT WORK CMAKE_OPTION... [NUMBER ...]; mutation ...; finish_mutations.
# With $CHECK_MUTATIONS nothing is built: a fault whose place is gone from the code is named.

start_mutations() {
  local root=$1
  tree=$root
  [ -z "${CHECK_MUTATIONS:-}" ] || { tried=0 caught=0; return 0; }
  work=$2 number=0 caught=0 tried=0 wanted=" "
  shift 2
  local options=()
  for argument in "$@"; do
    if [[ $argument == -D* ]]; then options+=("$argument"); else wanted+="$argument "; fi
  done
  mkdir -p "$work/source"
  (cd "$root" && git ls-files -z --cached --others --exclude-standard | tar --null -cf - -T -) | tar -xf - -C "$work/source"
  cmake --preset release -S "$work/source" -B "$work/build" -DSTET_BUILD_EXAMPLES=OFF -DSTET_BUILD_BENCH=OFF \
    "${options[@]}" >/dev/null
  mutation_build || { tail -20 "$work/build.log"; exit 1; }
}

mutation_build() { cmake --build "$work/build" --target stet_tests -j"$(nproc)" >"$work/build.log" 2>&1; }

# mutation FILE TEXT REPLACEMENT TEST...: the first place where TEXT stands becomes REPLACEMENT; a named test file
# (NAME, NAME@cuda on the device) or [tag] must notice.
mutation() {
  local file=$1 text=$2 replacement=$3
  shift 3
  if [ -n "${CHECK_MUTATIONS:-}" ]; then
    tried=$((tried + 1))
    if [[ $(<"$tree/$file") == *"$text"* ]]; then caught=$((caught + 1))
    else echo "$file: '$text' is not there any more"; fi
    return 0
  fi
  number=$((number + 1))
  [ "$wanted" = " " ] || [[ "$wanted" == *" $number "* ]] || return 0
  tried=$((tried + 1))
  local target=$work/source/$file
  cp "$target" "$work/original"
  python3 - "$target" "$text" "$replacement" <<'PY'
import sys
path, text, replacement = sys.argv[1:]
source = open(path).read()
if text not in source:
    sys.exit(f"{path}: '{text}' is not there any more: bring this script up to date")
open(path, "w").write(source.replace(text, replacement, 1))
PY
  local verdict=SURVIVED
  if ! mutation_build; then
    verdict="does not compile"
  else
    for test in "$@"; do
      local filter="[#${test%@cuda}]" device=
      [[ $test == \[* ]] && filter=$test
      [[ $test == *@cuda ]] && device=cuda
      if ! STET_TEST_DEVICE=$device timeout 600 "$work/build/stet_tests" --filenames-as-tags "$filter" --abort \
          >"$work/test.log" 2>&1; then
        verdict=caught
        caught=$((caught + 1))
        break
      fi
    done
  fi
  echo "$number $verdict: $file: $(head -1 <<<"$text") -> $(head -1 <<<"$replacement")"
  cp "$work/original" "$target"
}

finish_mutations() {
  if [ -n "${CHECK_MUTATIONS:-}" ]; then
    echo "mutations: $caught of $tried have their place in the code"
    [ "$caught" -eq "$tried" ]
    return
  fi
  mutation_build || true  # the objects are of the restored sources again, for whoever runs some numbers next
  echo "mutations: $caught of $tried caught"
  [ "$caught" -eq "$tried" ]
}
