#!/usr/bin/env bash
# aws-lambda-go 1.55.1 (Go): a DynamoDB number beyond int64 or with a fraction is another integer, without the
# error that is promised, and times of stream records are some nanoseconds off.
#
# Expected: Integer() of 12345678901234567890 gives ErrRange and the largest int64; of 1.5 an error. A time of
#   1480641523.477 seconds is 01:18:43.477.
#   Sources: the comment of DynamoDBAttributeValue.Integer ("If the value cannot be represented by a signed
#   integer, err.Err = ErrRange and the returned value is the maximum magnitude integer"); Amazon Kinesis Data
#   Streams API Reference, Record, ApproximateArrivalTimestamp (milliseconds).
# Seen: what ParseInt refuses is read as a float and converted, and the error of ParseInt is lost: the result
#   is no number near it (Go leaves that conversion to the machine), and 1.5 is 1. DynamoDB's numbers have 38
#   digits. Seconds go through a float too, and the fraction is cut: .477 becomes .476999998, so truncating to
#   milliseconds gives .476, one less than the record says, for about half of all times.
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
quietly go get github.com/aws/aws-lambda-go@v1.55.1
cat >main.go <<'GO'
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/events"
)

func main() {
	asDescribed := true
	for _, each := range []struct {
		text    string
		integer bool
	}{{"-42", true}, {"9223372036854775807", true}, {"1.5", false}, {"12345678901234567890", false}} {
		number, err := events.NewNumberAttribute(each.text).Integer()
		fmt.Printf("%s is %d, error %v\n", each.text, number, err)
		asDescribed = asDescribed && err == nil && (fmt.Sprint(number) == each.text) == each.integer
	}
	fmt.Println("(expected an error for the last two)")
	off := 0
	for millisecond := range 1000 {
		text := fmt.Sprintf(`{"approximateArrivalTimestamp": 1480641523.%03d}`, millisecond)
		var record events.KinesisRecord
		if err := json.Unmarshal([]byte(text), &record); err != nil {
			panic(err)
		}
		arrived := record.ApproximateArrivalTimestamp.UTC()
		if millisecond == 477 {
			fmt.Println("1480641523.477 is", arrived.Format(time.RFC3339Nano), "(expected 01:18:43.477)")
			asDescribed = asDescribed && arrived.Nanosecond() == 476999998
		}
		if arrived.UnixMilli() != 1480641523000+int64(millisecond) {
			off++
		}
	}
	fmt.Println("milliseconds of a second that are one less:", off, "(expected 0)")
	if !asDescribed || off < 400 {
		os.Exit(1)
	}
}
GO
quietly go mod tidy
quietly go build -o finding
./finding
