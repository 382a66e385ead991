package canonical

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The vectors were made by an ECMAScript engine: testdata/vectors.mjs.
func TestVectors(t *testing.T) {
	file, err := os.Open("testdata/vectors.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	n := 0
	for lines := bufio.NewScanner(file); lines.Scan(); n++ {
		var raw struct{ Input, Output json.RawMessage }
		if err := json.Unmarshal(lines.Bytes(), &raw); err != nil {
			t.Fatal(err)
		}
		input, output := text(t, raw.Input), text(t, raw.Output)
		got, inexact, err := Append(nil, []byte(input))
		if err != nil || string(got) != output || len(inexact) > 0 {
			t.Errorf("%s\n got %s %v %v\nwant %s", input, got, inexact, err, output)
		}
	}
	if n < 100 {
		t.Errorf("only %d vectors", n)
	}
}

// text reads a JSON string of the vectors; lone surrogates stand in it
// as escapes of escapes only.
func text(t *testing.T, raw json.RawMessage) string {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestInexactNumbersKeepTheirDigits(t *testing.T) {
	in := `{"a":12345678901234567890,"b":[1e400,-1E400,0.1],"c":{"d":0.1234567890123456789,"e":9007199254740993,"f":1e-400,"g":123456789012345678},"h":1e99999999999999999999}`
	out, inexact, err := Append(nil, []byte(in))
	if err != nil || string(out) != in {
		t.Errorf("got %s %v", out, err)
	}
	want := []string{"a", "b[0]", "b[1]", "c.d", "c.e", "c.f", "c.g", "h"}
	if !slices.Equal(inexact, want) {
		t.Errorf("reported %q, want %q", inexact, want)
	}
	_, inexact, _ = Append(nil, []byte("["+strings.Repeat("1e400,", 50)+"1]"))
	if len(inexact) != maxInexact {
		t.Errorf("%d paths reported", len(inexact))
	}
}

func TestErrorsNameThePlace(t *testing.T) {
	many := "{"
	for i := range 40 {
		many += `"k` + strconv.Itoa(i) + `":1,`
	}
	for in, want := range map[string]Error{
		`{"a":1,"a":2}`:             {7, "a", "is given twice"},
		`{"a":{"b":1,"\u0062":2}}`:  {12, "a.b", "is given twice"},
		`[{"x":[0,{"y":1,"y":1}]}]`: {16, "[0].x[1].y", "is given twice"},
		many + `"k7":0}`:            {len(many) + 7, "", `has the key "k7" twice`},
		"\xef\xbb\xbf{}":            {0, "", "begins with a byte order mark: leave it out"},
		"{\"a\":\"\xff\"}":          {6, "a", "is not valid UTF-8"},
		"{\"a\":\"\xed\xa0\x80\"}":  {6, "a", "is not valid UTF-8"},
		`{"a":"` + "\n" + `"}`:      {6, "a", "has a control character within a string: escape it"},
		`{"a":01}`:                  {6, "a", "lacks a comma or }"},
		`{"a":1.}`:                  {7, "a", "is not a JSON number"},
		`{"a":+1}`:                  {5, "a", "is not JSON"},
		`{"a":NaN}`:                 {5, "a", "is not JSON"},
		`{'a':1}`:                   {1, "", "lacks a key in double quotes"},
		`{"a" 1}`:                   {5, "a", "lacks a colon after the key"},
		`{"a":1,}`:                  {7, "a", "lacks a key in double quotes"},
		`[1,]`:                      {3, "[1]", "is not JSON"},
		`{} {}`:                     {3, "", "has something after the JSON value"},
		``:                          {0, "", "ends where a JSON value should stand"},
		`{"a":"x`:                   {7, "a", "ends within a string"},
		`{"a":"\x"}`:                {6, "a", "has an escape that JSON does not know"},
		`{"a":"\u12G4"}`:            {6, "a", "has an escape that JSON does not know"},
		`{"a":tru}`:                 {5, "a", "is not JSON"},
		`{"a":[1`:                   {7, "a[0]", "ends before it is closed with ]"},
	} {
		_, _, err := Append(nil, []byte(in))
		var e *Error
		if !errors.As(err, &e) || *e != want {
			t.Errorf("%q:\n got %+v\nwant %+v", in, err, want)
		}
	}
}

func TestDepthIsBounded(t *testing.T) {
	if _, _, err := Append(nil, []byte(strings.Repeat("[", 512)+strings.Repeat("]", 512))); err != nil {
		t.Error(err)
	}
	for _, open := range []string{"[", `{"a":`} {
		if _, _, err := Append(nil, []byte(strings.Repeat(open, 1_000_000))); err == nil || !strings.Contains(err.Error(), "512") {
			t.Errorf("%s: %.80v", open, err)
		}
	}
}

func TestAppendKeepsWhatStands(t *testing.T) {
	out, _, err := Append([]byte("before "), []byte(`{"a":1,"0":2}`))
	if err != nil || string(out) != `before {"0":2,"a":1}` {
		t.Errorf("got %s %v", out, err)
	}
	out, _, err = Append([]byte("before "), []byte(`{`))
	if err == nil || string(out) != "before " {
		t.Errorf("got %s %v", out, err)
	}
}

func TestMembersAndElements(t *testing.T) {
	var got []string
	err := Members([]byte(` { "a" : [1, {"x":"]}"}] , "\u0062":"q\"," ,"c":-1.5e3}`), func(k string, raw []byte) error {
		got = append(got, k+"="+string(raw))
		return nil
	})
	if want := []string{`a=[1, {"x":"]}"}]`, `b="q\","`, `c=-1.5e3`}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q %v", got, err)
	}
	n := 0
	if err := Elements([]byte(`[{"a":1}, 2 ,"x"]`), func([]byte) error { n++; return nil }); err != nil || n != 3 {
		t.Errorf("%d %v", n, err)
	}
	stop := errors.New("stop")
	if err := Elements([]byte(`[1,2]`), func([]byte) error { return stop }); err != stop {
		t.Errorf("got %v", err)
	}
	for _, in := range []string{``, `[]`, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"a":}`, `{"a":1 "b":2}`, `{"a":[}`, `{"a":1}x`, "{\"a\":\"\xff\"}", `{"a"`, `{"a":"`} {
		if err := Members([]byte(in), func(string, []byte) error { return nil }); err == nil {
			t.Errorf("%s was taken", in)
		}
	}
}

func FuzzAppend(f *testing.F) {
	for _, s := range []string{`{"a":1.0,"2":[true,null],"1":"\ud83d\ude00\ud800"}`, `[1e400,-0,0.1e-7,123456789012345678]`, `{"a":{"a":{}}}`, "\"\\u2028\x7f\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		out, _, err := Append(nil, src)
		if err != nil {
			if json.Valid(src) && len(src) > 0 {
				var e *Error
				if !errors.As(err, &e) {
					t.Errorf("%T", err)
				}
			}
			return
		}
		if !json.Valid(out) {
			t.Fatalf("%q became %q, which is not JSON", src, out)
		}
		again, _, err := Append(nil, out)
		if err != nil || !bytes.Equal(again, out) {
			t.Errorf("%q became %q, then %q %v", src, out, again, err)
		}
	})
}

func FuzzMembers(f *testing.F) {
	f.Add([]byte(`{"event":"a.b","data":{"x":[1,"]"]}}`))
	f.Fuzz(func(t *testing.T, src []byte) {
		seen := map[string]bool{}
		err := Members(src, func(k string, raw []byte) error {
			if seen[k] || len(raw) == 0 {
				t.Errorf("key %q, value %q", k, raw)
			}
			seen[k] = true
			return nil
		})
		if _, _, bad := Append(nil, src); bad == nil && err != nil && src[bytes.IndexAny(src, "{[\"-0123456789tfn")] == '{' && !errors.Is(err, errLoneSurrogate) && !strings.Contains(err.Error(), "surrogate") {
			t.Errorf("%q is canonical JSON, but: %v", src, err)
		}
	})
}

// order is the guide's order.created, with enough items for a kilobyte.
func order(items int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"order_id":"ord_789","customer_id":"cus_456","customer_email":"customer@example.com","total":99.99,"currency":"USD","items":[`)
	for i := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`{"product_id":"prod_123","product_name":"Widget","quantity":2,"price":49.99}`)
	}
	b.WriteString(`],"created_at":"2025-01-16T10:30:00Z"}`)
	return b.Bytes()
}

func BenchmarkAppend(b *testing.B) {
	for name, src := range map[string][]byte{"1KB": order(11), "100KB": order(1300)} {
		b.Run(name, func(b *testing.B) {
			dst := make([]byte, 0, len(src))
			b.SetBytes(int64(len(src)))
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if dst, _, err = Append(dst[:0], src); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
