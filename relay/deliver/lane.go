package deliver

import (
	"time"

	"github.com/omnisales/edgerelay/relay"
)

// item is an event in memory.
type item struct {
	sequence        uint64
	store           uint32
	id, orderingKey string
	eventType       string
	acceptedAt      int64
	body            []byte // what is sent; nil once nobody needs it
	left            int    // fresh deliveries without a committed outcome
}

// job is a delivery in memory: queued, or being attempted.
type job struct {
	*item
	lane     *lane
	payload  []byte    // the item's body, held while the attempt runs
	attempts int       // made before
	parked   bool      // a row names it: its outcome must take the row away
	since    time.Time // queued, then started
	// spilling: a backlog row is being written while the attempt runs; its
	// outcome waits in final, since it must not overtake the row.
	spilling bool
	final    *relay.Outcome
}

// lane is one webhook's queue in one partition. Engine.mu guards it.
type lane struct {
	d       *Dispatcher
	webhook uint32
	queue   ring[*job]
	flying  map[*job]bool
	// parked are the sequences of this lane's parked deliveries in memory,
	// so that none is read from disk twice.
	parked map[uint64]bool
	limit  int
	queued bool // stands in Engine.ready
	held   bool // the webhook is paused, inactive or disabled
	until  time.Time

	// backlog: rows on disk hold deliveries that have no place in memory.
	// Fresh ones go there too until it is read empty.
	backlog bool
	after   uint64 // rows up to here were read
	rows    uint64 // how many were seen written: none comes unnoticed
	rescan  uint64 // the lowest sequence written since the last read; 0: none
	// gone are what was settled while the backlog is being read: the rows
	// that are read may be older.
	gone map[uint64]bool

	finished, measured int       // attempts ended; those at the last measurement
	measuredAt         time.Time // zero: never
	perSecond          float64   // attempts ended, then; negative: unknown

	compiled *compiled
	evidence bucket
}

func (d *Dispatcher) lane(webhook uint32) *lane {
	l := d.lanes[webhook]
	if l == nil {
		l = &lane{d: d, webhook: webhook, flying: map[*job]bool{}, parked: map[uint64]bool{}, limit: relay.DefaultMaxInFlight}
		l.refresh()
		d.lanes[webhook] = l
	}
	return l
}

// refresh looks at the webhook as it is now. A deleted one is not held: its
// deliveries are taken and cancelled. One that is not known yet is.
func (l *lane) refresh() {
	if h := l.d.engine.opt.Registry.Webhook(l.webhook); h != nil {
		l.held, l.limit = h.Held(), h.MaxInFlight
	} else {
		l.held = !l.d.src.Deleted(l.webhook)
	}
	l.d.watch(l)
	l.d.engine.push(l)
}

func (l *lane) blocked() bool {
	return l.held || !l.until.IsZero() && l.d.engine.opt.Now().Before(l.until)
}

func (l *lane) runnable() bool {
	return l.queue.len() > 0 && len(l.flying) < l.limit && !l.d.stopped && !l.blocked()
}

func (l *lane) add(j *job) {
	j.lane = l
	j.since = l.d.engine.opt.Now()
	if j.parked {
		l.parked[j.sequence] = true
	}
	l.queue.push(j)
	l.d.queued++
	l.d.engine.push(l)
}

func (l *lane) take() *job {
	j := l.queue.pop()
	l.d.queued--
	l.d.inFlight++
	l.flying[j] = true
	j.payload = j.body
	j.since = l.d.engine.opt.Now()
	return j
}

func (l *lane) finish(j *job) {
	delete(l.flying, j)
	l.finished++
	l.d.inFlight--
}

// stuck says whether the lane's queue keeps the window from moving: it is
// blocked, or its own receiver, not the node, is what it waits for, and will be
// for long.
func (l *lane) stuck(now time.Time) bool {
	switch {
	case l.queue.len() == 0:
		return false
	case l.blocked():
		return true
	case len(l.flying) < l.limit || now.Sub(l.queue.at(0).since) <= spillAfter:
		return false
	}
	return l.perSecond >= 0 && float64(l.queue.len()) > l.perSecond*drainsWithin.Seconds()
}

// measure takes the lane's pace, over a second or more.
func (l *lane) measure(now time.Time) {
	took := now.Sub(l.measuredAt)
	if took < time.Second {
		return
	}
	l.perSecond = float64(l.finished-l.measured) / took.Seconds()
	if l.measuredAt.IsZero() {
		l.perSecond = -1
	}
	l.measured, l.measuredAt = l.finished, now
}

// bucket is a token bucket of bytes, a second's worth deep.
type bucket struct {
	tokens float64
	at     time.Time
}

func (b *bucket) take(n, perSecond int, now time.Time) bool {
	full := float64(perSecond)
	if b.at.IsZero() {
		b.tokens = full
	} else {
		b.tokens = min(full, b.tokens+full*now.Sub(b.at).Seconds())
	}
	b.at = now
	if b.tokens < float64(n) {
		return false
	}
	b.tokens -= float64(n)
	return true
}
