#!/usr/bin/env bash
# Compiles memphis.java from a checkout, as it was never published, and prints the class path its
# scenario runs with. Its libraries come from Maven's usual repository, once.
#
#   scripts/memphis-java.sh FOLDER-OF-THE-CHECKOUT
set -euo pipefail

clients=$(cd "$(dirname "${BASH_SOURCE[0]}")/../compat-tests/clients/memphis-java" && pwd)
checkout=${1:?the folder of a checkout of memphis.java}
home=${MENES_CACHE:-$HOME/.cache/menes}/clients/java-$(sha256sum "$clients/pom.xml" | cut -c1-12)

for tool in mvn javac; do
    command -v $tool >/dev/null || { echo "$tool is missing: sudo apt-get install -y maven default-jdk-headless" >&2; exit 1; }
done
[ -d "$checkout/src/main/java" ] || { echo "$checkout is no checkout of memphis.java" >&2; exit 1; }

if [ ! -e "$home/.ready" ]; then
    mvn -q -B -f "$clients/pom.xml" dependency:copy-dependencies -DoutputDirectory="$home/libraries" >&2
    touch "$home/.ready"
fi
rm -rf "$home/classes"
find "$checkout/src/main/java" -name '*.java' -print0 |
    xargs -0 javac -nowarn -encoding UTF-8 -d "$home/classes" -cp "$home/libraries/*" >&2
echo "$home/classes:$home/libraries/*"
