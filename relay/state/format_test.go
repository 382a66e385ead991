package state

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/omnisales/edgerelay/relay"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/formats.txt anew: a format that is on disks must not change")

func sampleEvent() *relay.Event {
	return &relay.Event{Store: 1, ID: "evt_1", Type: "order.created", CreatedAt: 1_736_000_000, AcceptedAt: 1_736_000_000_123, OrderingKey: "cart", Channels: []string{"eu"},
		Targets: []relay.Target{{Webhook: 3, Revision: 2}, {Webhook: 9, Revision: 1}}, Data: []byte(`{"a":1}`)}
}

func sampleOutcome() *relay.Outcome {
	return &relay.Outcome{Sequence: 5, Webhook: 3, EventType: "order.created", AcceptedAt: 1_736_000_000_123, State: relay.Retrying, Parked: true, Attempt: 2, StatusCode: 503,
		Error: "status_503", StartedAt: 1_736_000_001_000, DurationUS: 1500, NextAt: 1_736_000_003_000, ResponseBytes: 12, Evidence: []byte("{}"), Node: "node-1"}
}

// formats are one of each thing that is written to a disk or a log.
func formats(t testing.TB) map[string][]byte {
	put, err := (&PutWebhook{Stamp: 7, Webhook: &relay.Webhook{ID: "w", Store: 1, Name: "n", URL: "http://a/", Events: []string{"*"}}}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	del, err := (&DeleteWebhook{Stamp: 7, Store: 1, ID: "w"}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	e, o := sampleEvent(), sampleOutcome()
	meta := newMemory()
	if _, err := (Meta{}).Apply(meta, 1, put); err != nil {
		t.Fatal(err)
	}
	if _, err := (Meta{}).Apply(meta, 2, del); err != nil {
		t.Fatal(err)
	}
	dropped := meta.rows[string(keyDropped(1))]
	return map[string][]byte{
		"command accept":         (&Accept{Stamp: 7, Events: []NewEvent{{Event: e, Digest: [DigestSize]byte{1, 2}}}}).Encode(),
		"command settle":         (&Settle{Stamp: 7, Term: 2, Cursor: 4, Outcomes: []*relay.Outcome{o}}).Encode(),
		"command replay":         (&Replay{Stamp: 7, Webhook: 3, Failures: []string{"fail_1"}}).Encode(),
		"command expire":         (&Expire{Stamp: 7, From: 1, Floor: 2, FailedBefore: -3, Day: 4, Evidence: 5}).Encode(),
		"command evict":          (&Evict{Stamp: 7, Evidence: 8, Bodies: 9}).Encode(),
		"command drop webhook":   (&DropWebhook{Stamp: 7, Webhook: 3}).Encode(),
		"command put webhook":    put,
		"command delete webhook": del,
		"row status":             (&Status{Sequence: 1, Number: 2, Cursor: 3, Stamp: 4, Hour: 5, Expired: 6, Evidence: 7, Bodies: 8}).encode(),
		"row event":              appendHeader(nil, e),
		"row id":                 (&idRow{sequence: 5, digest: [DigestSize]byte{1}, matched: 2, created: 1_736_000_000}).encode(),
		"row parked":             (&Parked{State: relay.Retrying, Attempts: 2, Due: 3, Failure: 4, Accepted: 5}).encode(),
		"row attempt":            appendAttempt(nil, o, true),
		"row failure":            encodeFailure(&relay.Failure{ID: "fail_1", Sequence: 5, EventID: "evt_1", EventType: "a.b", Attempts: 3, StatusCode: 500, Error: "status_500", State: relay.Dead, CreatedAt: 6, FailedAt: 7}),
		"row hour":               hourRow{1, 2}.encode(),
		"row statistics":         Counters{{Kind: CountCreated}: 3, {Kind: CountState, Arg: 1}: 2, {Kind: CountTypeEnd, Arg: 1, Type: "a.b"}: 2}.encode(),
		"row dropped":            dropped,
		"key id":                 keyID(1, "cart", "evt_1"),
		"key event":              key1(tableEvent, 5),
		"key parked":             keyParked(5, 3),
		"key outcome":            keyOutcome(5, 6),
		"key timer":              keyTimer(1_736_000_000_123, 5, 3),
		"key backlog":            keyHook(tableBacklog, 3, 5),
		"key attempt":            keyAttempt(20_000, 3, 6),
		"key statistics":         keyStats(20_000, 3, 287),
		"key failure":            keyFailure("fail_1"),
		"key hour":               keyHour(480_000),
		"key webhook":            keyWebhook(1, 3),
		"key uuid":               keyUUID(1, "w"),
		"key dropped":            keyDropped(3),
	}
}

// TestFormats holds every format to the bytes that earlier releases wrote.
func TestFormats(t *testing.T) {
	got := formats(t)
	const file = "testdata/formats.txt"
	if *rewrite {
		var b bytes.Buffer
		for _, name := range slices.Sorted(maps.Keys(got)) {
			fmt.Fprintf(&b, "%s: %x\n", name, got[name])
		}
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(text)) {
		name, digits, _ := strings.Cut(strings.TrimSpace(line), ": ")
		want, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		if seen++; !bytes.Equal(got[name], want) {
			t.Errorf("%s is %x now and %x on disks", name, got[name], want)
		}
	}
	if seen != len(got) {
		t.Errorf("%d formats stand in %s, there are %d", seen, file, len(got))
	}
}

// FuzzCommand feeds any bytes to both machines: an error or a result, never a
// panic, and the state stays whole.
func FuzzCommand(f *testing.F) {
	for name, b := range formats(f) {
		if strings.HasPrefix(name, "command") {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newRig(t)
		r.accept(r.event("a", 3, 9), r.event("b", 3), r.event("c", 9))
		r.settle(1, r.outcome(1, 3, relay.Dead, 3), r.outcome(1, 9, relay.Retrying, 1))
		if _, err := r.p.Apply(r.rows, r.term, data); err == nil {
			again := newRig(t)
			again.apply(r.log[0])
			again.apply(r.log[1])
			again.apply(data)
			if len(again.rows.rows) != len(r.rows.rows) {
				t.Fatal("the same command left two states")
			}
		}
		_, _ = Meta{}.Apply(newMemory(), 1, data)
	})
}

// FuzzRow decodes any bytes as each kind of row: what can be read is written
// back to the same value.
func FuzzRow(f *testing.F) {
	for name, b := range formats(f) {
		if strings.HasPrefix(name, "row") {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		if s, err := decodeStatus(v); err == nil {
			if back, err := decodeStatus(s.encode()); err != nil || back != s {
				t.Fatalf("status %+v became %+v: %v", s, back, err)
			}
		}
		if p, err := decodeParked(v); err == nil {
			if back, err := decodeParked(p.encode()); err != nil || back != p {
				t.Fatalf("parked %+v became %+v: %v", p, back, err)
			}
		}
		if r, err := decodeIDRow(v); err == nil {
			if back, err := decodeIDRow(r.encode()); err != nil || back != r {
				t.Fatalf("id %+v became %+v: %v", r, back, err)
			}
		}
		if x, err := decodeFailure(v); err == nil {
			if back, err := decodeFailure(encodeFailure(&x)); err != nil || back != x {
				t.Fatalf("failure %+v became %+v: %v", x, back, err)
			}
		}
		if e, err := decodeEvent(1, v); err == nil {
			if back, err := decodeEvent(1, appendHeader(nil, e)); err != nil || back.ID != e.ID || len(back.Targets) != len(e.Targets) {
				t.Fatalf("event %+v became %+v: %v", e, back, err)
			}
		}
		if h, err := decodeHour(v); err == nil {
			if back, err := decodeHour(h.encode()); err != nil || back != h {
				t.Fatalf("hour %+v became %+v: %v", h, back, err)
			}
		}
		_, _ = decodeAttempt(v)
		_ = eachEnding(v, func(Delivery) {})
		_ = Counters{}.addEncoded(v)
		_, _ = decodeWebhook(v)
	})
}

// FuzzKeyOrder: keys sort as what they are made of.
func FuzzKeyOrder(f *testing.F) {
	f.Add(uint64(1), uint32(2), uint64(256), uint32(1), int64(5))
	f.Add(uint64(1<<40), uint32(1<<31), uint64(1<<40+1), uint32(0), int64(1<<41))
	f.Fuzz(func(t *testing.T, s1 uint64, h1 uint32, s2 uint64, h2 uint32, due int64) {
		if s1 != s2 {
			less := s1 < s2
			for _, keys := range [][2][]byte{
				{key1(tableEvent, s1), key1(tableEvent, s2)}, {keyParked(s1, h1), keyParked(s2, h2)},
				{keyOutcome(s1, uint64(h1)), keyOutcome(s2, uint64(h2))}, {keyHook(tableDead, h1, s1), keyHook(tableDead, h1, s2)},
				{keyTimer(max(due, 0), s1, h1), keyTimer(max(due, 0), s2, h2)}, {keyAttempt(h1, h2, s1), keyAttempt(h1, h2, s2)},
			} {
				if (bytes.Compare(keys[0], keys[1]) < 0) != less {
					t.Fatalf("%x and %x do not sort as %d and %d", keys[0], keys[1], s1, s2)
				}
			}
		}
		if be64(keyParked(s1, h1)[1:]) != s1 || be32(keyParked(s1, h1)[9:]) != h1 {
			t.Fatal("a key is not read as it was written")
		}
	})
}
