package api

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/access"
)

func testRequest(t testing.TB) *request {
	keyring, err := access.NewKeyring([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	return &request{Server: &Server{opt: Options{Keyring: keyring, Random: rand.NewChaCha8([32]byte{2}), Now: func() time.Time { return time.Unix(1_700_000_000, 0) }}}}
}

func defaultWebhook() *relay.Webhook {
	return &relay.Webhook{Store: 1, ID: "id", Active: true, Signing: []string{"v1"}, TimeoutSeconds: relay.DefaultTimeoutSeconds, MaxRetries: relay.DefaultMaxRetries, Retry: relay.DefaultRetry,
		MaxInFlight: relay.DefaultMaxInFlight, CreatedAt: 1, UpdatedAt: 1}
}

// FuzzWebhookBody: any bytes are refused with a reason, or make a webhook that
// can be shown and sent back, and then is the same.
func FuzzWebhookBody(f *testing.F) {
	for _, s := range []string{
		`{"name":"n","url":"https://a.example/h?x=1","events":["order.*","*"],"description":"d","is_active":false,"paused":true,"channels":["eu"]}`,
		`{"name":"n","url":"http://10.0.0.1:8080/","events":["order.created"],"headers":{"X-A":"b"},"ip_whitelist":["192.168.1.100","203.0.113.0/24","::/0"]}`,
		`{"name":"n","url":"https://[2001:db8::1]/","events":["*"],"signing":["v1","v1a"],"retry":{"initial_delay_ms":5,"max_delay_ms":5,"multiplier":1.5,"jitter":0.1},"timeout_seconds":1,"max_retries":50,"max_in_flight":1}`,
		`{"name":"n","url":"https://a.example/","events":["*"],"secret":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw","filter":null,"plugins":[],"ordered":false,"rate_limit":null}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := testRequest(t)
		h := defaultWebhook()
		in := input{request: r, h: h, create: true}
		if err := in.read(body); err != nil {
			if e, ok := relay.AsError(err); !ok || e.Message == "" {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		shape, err := r.shape(h)
		if err != nil {
			t.Fatal(err)
		}
		shown, err := json.Marshal(shape)
		if err != nil {
			t.Fatal(err)
		}
		again := *h
		again.Headers = maps.Clone(h.Headers)
		if err := (&input{request: r, h: &again}).read(shown); err != nil {
			t.Fatalf("%s cannot be sent back: %v", shown, err)
		}
		shape2, err := r.shape(&again)
		if err != nil || !reflect.DeepEqual(shape, shape2) {
			t.Fatalf("%s sent back became %+v: %v", shown, shape2, err)
		}
	})
}

// FuzzRequests: the small bodies and cursors.
func FuzzRequests(f *testing.F) {
	for _, s := range []string{`{"failure_id":"fail_1"}`, `{"failure_ids":["a","b"]}`, `{"since":"2025-01-16T10:30:00Z","until":1737023400}`, `{"all":true}`, formatCursor([]uint64{1, 1 << 63}), "2025-01-16T10:30:00Z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := readReplay([]byte(s)); err == nil && !c.all && !c.ranged && len(c.ids) == 0 {
			t.Fatalf("%q replays nothing", s)
		}
		if numbers, err := parseCursor(s); err == nil && len(numbers) > 0 {
			if back, err := parseCursor(formatCursor(numbers)); err != nil || !reflect.DeepEqual(back, numbers) {
				t.Fatalf("cursor %v became %v: %v", numbers, back, err)
			}
		}
		_, _ = parseTime(s, "since")
	})
}
