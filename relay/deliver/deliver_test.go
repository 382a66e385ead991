package deliver

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/omnisales/edgerelay/cluster"
	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/deliver/wire"
	"github.com/omnisales/edgerelay/relay/destination"
	"github.com/omnisales/edgerelay/relay/replica"
	"github.com/omnisales/edgerelay/relay/state"
	"github.com/omnisales/edgerelay/sdk/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	secretA = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	secretB = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
)

// plain keeps secrets as they are.
type plain struct{}

func (plain) Open(s relay.Sealed, _ []byte) ([]byte, error) { return s.Ciphertext, nil }

func sealed(s string) relay.Sealed { return relay.Sealed{Ciphertext: []byte(s)} }

// webhooks is a registry that tells of changes.
type webhooks struct {
	mu  sync.Mutex
	all map[uint32]*relay.Webhook
	fn  func(uint32)
}

func (w *webhooks) Put(h *relay.Webhook) { w.set(h.Ordinal, h) }

func (w *webhooks) Delete(ordinal uint32) { w.set(ordinal, nil) }

func (w *webhooks) set(ordinal uint32, h *relay.Webhook) {
	w.mu.Lock()
	w.all[ordinal] = h
	if h == nil {
		delete(w.all, ordinal)
	}
	fn := w.fn
	w.mu.Unlock()
	if fn != nil {
		fn(ordinal)
	}
}

func (w *webhooks) Reset(all []*relay.Webhook) {
	for _, h := range all {
		w.set(h.Ordinal, h)
	}
}

func (w *webhooks) Webhook(ordinal uint32) *relay.Webhook {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all[ordinal]
}

func (w *webhooks) Watch(fn func(uint32)) func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fn = fn
	return func() {}
}

// stack is a whole node but for its API.
type stack struct {
	t         testing.TB
	fs        vfs.FS
	node      *cluster.Node
	registry  *webhooks
	client    *wire.Client
	engine    *Engine
	replica   *replica.Replica
	disabled  chan string
	bounds    *bounds
	published atomic.Int64
}

func newStack(t testing.TB) *stack {
	s := &stack{t: t, fs: vfs.NewMem(), disabled: make(chan string, 10)}
	s.open()
	t.Cleanup(s.close)
	return s
}

func (s *stack) open() {
	s.t.Helper()
	var err error
	s.node, err = cluster.Open(cluster.Options{Dir: "data", FS: s.fs, NodeID: "n", Merge: state.MergeCounters, Fatal: func(err error) { s.t.Errorf("fatal: %v", err) }})
	if err != nil {
		s.t.Fatal(err)
	}
	s.registry = &webhooks{all: map[uint32]*relay.Webhook{}}
	s.client = wire.New(wire.Options{Policy: destination.Policy{AllowLoopback: true}})
	s.engine = New(Options{Registry: s.registry, Keys: plain{}, AAD: func(uint32, string, string) []byte { return nil }, Client: s.client, NodeID: "n",
		MaxInFlight: 256, EvidenceBytesPerSecond: 4096, Drain: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
		Disable: func(ordinal uint32, reason string) {
			off := *s.registry.Webhook(ordinal)
			off.DisabledReason = reason
			s.registry.Put(&off)
			s.disabled <- reason
		}})
	if s.bounds != nil {
		s.engine.bounds = *s.bounds
	}
	s.replica, err = replica.Open(replica.Options{Node: s.node, Registry: s.registry, Retention: time.Hour, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
		FreeDisk: func() (uint64, uint64, error) { return 1, 1, nil },
		Lead:     func(src replica.Source, term uint64) replica.Dispatcher { return s.engine.Lead(src, term) }})
	if err != nil {
		s.t.Fatal(err)
	}
	s.eventually(func() bool { return s.replica.Ready() == nil })
}

func (s *stack) close() {
	s.replica.Close()
	s.client.Close()
	s.engine.Close()
	if err := s.node.Close(); err != nil {
		s.t.Error(err)
	}
}

func (s *stack) restart() {
	s.close()
	s.open()
}

