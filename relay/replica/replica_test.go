package replica

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/omnisales/edgerelay/cluster"
	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	crashSeed   = flag.Uint64("crash.seed", 0, "seed of the power cuts; 0: a new one")
	crashRounds = flag.Int("crash.rounds", 6, "power cuts a run")
)

// webhooks is a registry.
type webhooks struct {
	mu  sync.Mutex
	all map[uint32]*relay.Webhook
}

func (w *webhooks) Put(h *relay.Webhook) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all[h.Ordinal] = h
}

func (w *webhooks) Delete(ordinal uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, ordinal)
}

func (w *webhooks) Reset(all []*relay.Webhook) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = map[uint32]*relay.Webhook{}
	for _, h := range all {
		w.all[h.Ordinal] = h
	}
}

func (w *webhooks) Webhook(ordinal uint32) *relay.Webhook {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all[ordinal]
}

// settler is a dispatcher whose every attempt succeeds at once. It checks that
// it is shown each event once, in order.
type settler struct {
	src   Source
	term  uint64
	queue chan *relay.Event
	last  uint64
	wrong atomic.Pointer[string]
	wg    sync.WaitGroup

	mu     sync.Mutex
	open   map[uint64]int
	cursor uint64
	newest uint64
}

func newSettler(src Source, term uint64) *settler {
	status, err := state.LoadStatus(src.Reader())
	if err != nil {
		panic(err)
	}
	s := &settler{src: src, term: term, queue: make(chan *relay.Event, 1<<16), last: status.Sequence, open: map[uint64]int{}, cursor: status.Cursor, newest: status.Sequence}
	events, open, err := state.Unsettled(src.Reader(), status.Cursor, 1<<20)
	if err != nil {
		panic(err)
	}
	for i, e := range events {
		s.open[e.Sequence] = len(open[i])
		again := *e
		again.Targets = nil
		for _, w := range open[i] {
			again.Targets = append(again.Targets, relay.Target{Webhook: w})
		}
		s.queue <- &again
	}
	s.wg.Go(s.run)
	return s
}

func (s *settler) Applied(r *state.Result) {
	s.mu.Lock()
	for _, e := range r.Events {
		if e.Sequence != s.last+1 {
			m := fmt.Sprintf("event %d follows %d", e.Sequence, s.last)
			s.wrong.Store(&m)
		}
		s.last, s.newest = e.Sequence, e.Sequence
		s.open[e.Sequence] = len(e.Targets)
	}
	for _, o := range r.Settled {
		s.open[o.Sequence]--
	}
	for s.cursor < s.newest && s.open[s.cursor+1] == 0 {
		s.cursor++
		delete(s.open, s.cursor)
	}
	cursor := s.cursor
	s.mu.Unlock()
	s.src.SetCursor(cursor)
	for _, e := range r.Events {
		s.queue <- e
	}
}

func (s *settler) run() {
	for e := range s.queue {
		for _, t := range e.Targets {
			s.src.Settle(&relay.Outcome{Sequence: e.Sequence, Webhook: t.Webhook, EventType: e.Type, AcceptedAt: e.AcceptedAt, State: relay.Succeeded, Attempt: 1, StatusCode: 200})
		}
	}
}

func (s *settler) Stop() {
	close(s.queue)
	s.wg.Wait()
}

type stack struct {
	node     *cluster.Node
	replica  *Replica
	registry *webhooks
	mu       sync.Mutex
	settlers []*settler
}

func openStack(t testing.TB, fs vfs.FS) *stack {
	t.Helper()
	node, err := cluster.Open(cluster.Options{Dir: "data", FS: fs, NodeID: "n", Merge: state.MergeCounters, FlushBytes: 64 << 10,
		Fatal: func(err error) { t.Errorf("fatal: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	s := &stack{node: node, registry: &webhooks{}}
	s.replica, err = Open(Options{Node: node, Registry: s.registry, Retention: time.Hour, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
		FreeDisk: func() (uint64, uint64, error) { return 1, 1, nil },
		Lead: func(src Source, term uint64) Dispatcher {
			d := newSettler(src, term)
			s.mu.Lock()
			s.settlers = append(s.settlers, d)
			s.mu.Unlock()
			return d
		}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return s.replica.Ready() == nil })
	return s
}

func (s *stack) close(t testing.TB) {
	t.Helper()
	s.replica.Close()
	if err := s.node.Close(); err != nil {
		t.Fatal(err)
	}
	for _, d := range s.settlers {
		if m := d.wrong.Load(); m != nil {
			t.Errorf("term %d: %s", d.term, *m)
		}
	}
}

// eventually polls for what has no signal of its own.
func eventually(t testing.TB, done func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for range 10_000 {
		if done() {
			return
		}
		<-tick.C
	}
	t.Fatal("it did not come to pass in 20 s")
}

func event(id string, targets ...uint32) state.NewEvent {
	n := state.NewEvent{Event: &relay.Event{Store: 1, ID: id, Type: "order.created", CreatedAt: 1, Data: []byte(`{"n":1}`)}, Digest: [16]byte(sha256.New().Sum(nil)[:16])}
	for _, w := range targets {
		n.Event.Targets = append(n.Event.Targets, relay.Target{Webhook: w, Revision: 1})
	}
	return n
}

// TestPowerCut publishes under load, cuts the power again and again, and
// checks that what was acknowledged is there, once, and settled in the end.
func TestPowerCut(t *testing.T) {
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	fs := vfs.NewCrashableMem()
	acked := map[string]bool{}
	for round := range *crashRounds {
		s := openStack(t, fs)
		checkAll(t, s, acked)
		clone := publishUntilCut(t, s, fs, acked, round, rng)
		s.close(t)
		fs = clone
	}
	s := openStack(t, fs)
	checkAll(t, s, acked)
	settledInTheEnd(t, s)
	s.close(t)
	t.Logf("%d events acknowledged over %d power cuts", len(acked), *crashRounds)
}

func publishUntilCut(t *testing.T, s *stack, fs *vfs.MemFS, acked map[string]bool, round int, rng *rand.Rand) *vfs.MemFS {
	target := int64(100 + rng.IntN(800))
	unsynced, cloneRNG := rng.IntN(101), rand.New(rand.NewPCG(rng.Uint64(), 2))
	var mu sync.Mutex
	var answered atomic.Int64
	reached, stop := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprintf("evt_%d_%d_%d", round, w, i)
				got, err := s.replica.Accept(context.Background(), []state.NewEvent{event(id, 1, 2), event(id + "b")})
				if err != nil || got[0].Duplicate || got[1].Duplicate {
					t.Errorf("accept %s: %v %v", id, got, err)
					return
				}
				mu.Lock()
				acked[id], acked[id+"b"] = true, true
				mu.Unlock()
				if answered.Add(1) == target {
					close(reached)
				}
			}
		})
	}
	<-reached
	mu.Lock()
	before := maps.Clone(acked)
	clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: cloneRNG})
	mu.Unlock()
	close(stop)
	wg.Wait()
	clear(acked)
	maps.Copy(acked, before)
	return clone
}

