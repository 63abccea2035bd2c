#!/usr/bin/env bash
# dateparse v0.0.0-20210429162001-6b43995a97de (Go, github.com/araddon/dateparse): of an ordinal date the
# digits of the day are taken for a layout.
#
# Expected: 2024-032, the 32nd day, is 2024-02-01, or an error.
#   Sources: ISO 8601:2004, section 4.1.3 "Ordinal date"; the README: "parse many date strings without knowing
#   format", with an error for what it does not know.
# Seen: the day stays in the layout, where each digit names a field of Go's reference time: 2 a day, 3 an
#   hour, 4 a minute, 5 a second, 06 the year. So 2024-032 is 2 January at 3 o'clock, 2024-042 is 2 January at
#   00:04, 2024-059 is five seconds past midnight on 1 January, and 2024-060 is in the year 2006, because 06
#   names the year and the value there is "06" too. ParseStrict does the same. From 2024-300 on there is an
#   error. Dates in ordinal form are usual for satellites, weather and mainframes.
#
# It needs Go 1.24 or newer.
set -euo pipefail
command -v go >/dev/null || { echo "this needs Go" >&2; exit 2; }
folder=$(mktemp -d)
export GOMODCACHE="$folder/modules" GOCACHE="$folder/cache" GOFLAGS=-modcacherw
trap 'rm -rf "$folder"' EXIT
cd "$folder"
go mod init finding >go.log 2>&1
go get github.com/araddon/dateparse@v0.0.0-20210429162001-6b43995a97de >>go.log 2>&1
cat >main.go <<'GO'
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/araddon/dateparse"
)

func read(time time.Time, err error) string {
	if err != nil {
		return "an error"
	}
	return time.Format("2006-01-02T15:04:05")
}

func main() {
	asDescribed := true
	for _, each := range [][3]string{
		{"2024-02-29", "2024-02-29T00:00:00", "2024-02-29T00:00:00"},
		{"2024-032", "2024-01-02T03:00:00", "2024-02-01T00:00:00"},
		{"2024-042", "2024-01-02T00:04:00", "2024-02-11T00:00:00"},
		{"2024-059", "2024-01-01T00:00:05", "2024-02-28T00:00:00"},
		{"2024-060", "2006-01-01T00:00:00", "2024-02-29T00:00:00"},
		{"2024-365", "an error", "2024-12-30T00:00:00"},
	} {
		loose, strict := read(dateparse.ParseAny(each[0])), read(dateparse.ParseStrict(each[0]))
		fmt.Printf("%s: ParseAny %s, ParseStrict %s (expected %s)\n", each[0], loose, strict, each[2])
		asDescribed = asDescribed && loose == each[1] && strict == each[1]
	}
	if !asDescribed {
		os.Exit(1)
	}
}
GO
go mod tidy >>go.log 2>&1
go build -o finding >>go.log 2>&1
./finding