// eventually polls for what has no signal of its own.
func (s *stack) eventually(done func() bool) {
	s.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for range 10_000 {
		if done() {
			return
		}
		<-tick.C
	}
	s.t.Fatal("it did not come to pass in 20 s")
}

// subscribe makes a webhook with short delays.
func (s *stack) subscribe(url string, change func(*relay.Webhook)) *relay.Webhook {
	s.t.Helper()
	h := &relay.Webhook{Store: 1, ID: "hook-" + strconv.FormatInt(s.published.Add(1), 10), URL: url, Events: []string{"*"}, Active: true, TimeoutSeconds: 10, MaxRetries: 3, MaxInFlight: 8,
		Retry: relay.Retry{InitialDelayMS: 20, MaxDelayMS: 1000, Multiplier: 2}, Secret: sealed(secretA)}
	if change != nil {
		change(h)
	}
	return s.put(h)
}

func (s *stack) put(h *relay.Webhook) *relay.Webhook {
	s.t.Helper()
	h, err := s.replica.PutWebhook(context.Background(), h)
	if err != nil {
		s.t.Fatal(err)
	}
	return h
}

func (s *stack) publish(n int, targets ...*relay.Webhook) (ids []string) {
	s.t.Helper()
	var events []state.NewEvent
	for range n {
		at := s.published.Add(1)
		e := state.NewEvent{Event: &relay.Event{Store: 1, ID: fmt.Sprintf("evt_%d", at), Type: "order.created", CreatedAt: 1_737_023_400, Data: []byte(`{"total":99.99}`)}}
		binary.BigEndian.PutUint64(e.Digest[:], uint64(at))
		for _, h := range targets {
			e.Event.Targets = append(e.Event.Targets, relay.Target{Webhook: h.Ordinal, Revision: 1})
		}
		ids = append(ids, e.Event.ID)
		events = append(events, e)
		if len(events) == 500 {
			s.accept(events)
			events = nil
		}
	}
	s.accept(events)
	return ids
}

func (s *stack) accept(events []state.NewEvent) {
	s.t.Helper()
	if len(events) == 0 {
		return
	}
	if _, err := s.replica.Accept(context.Background(), events); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stack) states(id string) []state.Delivery {
	s.t.Helper()
	r := s.replica.Readers()[0]
	found, err := state.FindEvents(r, 1, id)
	if err != nil || len(found) != 1 {
		s.t.Fatalf("%s: %v %v", id, found, err)
	}
	e, err := state.LoadEvent(r, found[0])
	if err != nil {
		s.t.Fatal(err)
	}
	d, err := state.Deliveries(r, e)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// until waits for an event's first delivery to reach a state.
func (s *stack) until(id string, want relay.State) state.Delivery {
	s.t.Helper()
	var d state.Delivery
	s.eventually(func() bool {
		d = s.states(id)[0]
		return d.State == want
	})
	return d
}

// receiver counts what comes, by event id.
type receiver struct {
	*httptest.Server
	mu   sync.Mutex
	seen map[string]int
}

func newReceiver(t testing.TB, answer func(w http.ResponseWriter, r *http.Request, body []byte, nth int)) *receiver {
	rc := &receiver{seen: map[string]int{}}
	rc.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		id := r.Header.Get("webhook-id")
		rc.mu.Lock()
		rc.seen[id]++
		n := rc.seen[id]
		rc.mu.Unlock()
		if answer != nil {
			answer(w, r, body, n)
		}
	}))
	t.Cleanup(rc.Close)
	return rc
}

func (rc *receiver) count() (ids, requests int) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	for _, n := range rc.seen {
		requests += n
	}
	return len(rc.seen), requests
}

func status(code int) func(http.ResponseWriter, *http.Request, []byte, int) {
	return func(w http.ResponseWriter, _ *http.Request, _ []byte, _ int) { w.WriteHeader(code) }
}