// checkAll finds every acknowledged event, once, and compares the counters
// with the rows.
func checkAll(t *testing.T, s *stack, acked map[string]bool) {
	t.Helper()
	r := s.replica.Readers()[0]
	for id := range acked {
		found, err := state.FindEvents(r, 1, id)
		if err != nil || len(found) != 1 {
			t.Fatalf("%s is there %d times: %v", id, len(found), err)
		}
		if e, err := state.LoadEvent(r, found[0]); err != nil || e == nil || e.ID != id || string(e.Data) != `{"n":1}` {
			t.Fatalf("%s: %+v %v", id, e, err)
		}
	}
}

// settledInTheEnd waits until the cursor has passed everything; then created
// and succeeded of the counters are what the events say.
func settledInTheEnd(t *testing.T, s *stack) {
	t.Helper()
	r := s.replica.Readers()[0]
	var status state.Status
	eventually(t, func() bool {
		var err error
		if status, err = state.LoadStatus(r); err != nil {
			t.Fatal(err)
		}
		return status.Cursor == status.Sequence
	})
	slots, err := state.Stats(r, 1, time.Now().Add(-time.Hour).UnixMilli(), time.Now().UnixMilli())
	if err != nil {
		t.Fatal(err)
	}
	sum := state.Counters{}
	for _, slot := range slots {
		sum.Add(slot.Counters)
	}
	created := sum[state.Counter{Kind: state.CountCreated}]
	if created == 0 || created*2 != int64(status.Sequence) || sum.Count(relay.Succeeded) != created {
		t.Errorf("created %d, succeeded %d, of %d events", created, sum.Count(relay.Succeeded), status.Sequence)
	}
}

func TestAcceptKnowsDuplicatesAndConflicts(t *testing.T) {
	s := openStack(t, vfs.NewMem())
	defer s.close(t)
	other := event("evt_1")
	other.Digest[0]++
	got, err := s.replica.Accept(context.Background(), []state.NewEvent{event("evt_1", 7), event("evt_1", 8, 9), other})
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Duplicate || !got[1].Duplicate || got[1].Matched != 1 || !got[2].Conflict {
		t.Errorf("got %+v", got)
	}
}

// Events that match nothing move the cursor too.
func TestCursorFollowsWithoutOutcomes(t *testing.T) {
	s := openStack(t, vfs.NewMem())
	defer s.close(t)
	if _, err := s.replica.Accept(context.Background(), []state.NewEvent{event("evt_1"), event("evt_2")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		status, err := state.LoadStatus(s.replica.Readers()[0])
		return err == nil && status.Cursor == 2
	})
}

func TestWebhooksComeBackAfterARestart(t *testing.T) {
	fs := vfs.NewMem()
	s := openStack(t, fs)
	h, err := s.replica.PutWebhook(context.Background(), &relay.Webhook{Store: 1, ID: "a", Name: "first", Events: []string{"*"}})
	if err != nil || s.registry.Webhook(h.Ordinal).Name != "first" {
		t.Fatalf("put: %+v %v", h, err)
	}
	stale := *h
	changed := *h
	changed.Name = "second"
	if h, err = s.replica.PutWebhook(context.Background(), &changed); err != nil {
		t.Fatal(err)
	}
	if _, err := s.replica.PutWebhook(context.Background(), &stale); code(err) != relay.CodeConflict {
		t.Errorf("a stale change was taken: %v", err)
	}
	s.close(t)
	s = openStack(t, fs)
	defer s.close(t)
	if got := s.registry.Webhook(h.Ordinal); got == nil || got.Name != "second" {
		t.Errorf("after the restart: %+v", got)
	}
	if err := s.replica.DeleteWebhook(context.Background(), 2, "a"); code(err) != relay.CodeNotFound {
		t.Errorf("another store deleted it: %v", err)
	}
	if err := s.replica.DeleteWebhook(context.Background(), 1, "a"); err != nil || s.registry.Webhook(h.Ordinal) != nil {
		t.Errorf("delete: %v", err)
	}
}

func code(err error) string {
	var e *relay.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestClosedReplicaAcceptsNothing(t *testing.T) {
	s := openStack(t, vfs.NewMem())
	s.close(t)
	if _, err := s.replica.Accept(context.Background(), []state.NewEvent{event("evt_1")}); code(err) != relay.CodeUnavailable {
		t.Errorf("got %v", err)
	}
}
