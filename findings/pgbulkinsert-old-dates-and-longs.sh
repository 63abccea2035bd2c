#!/usr/bin/env bash
# pgbulkinsert 8.1.5 (Maven) on PostgreSQL 18.6: dates before 15 October 1582 are stored as other dates, and a
# long loses digits in a numeric column.
#
# Expected: LocalDate 1066-10-14 is stored as 1066-10-14, and 9007199254740993 as that number.
#   Sources: java.time.LocalDate (the proleptic ISO calendar); PostgreSQL 18 documentation, B.6 "History of
#   Units" (PostgreSQL counts dates in the proleptic Gregorian calendar too) and 8.1.2 "Arbitrary Precision
#   Numbers"; AbstractMapping.mapNumeric, which takes any java.lang.Number.
# Seen: the days are corrected for the change from the Julian calendar, which neither side makes: 1582-10-14
#   becomes 1582-10-04, 1066-10-14 becomes 1066-10-08, and 0001-01-01, a usual "since ever", 0001-01-03. A
#   long or an int goes through double: 9007199254740993L is stored as ...992, and 42 as 42.0. COPY is binary,
#   so the server cannot notice. BigDecimal, BigInteger and dates from 1582-10-15 on are right.
#
# It needs Java 17 or newer and Maven. Not as root: embedded-postgres would add a user to the system.
set -euo pipefail
[ "$(id -u)" != 0 ] || { echo "run this as an ordinary user" >&2; exit 2; }
command -v java >/dev/null && command -v mvn >/dev/null || { echo "this needs Java and Maven" >&2; exit 2; }
folder=$(mktemp -d)
export XDG_RUNTIME_DIR="$folder"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'psycopg[binary]==3.3.9' embedded-postgres==18.6.3
cat >"$folder/pom.xml" <<'XML'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>finding</groupId><artifactId>finding</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>de.bytefish</groupId><artifactId>pgbulkinsert</artifactId><version>8.1.5</version>
    </dependency>
  </dependencies>
</project>
XML
mvn --batch-mode --quiet -f "$folder/pom.xml" "-Dmaven.repo.local=$folder/maven" \
  dependency:copy-dependencies "-DoutputDirectory=$folder/jars" >"$folder/maven.log"
cat >"$folder/Finding.java" <<'JAVA'
import de.bytefish.pgbulkinsert.mapping.AbstractMapping;
import de.bytefish.pgbulkinsert.pgsql.PgBinaryWriter;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.time.LocalDate;

public class Finding {
  record Row(LocalDate day, Number amount) {}

  static class Mapping extends AbstractMapping<Row> {
    Mapping() {
      super("public", "t");
      mapDate("day", Row::day);
      mapNumeric("amount", Row::amount);
    }
  }

  public static void main(String[] arguments) throws Exception {
    Row[] rows = {
      new Row(LocalDate.parse("2024-02-29"), new BigDecimal("9007199254740993")),
      new Row(LocalDate.parse("1582-10-15"), 42),
      new Row(LocalDate.parse("1582-10-14"), 9007199254740993L),
      new Row(LocalDate.parse("1066-10-14"), Long.MAX_VALUE),
      new Row(LocalDate.parse("0001-01-01"), new BigInteger("12345678901234567891")),
    };
    Mapping mapping = new Mapping();
    try (PgBinaryWriter writer = new PgBinaryWriter(System.out)) {
      for (Row row : rows) {
        writer.startRow(2);
        mapping.getColumns().forEach(column -> column.getWrite().accept(writer, row));
        System.err.println(row.day() + " " + row.amount());
      }
    }
  }
}
JAVA
java -cp "$folder/jars/*" "$folder/Finding.java" >"$folder/rows" 2>"$folder/values"
"$folder/env/bin/python" -W ignore - "$folder" <<'PY'
import pathlib
import sys

import embedded_postgres
import psycopg

DESCRIBED = [
    ("2024-02-29", "9007199254740993"),
    ("1582-10-15", "42.0"),
    ("1582-10-04", "9007199254740992"),
    ("1066-10-08", "9223372036854776000"),
    ("0001-01-03", "12345678901234567891"),
]
folder = pathlib.Path(sys.argv[1])
# A server of its own on a Unix socket; it is stopped at the end of the block.
with embedded_postgres.get_server(str(folder / "data")) as server:
    with psycopg.connect(server.get_uri()) as connection, connection.cursor() as cursor:
        cursor.execute("create table t (day date, amount numeric)")
        with cursor.copy("copy t from stdin (format binary)") as copy:
            copy.write((folder / "rows").read_bytes())
        rows = cursor.execute("select day::text, amount::text from t").fetchall()
for row, written in zip(rows, (folder / "values").read_text().splitlines(), strict=True):
    print(f"{written} is stored as {' '.join(row)}")
sys.exit(0 if rows == DESCRIBED else 1)
PY
