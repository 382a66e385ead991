package intake

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/canonical"
	"github.com/omnisales/edgerelay/relay/registry"
	"github.com/omnisales/edgerelay/relay/state"
)

// acceptor keeps what would be made durable.
type acceptor struct {
	got []state.NewEvent
	err error
}

func (a *acceptor) Accept(_ context.Context, events []state.NewEvent) ([]state.Accepted, error) {
	if a.err != nil {
		return nil, a.err
	}
	a.got = append(a.got, events...)
	out := make([]state.Accepted, len(events))
	for i, e := range events {
		out[i] = state.Accepted{Sequence: uint64(i + 1), CreatedAt: e.Event.CreatedAt, Matched: len(e.Event.Targets)}
	}
	return out, nil
}

var now = time.Date(2025, 1, 16, 10, 30, 0, 500, time.UTC)

func newIntake(to *acceptor, change ...func(*Options)) *Intake {
	hooks := registry.New()
	hooks.Put(&relay.Webhook{Ordinal: 1, ID: "all", Store: 1, Active: true, Events: []string{"*"}})
	hooks.Put(&relay.Webhook{Ordinal: 2, ID: "eu", Store: 1, Active: true, Events: []string{"order.*"}, Channels: []string{"eu"}})
	opt := Options{Registry: hooks, Acceptor: to, MaxEventBytes: 1000, Now: func() time.Time { return now }, Random: rand.NewChaCha8([32]byte{1}),
		KnownType: func(name string) bool { return strings.HasPrefix(name, "order.") }}
	for _, c := range change {
		c(&opt)
	}
	return New(opt)
}

func TestPublish(t *testing.T) {
	var to acceptor
	in := newIntake(&to)
	r, err := in.Publish(t.Context(), 1, []byte(`{"event":"order.created","data":{"b":1.50,"a":"\u003c"},"channels":["eu"],"ordering_key":"k"}`), "")
	if err != nil || !strings.HasPrefix(r.ID, "evt_") || len(r.ID) != 36 || r.Matched != 2 || r.CreatedAt != now.Unix() || len(r.Warnings) != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	e := to.got[0].Event
	if string(e.Data) != `{"b":1.5,"a":"<"}` || e.OrderingKey != "k" || e.Store != 1 {
		t.Errorf("accepted %+v", e)
	}
	if r, err := in.Publish(t.Context(), 2, []byte(`{"event":"order.created","data":{}}`), ""); err != nil || r.Matched != 0 {
		t.Errorf("another store's event matched: %+v, %v", r, err)
	}
}

// The digest covers type, data and ordering key, not how they were written.
func TestDigest(t *testing.T) {
	digests := map[[state.DigestSize]byte]string{}
	same := 0
	for _, body := range []string{
		`{"event":"order.created","data":{"a":1}}`, `{"data":{ "a" : 1.0 },"event":"order.created","created_at":"2020-01-01T00:00:00Z"}`,
		`{"event":"order.updated","data":{"a":1}}`, `{"event":"order.created","data":{"a":2}}`, `{"event":"order.created","data":{"a":1},"ordering_key":"k"}`,
	} {
		var to acceptor
		if _, err := newIntake(&to).Publish(t.Context(), 1, []byte(body), "id"); err != nil {
			t.Fatal(err)
		}
		if _, ok := digests[to.got[0].Digest]; ok {
			same++
		}
		digests[to.got[0].Digest] = body
	}
	if len(digests) != 4 || same != 1 {
		t.Errorf("%d digests: %v", len(digests), digests)
	}
}

func TestStrictNumbers(t *testing.T) {
	var to acceptor
	in := newIntake(&to, func(o *Options) { o.StrictNumbers = true })
	_, err := in.Publish(t.Context(), 1, []byte(`{"event":"order.created","data":{"n":[1e400]}}`), "")
	if e, ok := relay.AsError(err); !ok || e.Code != relay.CodeInvalid || e.Field != "data.n[0]" || len(to.got) != 0 {
		t.Errorf("%v, %d kept", err, len(to.got))
	}
}