func TestDeliverySignsForBothSchemes(t *testing.T) {
	s := newStack(t)
	secret, err := webhook.ParseSecret(secretA)
	if err != nil {
		t.Fatal(err)
	}
	wrong := make(chan string, 10)
	rc := newReceiver(t, func(_ http.ResponseWriter, r *http.Request, body []byte, _ int) {
		v := webhook.Verifier{Secrets: []*webhook.Secret{secret}}
		if err := v.Verify(r.Header, body); err != nil {
			wrong <- err.Error()
		}
		if got := r.Header.Get("X-Webhook-Signature"); got != string(secret.AppendHex(nil, body)) {
			wrong <- "X-Webhook-Signature " + got
		}
		if string(body) != `{"id":"`+r.Header.Get("webhook-id")+`","event":"order.created","created_at":"2025-01-16T10:30:00Z","data":{"total":99.99}}` {
			wrong <- "body " + string(body)
		}
		for name, want := range map[string]string{"Content-Type": "application/json", "User-Agent": "OmniSales-Webhook/1.0", "X-Webhook-Event": "order.created",
			"X-Webhook-Attempt": "1", "X-Webhook-Timestamp": r.Header.Get("webhook-timestamp"), "X-Shop": "north"} {
			if got := r.Header.Get(name); got != want {
				wrong <- name + " is " + got
			}
		}
	})
	h := s.subscribe(rc.URL, func(h *relay.Webhook) { h.Headers = map[string]relay.Sealed{"X-Shop": sealed("north")} })
	s.until(s.publish(1, h)[0], relay.Succeeded)
	select {
	case w := <-wrong:
		t.Error(w)
	default:
	}
}

func TestRotationSignsByBothSecrets(t *testing.T) {
	s := newStack(t)
	var header atomic.Pointer[http.Header]
	rc := newReceiver(t, func(_ http.ResponseWriter, r *http.Request, body []byte, _ int) { header.Store(&r.Header) })
	next := sealed(secretB)
	a, _ := webhook.ParseSecret(secretA)
	b, _ := webhook.ParseSecret(secretB)
	h := s.subscribe(rc.URL, func(h *relay.Webhook) { h.NextSecret, h.GraceEnds = &next, time.Now().Unix()+1000 })
	id := s.publish(1, h)[0]
	s.until(id, relay.Succeeded)
	body := []byte(`{"id":"` + id + `","event":"order.created","created_at":"2025-01-16T10:30:00Z","data":{"total":99.99}}`)
	got := *header.Load()
	if got.Get("X-Webhook-Signature") != string(a.AppendHex(nil, body)) || got.Get("X-Webhook-Signature-Next") != string(b.AppendHex(nil, body)) {
		t.Errorf("in the grace: %v", got)
	}
	over := *h
	over.GraceEnds = 1
	s.put(&over)
	id = s.publish(1, h)[0]
	s.until(id, relay.Succeeded)
	body = []byte(`{"id":"` + id + `","event":"order.created","created_at":"2025-01-16T10:30:00Z","data":{"total":99.99}}`)
	got = *header.Load()
	if got.Get("X-Webhook-Signature") != string(b.AppendHex(nil, body)) || got.Get("X-Webhook-Signature-Next") != "" {
		t.Errorf("after the grace: %v", got)
	}
}

func TestFailureRetriesDiesAndIsReplayed(t *testing.T) {
	s := newStack(t)
	var mended atomic.Bool
	rc := newReceiver(t, func(w http.ResponseWriter, _ *http.Request, _ []byte, _ int) {
		if !mended.Load() {
			w.WriteHeader(500)
		}
	})
	h := s.subscribe(rc.URL, nil)
	id := s.publish(1, h)[0]
	if d := s.until(id, relay.Dead); d.Attempts != 3 {
		t.Errorf("dead after %d attempts", d.Attempts)
	}
	failure := relay.FailureID(1, "", id, h.Ordinal)
	mended.Store(true)
	if n, err := s.replica.Replay(context.Background(), h.Ordinal, []string{failure}); n != 1 || err != nil {
		t.Fatalf("replayed %d: %v", n, err)
	}
	s.until(id, relay.Succeeded)
	f, err := state.LoadFailure(s.replica.Readers()[0], h.Ordinal, failure)
	if err != nil || f.State != relay.Succeeded {
		t.Errorf("failure: %+v %v", f, err)
	}
	if _, requests := rc.count(); requests != 4 {
		t.Errorf("%d requests, want 4", requests)
	}
}

