#!/usr/bin/env bash
# nsyslog-parser 0.10.1 (npm): values with an equals sign are cut or split, in CEF and in RFC 5424.
#
# Expected: in CEF, msg=a\=b c is the value "a=b c", and request=http://x/?a\=1&b\=2 the whole address. In a
#   structured data element, x="a b=c" is one parameter, and \" in a value is a quote.
#   Sources: ArcSight Common Event Format, "Character Encoding" (an equals sign in an extension value is
#   escaped with a backslash); RFC 5424, section 6.3.3 "SD-PARAM". The README names both formats.
# Seen: in CEF the value ends at the escaped sign with the backslash, and what stands between the sign and the
#   next space is gone: "a\ c" and "http://x/?a\". In RFC 5424 x="a b=c" becomes two parameters, x with "a"
#   and b with "c", and an element with \" in it is not recognised at all: it stays in the message. A query
#   string is the usual value with an equals sign, so the parameters of requests are lost.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --prefix "$folder/node" --silent --no-audit --no-fund nsyslog-parser@0.10.1 >"$folder/npm.log"
cat >"$folder/node/run.js" <<'JS'
const parse = require("nsyslog-parser");

const cef = (extension) => parse(`CEF:0|Vendor|Product|1.0|100|name|10|${extension}`).fields;
const syslog = (element) => {
  const { structuredData, message } =
    parse(`<165>1 2003-10-11T22:14:15.003Z host app 7 ID47 ${element} text`);
  return { structuredData, message };
};
const cases = [ // what is read, as described, expected
  [cef("src=10.0.0.1 msg=two words"), { src: "10.0.0.1", msg: "two words" }, "the same"],
  [cef(String.raw`msg=a\=b c src=10.0.0.1`), { msg: String.raw`a\ c`, src: "10.0.0.1" }, 'msg "a=b c"'],
  [cef(String.raw`request=http://x/?a\=1&b\=2 end=5`), { request: String.raw`http://x/?a` + "\\", end: "5" },
    'request "http://x/?a=1&b=2"'],
  [syslog('[a@1 x="a b" y="2"]'), { structuredData: [{ $id: "a@1", x: "a b", y: "2" }], message: "text" },
    "the same"],
  [syslog('[a@1 x="a b=c"]'), { structuredData: [{ $id: "a@1", x: "a", b: "c" }], message: "text" },
    'x "a b=c" alone'],
  [syslog(String.raw`[a@1 x="say \"hi\""]`),
    { structuredData: [], message: String.raw`[a@1 x="say \"hi\""] text` }, String.raw`x "say \"hi\""`],
];
let asDescribed = true;
for (const [seen, described, expected] of cases) {
  console.log(`${JSON.stringify(seen)} (expected ${expected})`);
  asDescribed &&= JSON.stringify(seen) === JSON.stringify(described);
}
process.exit(asDescribed ? 0 : 1);
JS
node "$folder/node/run.js"