// What cannot be known is told with the id; what is not a user's is not told.
func TestErrors(t *testing.T) {
	unknown := &acceptor{err: &relay.Error{Code: relay.CodeOutcomeUnknown, Message: "send it again"}}
	_, err := newIntake(unknown).Publish(t.Context(), 1, []byte(`{"event":"order.created","data":{},"id":"mine"}`), "")
	if e, ok := relay.AsError(err); !ok || e.Code != relay.CodeOutcomeUnknown || e.EventID != "mine" {
		t.Errorf("%v", err)
	}
	rs, err := newIntake(unknown).PublishBatch(t.Context(), 1, []byte(`[{"event":"order.created","data":{},"id":"mine"},{}]`), false)
	if err != nil || rs[0].Err.EventID != "mine" || rs[1].Err.Field != "event" {
		t.Errorf("%+v, %v", rs, err)
	}
	inner := &acceptor{err: errors.New("disk /dev/sda1 is gone")}
	if _, err := newIntake(inner).Publish(t.Context(), 1, []byte(`{"event":"order.created","data":{}}`), ""); strings.Contains(err.Error(), "sda1") {
		t.Errorf("%v", err)
	}
}

// bodySize must be what AppendBody writes: a body at the limit passes, one
// byte more does not.
func TestSizeLimit(t *testing.T) {
	var to acceptor
	in := newIntake(&to)
	body := func(n int) []byte {
		return []byte(`{"event":"order.created","id":"i","data":{"a":"` + strings.Repeat("x", n) + `"}}`)
	}
	if _, err := in.Publish(t.Context(), 1, body(0), ""); err != nil {
		t.Fatal(err)
	}
	room := 1000 - len(to.got[0].Event.AppendBody(nil))
	if _, err := in.Publish(t.Context(), 1, body(room), ""); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := in.Publish(t.Context(), 1, body(room+1), ""); err == nil || !strings.Contains(err.Error(), "1001 bytes") {
		t.Errorf("over the limit: %v", err)
	}
}

// FuzzPublish: any bytes are refused with a reason, or accepted in a form that
// is accepted again as the same event.
func FuzzPublish(f *testing.F) {
	for _, s := range []string{`{"event":"order.created","data":{"a":[1,2.50,"x"]},"id":"i","created_at":"2025-01-16T10:30:00+02:00","ordering_key":"k","channels":["eu"]}`,
		`{"event":"order.created","data":{"9":1,"1":{}}}`, `[{"event":"order.created","data":{}}]`, "{}\n{}", `{"event":"order.created","data":{},"id":null,"channels":null}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var to acceptor
		in := newIntake(&to)
		given := bytes.Clone(body)
		_, err := in.Publish(t.Context(), 1, body, "")
		if !bytes.Equal(given, body) {
			t.Fatal("the request's bytes were changed")
		}
		if e, ok := relay.AsError(err); err != nil && (!ok || e.Code == relay.CodeInternal || e.Message == "") {
			t.Fatalf("refused with %v", err)
		}
		if err == nil {
			e, digest := to.got[0].Event, to.got[0].Digest
			again := `{"event":"order.created","data":` + string(e.Data) + `,"ordering_key":` + map[bool]string{true: "null", false: string(quote(e.OrderingKey))}[e.OrderingKey == ""] + `}`
			again = strings.Replace(again, "order.created", e.Type, 1)
			if _, err := in.Publish(t.Context(), 1, []byte(again), ""); err != nil || to.got[1].Digest != digest {
				t.Fatalf("%s became %s: %v", body, again, err)
			}
		}
		for _, ndjson := range []bool{true, false} {
			if rs, err := in.PublishBatch(t.Context(), 1, body, ndjson); err == nil && len(rs) == 0 {
				t.Fatal("a batch without results")
			}
		}
	})
}

func quote(s string) []byte { return canonical.AppendString(nil, s) }