func TestRetriesGoOnAfterARestart(t *testing.T) {
	s := newStack(t)
	var mended atomic.Bool
	rc := newReceiver(t, func(w http.ResponseWriter, _ *http.Request, _ []byte, _ int) {
		if !mended.Load() {
			w.WriteHeader(503)
		}
	})
	h := s.subscribe(rc.URL, func(h *relay.Webhook) { h.Retry.InitialDelayMS = 300 })
	id := s.publish(1, h)[0]
	s.until(id, relay.Retrying)
	mended.Store(true)
	s.restart()
	if d := s.until(id, relay.Succeeded); d.Attempts != 2 {
		t.Errorf("%d attempts", d.Attempts)
	}
}

func TestHeldDeliveriesWait(t *testing.T) {
	s := newStack(t)
	rc := newReceiver(t, nil)
	h := s.subscribe(rc.URL, func(h *relay.Webhook) { h.Paused = true })
	ids := s.publish(1200, h)
	s.eventually(func() bool {
		waiting, err := state.Waiting(s.replica.Readers()[0], h.Ordinal, 0, 2000)
		return err == nil && len(waiting) == len(ids)
	})
	if _, n := rc.count(); n != 0 {
		t.Fatalf("%d requests while paused", n)
	}
	s.restart()
	resumed := *s.registry.Webhook(h.Ordinal)
	resumed.Paused = false
	s.put(&resumed)
	s.eventually(func() bool { n, _ := rc.count(); return n == len(ids) })
	for _, id := range ids {
		s.until(id, relay.Succeeded)
	}
	if _, requests := rc.count(); requests != len(ids) {
		t.Errorf("%d requests for %d events", requests, len(ids))
	}
	s.eventually(func() bool { return s.engine.Stats().Backlog == 0 })
}

