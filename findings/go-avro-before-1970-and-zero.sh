#!/usr/bin/env bash
# goavro 2.15.0 and hamba/avro 2.31.0 (Go): a date before 1970 with a time of day is written as the day after,
# and goavro cannot write the decimal zero as fixed.
#
# Expected: 1969-12-31T12:00:00Z is the day 1969-12-31. Zero is a decimal as any other.
#   Source: Apache Avro 1.12.0 specification, "Logical Types", "Date" (a date within the calendar, with no
#   reference to a time of day) and "Decimal" (bytes or fixed, the unscaled value in two's complement).
# Seen: both divide the seconds since 1970 and drop the fraction, which is towards zero: up to 1969 every time
#   of day but midnight counts for the next day. From 1970 on it is dropped as one would expect, so tests with
#   current dates pass. goavro makes one byte of the number 0 for any size of fixed and then refuses it
#   ("datum size ought to equal schema size: 1 != 4"): a balance that is zero ends the record. Other numbers
#   are filled up to the size, and as bytes zero works. Dates of birth and balances are the fields of these
#   types.
#
# It needs Go 1.24 or newer.
set -euo pipefail
command -v go >/dev/null || { echo "this needs Go" >&2; exit 2; }
folder=$(mktemp -d)
export GOMODCACHE="$folder/modules" GOCACHE="$folder/cache" GOFLAGS=-modcacherw
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/finding"
cd "$folder/finding"
quietly() { "$@" >go.log 2>&1 || { cat go.log >&2; exit 2; }; }
quietly go mod init finding
quietly go get github.com/linkedin/goavro/v2@v2.15.0 github.com/hamba/avro/v2@v2.31.0
cat >main.go <<'GO'
package main

import (
	"fmt"
	"math/big"
	"os"
	"time"

	"github.com/hamba/avro/v2"
	"github.com/linkedin/goavro/v2"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func main() {
	asDescribed := true
	const date = `{"type": "int", "logicalType": "date"}`
	codec, schema := must(goavro.NewCodec(date)), avro.MustParse(date)
	for _, each := range [][2]string{
		{"2024-02-29T12:00:00Z", "2024-02-29"}, {"1969-12-31T00:00:00Z", "1969-12-31"},
		{"1969-12-31T12:00:00Z", "1970-01-01"}, {"1950-06-15T08:30:00Z", "1950-06-16"},
	} {
		day := must(time.Parse(time.RFC3339, each[0]))
		native, _, err := codec.NativeFromBinary(must(codec.BinaryFromNative(nil, day)))
		first := must(native, err).(time.Time).Format(time.DateOnly)
		var read time.Time
		if err := avro.Unmarshal(schema, must(avro.Marshal(schema, day)), &read); err != nil {
			panic(err)
		}
		second := read.Format(time.DateOnly)
		fmt.Printf("%s: goavro %s, hamba/avro %s (expected %s)\n", each[0], first, second, each[0][:10])
		asDescribed = asDescribed && first == each[1] && second == each[1]
	}
	const fixed = `{"type": "fixed", "name": "f", "size": 4, "logicalType": "decimal", "precision": 9, "scale": 2}`
	codec = must(goavro.NewCodec(fixed))
	for _, each := range []struct {
		cents  int64
		failed bool
	}{{1, false}, {-12345, false}, {0, true}} {
		bytes, err := codec.BinaryFromNative(nil, big.NewRat(each.cents, 100))
		fmt.Printf("%d cents: %x %v (expected four bytes)\n", each.cents, bytes, err)
		asDescribed = asDescribed && (err != nil) == each.failed
	}
	if !asDescribed {
		os.Exit(1)
	}
}
GO
quietly go mod tidy
quietly go build -o finding
./finding
