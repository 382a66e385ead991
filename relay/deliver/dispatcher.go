package deliver

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/state"
)

// Dispatcher delivers one led partition's events for one term.
type Dispatcher struct {
	engine *Engine
	src    Source

	// The rest is guarded by Engine.mu.
	lanes map[uint32]*lane
	// watched are the lanes that need tending: held, paused or with a backlog.
	watched map[*lane]bool
	pressed time.Time // when all lanes were last looked through for what is stuck
	// window holds the events above the cursor, in order, without gaps: the
	// first is base. When it is full the dispatcher is behind, and reads what
	// follows from the state as room comes.
	window ring[*item]
	base   uint64
	cursor uint64
	loaded uint64 // the last sequence that is or was in the window
	newest uint64 // the last sequence applied
	behind bool
	bytes  int64 // of bodies in the window
	queued int
	spills []*job // fresh deliveries whose lane has a backlog

	// Timers below timerBound were read from the state, or are being read:
	// those that come there are taken at once.
	timerFrom  state.Timer
	timerBound state.Timer
	direct     []state.Timer
	nextDue    int64 // unix ms; of the timers on disk

	inFlight int
	stopped  bool
	empty    chan struct{} // closed when stopped and nothing is in flight
	isEmpty  bool

	kick chan struct{}
	quit chan struct{}
	once sync.Once
	wg   sync.WaitGroup
}

// bounds are the window's, and how many parked deliveries one lane may hold in
// memory.
type bounds struct {
	events, deliveries int
	bytes              int64
	laneParked         int
}

var windowBounds = bounds{events: 65_536, deliveries: 262_144, bytes: 64 << 20, laneParked: 512}

// spillAfter is how long a lane's head may wait before the lane counts as
// stuck, should the window be full.
const spillAfter = time.Second

// drainsWithin is how much queue a lane may have, as time at its own pace,
// before it counts as stuck: rows in the backlog cost more than the wait that
// it saves the others.
const drainsWithin = 5 * time.Second

func newDispatcher(e *Engine, src Source) *Dispatcher {
	d := &Dispatcher{engine: e, src: src, lanes: map[uint32]*lane{}, watched: map[*lane]bool{}, kick: make(chan struct{}, 1), quit: make(chan struct{}), empty: make(chan struct{}), nextDue: math.MaxInt64}
	status, err := state.LoadStatus(src.Reader())
	if err != nil {
		panic(fmt.Errorf("read the status of a led partition: %w", err)) // the disk is gone
	}
	d.cursor, d.loaded, d.newest = status.Cursor, status.Cursor, status.Sequence
	d.base = d.cursor + 1
	d.behind = d.newest > d.loaded
	return d
}

// Applied takes an entry's effects, in commit order. It does not block.
func (d *Dispatcher) Applied(r *state.Result) {
	e := d.engine
	items := d.itemsOf(r.Events)
	e.mu.Lock()
	for _, o := range r.Settled {
		d.settled(o)
	}
	for _, t := range r.Timers {
		d.timer(t)
	}
	for i, ev := range r.Events {
		d.newest = ev.Sequence
		if d.behind || d.full() || items == nil {
			d.behind = true
			continue
		}
		for _, t := range ev.Targets {
			d.admit(&job{item: items[i]}, t.Webhook)
		}
		d.enter(items[i])
	}
	moved := d.advance()
	if d.behind || len(d.spills) > 0 || len(d.direct) > 0 {
		d.wake()
	}
	cursor := d.cursor
	e.mu.Unlock()
	if moved {
		d.src.SetCursor(cursor)
	}
}

// itemsOf makes the items outside of the lock; nil while the dispatcher is
// behind and would drop them.
func (d *Dispatcher) itemsOf(events []*relay.Event) []*item {
	d.engine.mu.Lock()
	behind := d.behind
	d.engine.mu.Unlock()
	if behind {
		return nil
	}
	items := make([]*item, len(events))
	for i, e := range events {
		items[i] = newItem(e, len(e.Targets))
	}
	return items
}

// newItem copies what is sent out of the event, whose bytes belong to a whole
// entry.
func newItem(e *relay.Event, left int) *item {
	it := &item{sequence: e.Sequence, store: e.Store, id: e.ID, orderingKey: e.OrderingKey, eventType: e.Type, acceptedAt: e.AcceptedAt, left: left}
	if left > 0 {
		it.body = e.AppendBody(make([]byte, 0, len(e.Data)+len(e.ID)+len(e.Type)+64))
	}
	return it
}

