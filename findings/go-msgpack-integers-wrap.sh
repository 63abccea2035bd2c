#!/usr/bin/env bash
# vmihailenco/msgpack 5.4.1 and shamaton/msgpack 2.4.0 (Go): an integer that does not fit the field is stored
# as another one.
#
# Expected: 300 for a field of type int8 is an error, as encoding/json gives for the same struct.
#   Sources: MessagePack specification, "Deserialization" (a value goes to the type that the application
#   holds); Go, package encoding/json, Unmarshal: a number that overflows the target type is an
#   UnmarshalTypeError.
# Seen: 44 for int8 and uint8, and -1 for 18446744073709551615 in an int64. The low bits are kept and no error
#   comes, though both report an error for bytes in the place of a number. The sender's types decide: a
#   counter that was uint32 there and is int16 here is right until it is large.
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
quietly go get github.com/vmihailenco/msgpack/v5@v5.4.1 github.com/shamaton/msgpack/v2@v2.4.0
cat >main.go <<'GO'
package main

import (
	"encoding/json"
	"fmt"
	"os"

	shamaton "github.com/shamaton/msgpack/v2"
	vmihailenco "github.com/vmihailenco/msgpack/v5"
)

type reading struct {
	Small int8
	Byte  uint8
	Count int64
}

func main() {
	asDescribed := true
	for _, each := range []struct {
		packed, text string
		described    reading
	}{
		{"\x83\xa5Small\x07\xa4Byte\x08\xa5Count\x09", `{"Small": 7, "Byte": 8, "Count": 9}`, reading{7, 8, 9}},
		{"\x81\xa5Small\xcd\x01\x2c", `{"Small": 300}`, reading{Small: 44}},
		{"\x81\xa4Byte\xcd\x01\x2c", `{"Byte": 300}`, reading{Byte: 44}},
		{"\x81\xa5Count\xcf\xff\xff\xff\xff\xff\xff\xff\xff", `{"Count": 18446744073709551615}`, reading{Count: -1}},
	} {
		var first, second, third reading
		firstError := vmihailenco.Unmarshal([]byte(each.packed), &first)
		secondError := shamaton.Unmarshal([]byte(each.packed), &second)
		right := json.Unmarshal([]byte(each.text), &third)
		fmt.Printf("%s\n  vmihailenco %v %v, shamaton %v %v\n  (expected as encoding/json: %v)\n",
			each.text, first, firstError, second, secondError, right)
		asDescribed = asDescribed && firstError == nil && secondError == nil &&
			first == each.described && second == each.described &&
			(right == nil) == (each.described.Count == 9)
	}
	if !asDescribed {
		os.Exit(1)
	}
}
GO
quietly go mod tidy
quietly go build -o finding
./finding