func TestDeletedWebhookCancels(t *testing.T) {
	s := newStack(t)
	rc := newReceiver(t, status(500))
	h := s.subscribe(rc.URL, func(h *relay.Webhook) { h.Retry.InitialDelayMS = 200 })
	id := s.publish(1, h)[0]
	s.until(id, relay.Retrying)
	if err := s.replica.DeleteWebhook(context.Background(), 1, h.ID); err != nil {
		t.Fatal(err)
	}
	s.until(id, relay.Cancelled)
	if _, n := rc.count(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// A receiver that never answers holds up itself only, although the window is
// far too small for its queue.
func TestHangingReceiverDelaysNobody(t *testing.T) {
	s := newStack(t)
	s.bounds = &bounds{events: 64, deliveries: 64, bytes: 1 << 20, laneParked: 16}
	s.restart()
	release := make(chan struct{})
	hanging := newReceiver(t, func(http.ResponseWriter, *http.Request, []byte, int) { <-release })
	well := newReceiver(t, nil)
	slow, fast := s.subscribe(hanging.URL, nil), s.subscribe(well.URL, nil)
	ids := s.publish(1000, slow, fast)
	s.eventually(func() bool { n, _ := well.count(); return n == len(ids) })
	close(release)
	s.eventually(func() bool { n, _ := hanging.count(); return n == len(ids) })
	for _, id := range ids {
		for _, d := range s.states(id) {
			if d.State == relay.Pending || d.State == relay.Backlog {
				s.until(id, relay.Succeeded)
			}
		}
	}
	if _, n := hanging.count(); n != len(ids) {
		t.Errorf("%d requests at the one that hung, for %d events", n, len(ids))
	}
	if _, n := well.count(); n != len(ids) {
		t.Errorf("%d requests at the other", n)
	}
	s.eventually(func() bool {
		st, err := state.LoadStatus(s.replica.Readers()[0])
		return err == nil && st.Cursor == st.Sequence
	})
}

func TestGoneDisables(t *testing.T) {
	s := newStack(t)
	rc := newReceiver(t, status(410))
	h := s.subscribe(rc.URL, nil)
	s.publish(1, h)
	<-s.disabled
	if s.registry.Webhook(h.Ordinal).Matches() {
		t.Error("it still matches")
	}
}

func TestRetryAfterIsHeeded(t *testing.T) {
	s := newStack(t)
	var first atomic.Int64
	rc := newReceiver(t, func(w http.ResponseWriter, _ *http.Request, _ []byte, n int) {
		if first.CompareAndSwap(0, time.Now().UnixMilli()) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
		}
	})
	h := s.subscribe(rc.URL, nil)
	id := s.publish(1, h)[0]
	s.until(id, relay.Retrying)
	other := s.publish(1, h)[0] // the webhook waits with it
	s.until(other, relay.Succeeded)
	if gap := time.Now().UnixMilli() - first.Load(); gap < 1000 {
		t.Errorf("delivered again after %d ms", gap)
	}
	s.until(id, relay.Succeeded)
}

func TestTestEvent(t *testing.T) {
	s := newStack(t)
	got := make(chan *http.Request, 1)
	rc := newReceiver(t, func(w http.ResponseWriter, r *http.Request, _ []byte, _ int) { got <- r; w.WriteHeader(418) })
	h := s.subscribe(rc.URL, func(h *relay.Webhook) { h.Active = false })
	o, evidence, err := s.engine.Test(context.Background(), h, "order.created", "evt_test_1", []byte(`{}`))
	if err != nil || o.StatusCode != 418 || o.State != relay.Dead || !o.Test || evidence.Remote == "" {
		t.Errorf("%+v %+v %v", o, evidence, err)
	}
	if r := <-got; r.Header.Get("X-Webhook-Test") != "true" {
		t.Error("not marked as a test")
	}
	if err := s.replica.LogTest(context.Background(), o); err != nil {
		t.Fatal(err)
	}
}

// Everything at once, with restarts in between: what was accepted is
// delivered, or dead, and the counters say the same as the rows.
func TestNothingIsLostOverRestarts(t *testing.T) {
	s := newStack(t)
	s.bounds = &bounds{events: 200, deliveries: 300, bytes: 1 << 20, laneParked: 20}
	s.restart()
	flaky := newReceiver(t, func(w http.ResponseWriter, _ *http.Request, _ []byte, n int) {
		if n < 3 {
			w.WriteHeader(500)
		}
	})
	well, dead := newReceiver(t, nil), newReceiver(t, status(500))
	hooks := []*relay.Webhook{s.subscribe(flaky.URL, nil), s.subscribe(well.URL, nil), s.subscribe(dead.URL, nil)}
	var ids []string
	for range 3 {
		ids = append(ids, s.publish(700, hooks...)...)
		s.restart()
	}
	var stuck string
	defer func() {
		if t.Failed() {
			t.Logf("waiting for %s: %+v\n%+v", stuck, s.states(stuck), s.engine.Stats())
		}
	}()
	for _, id := range ids {
		stuck = id
		s.eventually(func() bool {
			d := s.states(id)
			return d[0].State == relay.Succeeded && d[1].State == relay.Succeeded && d[2].State == relay.Dead
		})
	}
	for i, h := range hooks {
		slots, err := state.Stats(s.replica.Readers()[0], h.Ordinal, time.Now().Add(-time.Hour).UnixMilli(), time.Now().UnixMilli())
		if err != nil {
			t.Fatal(err)
		}
		sum := state.Counters{}
		for _, slot := range slots {
			sum.Add(slot.Counters)
		}
		want := relay.Succeeded
		if i == 2 {
			want = relay.Dead
		}
		if n := sum.Count(want); n != int64(len(ids)) {
			t.Errorf("webhook %d: %d %v of %d", i, n, want, len(ids))
		}
	}
}
