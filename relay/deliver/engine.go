// Package deliver sends events to webhooks: every webhook has a lane of its
// own, lanes take turns, and workers run the attempts. DESIGN.md tells how
// memory stays bounded and how the cursor moves.
//
// What it guarantees: an attempt starts only for a committed event, in the
// term of the dispatcher that was given it; a delivery leaves the window only
// by a committed outcome; a lane that is slow, held or dead delays no other.
//
// The Engine owns its workers, each Dispatcher one goroutine that tends it;
// Close and Stop wait for them.
package deliver

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/deliver/wire"
	"github.com/omnisales/edgerelay/relay/state"
)

// Registry is where webhooks are looked up.
type Registry interface {
	Webhook(ordinal uint32) *relay.Webhook
	// Watch calls fn after each change, with 0 where many changed.
	Watch(fn func(ordinal uint32)) (stop func())
}

// Keys opens sealed secrets.
type Keys interface {
	Open(s relay.Sealed, aad []byte) ([]byte, error)
}

// Source is a led partition: committed state to read, outcomes to commit.
type Source interface {
	Reader() state.Reader
	// Settle queues an outcome; it blocks while the queue is full.
	Settle(o *relay.Outcome)
	// SetCursor tells up to where every delivery is settled or parked.
	SetCursor(sequence uint64)
	// Deleted says whether a webhook that the registry does not know was
	// deleted: it may only not be known yet.
	Deleted(webhook uint32) bool
}

// Options of an Engine; all are required.
type Options struct {
	Registry Registry
	Keys     Keys
	AAD      func(store uint32, webhookID, field string) []byte
	Client   *wire.Client
	NodeID   string
	// MaxInFlight bounds the attempts under way, over all webhooks.
	MaxInFlight int
	// EvidenceBytesPerSecond is kept in full of successful attempts, a
	// webhook; of others always.
	EvidenceBytesPerSecond int
	// Drain is how long Stop waits for attempts under way.
	Drain time.Duration
	// Disable switches a webhook off that answered 410.
	Disable func(ordinal uint32, reason string)
	Logger  *slog.Logger
	Now     func() time.Time
}

// Engine runs the attempts of every partition that this node leads.
type Engine struct {
	opt     Options
	bounds  bounds
	unwatch func()
	stats   counters

	mu       sync.Mutex
	work     sync.Cond // a lane became ready, or the engine closes
	ready    ring[*lane]
	workers  int
	idle     int
	closed   bool
	leading  map[*Dispatcher]bool
	stopping sync.WaitGroup // workers
}

// idleWorkers wait for work; more than that end when there is none.
const idleWorkers = 64

// New makes an Engine.
func New(opt Options) *Engine {
	e := &Engine{opt: opt, bounds: windowBounds, leading: map[*Dispatcher]bool{}}
	e.work.L = &e.mu
	e.unwatch = opt.Registry.Watch(e.changed)
	return e
}

// Close ends the workers; the dispatchers were stopped before.
func (e *Engine) Close() {
	e.unwatch()
	e.mu.Lock()
	e.closed = true
	e.work.Broadcast()
	e.mu.Unlock()
	e.stopping.Wait()
}

// changed looks at a webhook's lanes anew: it may be held or free now.
func (e *Engine) changed(ordinal uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for d := range e.leading {
		if ordinal == 0 {
			for _, l := range d.lanes {
				l.refresh()
			}
		} else if l := d.lanes[ordinal]; l != nil {
			l.refresh()
		}
		d.wake()
	}
}

// push lets a lane take turns if it has something to do. Caller holds mu.
func (e *Engine) push(l *lane) {
	if l.queued || !l.runnable() {
		return
	}
	l.queued = true
	e.ready.push(l)
	switch {
	case e.idle > 0:
		e.work.Signal()
	case e.workers < e.opt.MaxInFlight && !e.closed:
		e.workers++
		e.stopping.Go(e.run)
	}
}

// run is a worker: it takes one delivery after the other.
func (e *Engine) run() {
	a := newAttempt(e)
	for {
		j := e.next()
		if j == nil {
			return
		}
		a.run(j)
	}
}

// next takes the next delivery of the lane whose turn it is; nil: end.
func (e *Engine) next() *job {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		for e.ready.len() > 0 {
			l := e.ready.pop()
			l.queued = false
			if !l.runnable() {
				continue
			}
			j := l.take()
			e.push(l)
			return j
		}
		if e.closed || e.idle >= idleWorkers {
			e.workers--
			return nil
		}
		e.idle++
		e.work.Wait()
		e.idle--
	}
}

// done gives the lane its slot back.
func (e *Engine) done(j *job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	j.lane.finish(j)
	e.push(j.lane)
	if d := j.lane.d; d.stopped && d.inFlight == 0 {
		d.drained()
	}
}

// counters are an engine's numbers since its start.
type counters struct {
	succeeded, failed, retried, dead, micros atomic.Uint64
}

// Stats are the engine's numbers for an operator.
type Stats struct {
	Succeeded, Failed    uint64 // attempts
	Retried, Dead        uint64 // deliveries
	AttemptSeconds       float64
	InFlight, Workers    int
	Queued               int   // deliveries in memory that wait
	WindowEvents         int   // above the cursor, in memory
	WindowBytes          int64 // of their bodies
	Lanes, Backlog, Held int   // webhooks seen; of them with a backlog on disk; held
}

// Stats reads the numbers of this moment.
func (e *Engine) Stats() Stats {
	s := Stats{Succeeded: e.stats.succeeded.Load(), Failed: e.stats.failed.Load(), Retried: e.stats.retried.Load(), Dead: e.stats.dead.Load(),
		AttemptSeconds: float64(e.stats.micros.Load()) / 1e6}
	e.mu.Lock()
	defer e.mu.Unlock()
	s.Workers = e.workers
	for d := range e.leading {
		s.InFlight += d.inFlight
		s.Queued += d.queued
		s.WindowEvents += d.window.len()
		s.WindowBytes += d.bytes
		s.Lanes += len(d.lanes)
		for _, l := range d.lanes {
			if l.backlog {
				s.Backlog++
			}
			if l.held {
				s.Held++
			}
		}
	}
	return s
}

// Lead starts the dispatcher of a partition in a term. It reads one row; the
// rest is read while the partition goes on.
func (e *Engine) Lead(src Source, term uint64) *Dispatcher {
	d := newDispatcher(e, src)
	e.mu.Lock()
	e.leading[d] = true
	e.mu.Unlock()
	e.opt.Logger.Debug("dispatching", "term", term, "cursor", d.cursor)
	d.wg.Go(d.tend)
	return d
}

// Test sends an event once, outside of any queue, and tells what came of it.
func (e *Engine) Test(ctx context.Context, h *relay.Webhook, eventType, eventID string, data []byte) (*relay.Outcome, *relay.Evidence, error) {
	type answer struct {
		o        *relay.Outcome
		evidence *relay.Evidence
		err      error
	}
	answers := make(chan answer, 1)
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, nil, &relay.Error{Code: relay.CodeUnavailable, Message: "the node is stopping: send it again", RetryAfter: 1}
	}
	e.stopping.Go(func() {
		o, evidence, err := newAttempt(e).test(h, eventType, eventID, data)
		answers <- answer{o, evidence, err}
	})
	e.mu.Unlock()
	select {
	case a := <-answers:
		return a.o, a.evidence, a.err
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}