func (d *Dispatcher) full() bool {
	b := &d.engine.bounds
	return d.window.len() >= b.events || d.bytes >= b.bytes || d.queued+len(d.spills) >= b.deliveries
}

// admit gives a fresh delivery to its lane, or to the backlog that stands
// before it.
func (d *Dispatcher) admit(j *job, webhook uint32) {
	l := d.lane(webhook)
	if l.backlog || l.held {
		j.lane = l
		d.spills = append(d.spills, j)
		return
	}
	l.add(j)
}

func (d *Dispatcher) enter(it *item) {
	d.window.push(it)
	d.loaded = it.sequence
	d.bytes += int64(len(it.body))
}

// settled takes note of a committed outcome.
func (d *Dispatcher) settled(o *relay.Outcome) {
	if o.Test {
		return
	}
	l := d.lanes[o.Webhook]
	if l != nil && (o.Parked || o.Sequence < d.base) {
		delete(l.parked, o.Sequence)
		if l.gone != nil {
			l.gone[o.Sequence] = true
		}
		if l.backlog && len(l.parked) < d.engine.bounds.laneParked/2 {
			d.wake()
		}
	}
	if !o.Parked && o.Sequence >= d.base && o.Sequence-d.base < uint64(d.window.len()) {
		it := d.window.at(int(o.Sequence - d.base))
		if it.left--; it.left == 0 {
			d.release(it)
		}
	}
	if o.State == relay.Backlog {
		d.backlogged(d.lane(o.Webhook), o.Sequence)
	}
}

// backlogged notes a row of a lane's backlog, unless its delivery is in memory.
func (d *Dispatcher) backlogged(l *lane, sequence uint64) {
	if l.parked[sequence] {
		return
	}
	l.backlog = true
	l.rows++
	d.watch(l)
	d.wake()
	d.rescan(l, sequence)
}

// rescan lets the backlog be read from a row on again.
func (d *Dispatcher) rescan(l *lane, sequence uint64) {
	if l.rescan == 0 || sequence < l.rescan {
		l.rescan = sequence
	}
}

// watch keeps the set of lanes that need tending.
func (d *Dispatcher) watch(l *lane) {
	if l.held || l.backlog || !l.until.IsZero() {
		d.watched[l] = true
	} else {
		delete(d.watched, l)
	}
}

func (d *Dispatcher) release(it *item) {
	d.bytes -= int64(len(it.body))
	it.body = nil
}

// advance moves the cursor over what is settled or parked.
func (d *Dispatcher) advance() (moved bool) {
	for d.window.len() > 0 && d.window.at(0).left == 0 {
		d.cursor = d.window.pop().sequence
		d.base = d.cursor + 1
		moved = true
	}
	if moved && d.behind {
		d.wake()
	}
	return moved
}

// timer takes note of a delivery that waits for its time.
func (d *Dispatcher) timer(t state.Timer) {
	if before(t, d.timerBound) {
		d.direct = append(d.direct, t)
		return
	}
	if t.Due < d.nextDue {
		d.nextDue = t.Due
		d.wake()
	}
}

func before(a, b state.Timer) bool {
	if a.Due != b.Due {
		return a.Due < b.Due
	}
	if a.Sequence != b.Sequence {
		return a.Sequence < b.Sequence
	}
	return a.Webhook < b.Webhook
}

// wake lets the tending goroutine look again.
func (d *Dispatcher) wake() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

func (d *Dispatcher) drained() {
	if !d.isEmpty {
		d.isEmpty = true
		close(d.empty)
	}
}

// Stop starts no more attempts and waits for those under way, for as long as
// Options.Drain says. What they come to later is of no term any more.
func (d *Dispatcher) Stop() {
	d.once.Do(func() {
		e := d.engine
		e.mu.Lock()
		d.stopped = true
		if d.inFlight == 0 {
			d.drained()
		}
		e.mu.Unlock()
		close(d.quit)
		d.wg.Wait()
		drain := time.NewTimer(e.opt.Drain)
		defer drain.Stop()
		select {
		case <-d.empty:
		case <-drain.C:
			e.opt.Logger.Warn("attempts under way were given up: they are made again", "drain", e.opt.Drain)
		}
		e.mu.Lock()
		delete(e.leading, d)
		e.mu.Unlock()
	})
}
