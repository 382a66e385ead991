package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var killRounds = flag.Int("kill.rounds", 3, "how often TestKill kills the node")

// TestKill kills a node that accepts and delivers as fast as it can, again and
// again: every acknowledged event reaches every webhook, and counts once.
func TestKill(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	var node atomic.Pointer[child]
	node.Store(startNode(t, dir))
	seen := newArrivals()
	receiver := receiveFast(t, seen)
	hooks := []made{subscribe(t, node.Load(), receiver+"/a", ""), subscribe(t, node.Load(), receiver+"/b", `,"max_retries":50`)}
	stop := make(chan struct{})
	var publishing sync.WaitGroup
	var acknowledged atomic.Int64
	for p := range 8 {
		publishing.Go(func() {
			for i := 0; ; i++ {
				if !publishUntilAcknowledged(&node, fmt.Sprintf("kill-%d-%d", p, i), stop) {
					return
				}
				seen.promise(fmt.Sprintf("kill-%d-%d", p, i))
				acknowledged.Add(1)
			}
		})
	}
	for range *killRounds {
		enough := acknowledged.Load() + 300 + rng.Int64N(1500)
		eventually(t, "progress", func() bool { return acknowledged.Load() >= enough })
		node.Load().kill()
		node.Store(startNode(t, dir))
	}
	close(stop)
	publishing.Wait()
	n := node.Load()
	defer func() {
		for _, id := range seen.missing() {
			t.Logf("missing: %s", must(t, n, 200, "GET", "/api/events/"+id, "").raw)
		}
	}()
	eventually(t, "every acknowledged event at every webhook", func() bool { return len(seen.missing()) == 0 })
	for _, h := range hooks {
		eventually(t, "every outcome", func() bool {
			s := must(t, n, 200, "GET", "/api/webhooks/"+h.ID+"/stats", "").object(t)
			// An event whose answer was lost may be in too, and is settled then.
			return s["pending"] == 0.0 && s["succeeded"] == s["deliveries"] && s["deliveries"].(float64) >= float64(acknowledged.Load())
		})
		s := must(t, n, 200, "GET", "/api/webhooks/"+h.ID+"/stats", "").object(t)
		if got := int(s["deliveries"].(float64)); got > int(acknowledged.Load())+8 {
			t.Errorf("%d deliveries of %d acknowledged events: some were applied twice", got, acknowledged.Load())
		}
	}
	t.Logf("%d events acknowledged, %d deliveries came twice around %d kills", acknowledged.Load(), seen.doubled(), *killRounds)
	if seen.doubled() > *killRounds*2*1024 {
		t.Errorf("%d deliveries doubled", seen.doubled())
	}
}

// publishUntilAcknowledged sends an event, with the same id, until it is
// accepted; false if stop came first.
func publishUntilAcknowledged(node *atomic.Pointer[child], id string, stop <-chan struct{}) bool {
	body := []byte(`{"event":"order.created","id":"` + id + `","data":{"order_id":"` + id + `"}}`)
	for {
		select {
		case <-stop:
			return false
		default:
		}
		resp, err := http.Post(node.Load().url+"/api/events", "application/json", bytes.NewReader(body))
		if err != nil {
			continue // the node is down
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode == 202 && err == nil {
			return true
		}
	}
}

// arrivals counts what came where.
type arrivals struct {
	mu       sync.Mutex
	promised []string
	came     map[string]int // by path and event
	twice    int
}

func newArrivals() *arrivals { return &arrivals{came: map[string]int{}} }

func (a *arrivals) promise(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.promised = append(a.promised, id)
}

func (a *arrivals) take(path, id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.came[path+" "+id]++; a.came[path+" "+id] > 1 {
		a.twice++
	}
}

func (a *arrivals) missing() (events []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range a.promised {
		for _, path := range []string{"/a ", "/b "} {
			if a.came[path+id] == 0 {
				events = append(events, id)
			}
		}
	}
	return events
}

func (a *arrivals) doubled() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.twice
}

// receiveFast answers 200 and notes what came.
func receiveFast(t *testing.T, seen *arrivals) string {
	return receive(t, func(r *http.Request) int {
		seen.take(r.URL.Path, r.Header.Get("webhook-id"))
		return 200
	}).URL
}

// TestGracefulStop: what is under way is finished and recorded, so that
// nothing comes twice after a planned restart.
func TestGracefulStop(t *testing.T) {
	dir := t.TempDir()
	n := startNode(t, dir)
	entered, release := make(chan struct{}, 100), make(chan struct{})
	rc := receive(t, func(*http.Request) int {
		entered <- struct{}{}
		<-release
		return 200
	})
	w := subscribe(t, n, rc.URL, "")
	for range 5 {
		must(t, n, 202, "POST", "/api/events", order)
	}
	for range 5 {
		<-entered
	}
	stopped := make(chan struct{})
	go func() { n.stop(); close(stopped) }()
	eventually(t, "the API to close", func() bool { _, err := http.Get(n.url + "/healthz"); return err != nil })
	close(release)
	select {
	case <-stopped:
	case <-time.After(20 * time.Second):
		t.Fatal("the node does not stop")
	}
	n = startNode(t, dir)
	if s := must(t, n, 200, "GET", "/api/webhooks/"+w.ID+"/stats", "").object(t); s["succeeded"] != 5.0 || s["pending"] != 0.0 {
		t.Errorf("after the restart: %v", s)
	}
	if got := len(rc.wait(t, 5)); got != 5 {
		t.Errorf("%d requests for 5 deliveries", got)
	}
}
