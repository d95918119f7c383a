# Sourced by tests/run.sh and examples/quickstart.sh: the Debian packages that stet needs, and how they get here.
# With everything installed it only asks dpkg: no network, no root.
STET_PACKAGES=(g++ cmake ninja-build libopenblas-dev zlib1g-dev libutf8proc-dev nlohmann-json3-dev libcli11-dev
  catch2 dataset-fashion-mnist)

install_missing_packages() {
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "Not a Debian system: please see to it that the equivalents of these are installed: ${STET_PACKAGES[*]}"
    return 0
  fi
  local missing=() package
  for package in "${STET_PACKAGES[@]}"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0

  local root=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "Missing packages: run as root: apt-get install ${missing[*]}" >&2
      return 1
    fi
    root=(sudo)
    [ -t 0 ] || root=(sudo -n)  # nobody is there to type a password
  fi
  echo "Installing missing Debian packages: ${missing[*]}"
  "${root[@]}" apt-get update -q </dev/null &&
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" </dev/null
}
